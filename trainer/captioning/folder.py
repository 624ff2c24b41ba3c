"""Captions for a folder of images, as text files beside them; a caption that is there stays unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from trainer.atomic import write_file
from trainer.captioning.kept import Kept
from trainer.captioning.style_words import content_of
from trainer.captioning.writers import Length, Writer
from trainer.data.captions import CaptionSource, read_captions
from trainer.data.decoder import Decoder, Source
from trainer.data.folder import list_images, without_masks
from trainer.errors import DatasetError, ImageError

SIDE = 1024
"""Longest side in pixels of the image that a model looks at; it makes it smaller itself (BLIP 384, Florence-2 768)."""


class Describes(Protocol):
    """`trainer.captioning.model.CaptionModel`."""

    def describe(self, picture: Image, length: Length = "short") -> str: ...


@dataclass(frozen=True)
class Written:
    """What became of an image.

    Attributes:
        name: its path below the folder.
        caption: what was written; empty where nothing was.
        said: the model's own words, style and all.
        problem: why nothing was written: the image cannot be used, or only its style was spoken of.
    """

    name: str
    caption: str = ""
    said: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Work:
    """Images of a folder by what is to be done.

    Attributes:
        missing: those that get a caption.
        kept: those that have one, and where it is from.
    """

    folder: Path
    missing: tuple[Path, ...]
    kept: Mapping[Path, CaptionSource]


def work_of(folder: Path, *, replace: bool = False) -> Work:
    """Which images of a folder have no caption: neither a text file, a line of ``metadata.jsonl``, nor a telling name.

    Args:
        replace: take those that have one, too.

    Raises:
        DatasetError: no such folder, no images, or captions that cannot be read.
    """
    images, _ = without_masks(list_images(folder)[0])
    if not images:
        raise DatasetError(f"There are no images in {folder}: put PNG, JPEG or WebP files in it.")
    captions, _ = read_captions(folder, images)
    sources = {file: captions[file.relative_to(folder).as_posix()].source for file in images}
    kept = {file: source for file, source in sources.items() if source != "none" and not replace}
    return Work(folder, tuple(file for file in images if file not in kept), kept)


def write_captions(
    work: Work,
    writer: Writer,
    opened: Callable[[], Describes],
    kept: Kept,
    *,
    length: Length,
    words: Sequence[str],
    dry: bool = False,
) -> Iterator[Written]:
    """Write ``cat.txt`` beside each ``cat.png`` that has no caption, and say what became of each image as it is done.

    Args:
        opened: gives the model when it is first needed.
        words: phrases that are left out, see `style_words.STYLE_WORDS`.
        dry: write no file.

    Raises:
        OSError: a caption cannot be written.
        BaseError, ConfigError, DeviceError: as of ``opened`` and its ``describe``.
    """
    model: Describes | None = None
    with Decoder() as decoder:
        for file in work.missing:
            name = file.relative_to(work.folder).as_posix()
            try:
                source = Source.read(file)
                said = kept.get(source.sha256, writer, length)
                if said is None:
                    picture, _ = decoder.copy(source, max_side=SIDE)
                    model = model or opened()
                    said = model.describe(picture, length)
                    kept.put(source.sha256, writer, length, said)
            except ImageError as error:
                yield Written(name, problem=str(error))
                continue
            caption = content_of(said, words)
            if not caption:
                why = f"nothing is left of {said!r} without its style words" if said else "the model says nothing of it"
                yield Written(name, said=said, problem=f"{name}: {why}.")
                continue
            if not dry:
                write_file(file.with_suffix(".txt"), f"{caption}\n".encode())
            yield Written(name, caption, said)
