"""What a run trains on, image by image, and how it is written down in the run's dataset.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from trainer.data.buckets import Box, Size
from trainer.data.captions import CaptionSource
from trainer.errors import DatasetError
from trainer.findings import Finding

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Example:
    """One image to train on. Sizes and boxes are pixels of the upright image.

    Attributes:
        path: the file.
        name: its name in the folder, with `/` before it when it lies in a subfolder.
        sha256: of the file's bytes, so that a changed file is noticed and caches are shared.
        width, height: of the upright image.
        content: what the image shows, without the trigger; empty when nobody said.
        caption: what is trained on: the content with the trigger.
        caption_source: where the content came from.
        bucket: (width, height) of the training picture.
        crop: (left, top, right, bottom) of the part that is scaled to `bucket`.
        mask: a picture of the same size that says how much of the image counts, white all and black nothing.
        mask_sha256: of its bytes.
        alpha: whether the image's own transparency says it.
        repeats: how often it comes in an epoch.
    """

    path: Path
    name: str
    sha256: str
    width: int
    height: int
    content: str
    caption: str
    caption_source: CaptionSource
    bucket: Size
    crop: Box
    mask: Path | None = None
    mask_sha256: str = ""
    alpha: bool = False
    repeats: int = 1


@dataclass(frozen=True)
class Dataset:
    """The images that can be trained on, in natural order of their names, and what was noticed.

    Attributes:
        windows: how many windows of a long caption are read (`trainer.bases.windows`); runs begun when one was all
            go on with one.
    """

    examples: tuple[Example, ...]
    findings: tuple[Finding, ...] = ()
    windows: int = 3

    def to_json(self) -> str:
        """This dataset as the text of a dataset.json; `from_json` gives an equal one back."""
        examples = [
            {**asdict(e), "path": str(e.path), "mask": None if e.mask is None else str(e.mask)} for e in self.examples
        ]
        findings = [asdict(f) for f in self.findings]
        document = {
            "version": FORMAT_VERSION,
            "windows": self.windows,
            "examples": examples,
            "findings": findings,
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Dataset:
        """The dataset that a dataset.json describes.

        Raises:
            DatasetError: the text is damaged, or a newer version of the program wrote it.
        """
        try:
            document = json.loads(text)
            version = document["version"]
            if version == FORMAT_VERSION:
                return cls(
                    tuple(_example(row) for row in document["examples"]),
                    tuple(Finding(**row) for row in document["findings"]),
                    int(document.get("windows", 1)),
                )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"dataset.json is damaged ({error}): start a new run with the same images.") from error
        raise DatasetError(
            f"dataset.json has version {version!r} and this program reads {FORMAT_VERSION}: "
            "use the version of Patina that wrote it."
        )


def _example(row: dict[str, Any]) -> Example:
    """One row of dataset.json with JSON's lists turned back into tuples.

    Raises:
        KeyError, TypeError, ValueError: something is missing, unknown or out of range.
    """
    width, height = (int(side) for side in row["bucket"])
    left, top, right, bottom = (int(edge) for edge in row["crop"])
    if row["caption_source"] not in get_args(CaptionSource):
        raise ValueError(f"unknown caption source {row['caption_source']!r}")
    if int(row.get("repeats", 1)) < 1:
        raise ValueError(f"{row['name']} is repeated {row['repeats']} times")
    if not (0 <= left < right <= row["width"] and 0 <= top < bottom <= row["height"]):
        raise ValueError(f"the crop of {row['name']} lies outside of it")
    return Example(
        **{
            **row,
            "path": Path(row["path"]),
            "mask": Path(row["mask"]) if row.get("mask") else None,
            "bucket": (width, height),
            "crop": (left, top, right, bottom),
        }
    )
