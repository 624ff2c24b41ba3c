"""Everything that is published, as files in a folder or a zip."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from trainer.atomic import replace_file, write_file
from trainer.bases.families import BUNDLED
from trainer.errors import AdapterFileError, PublishError
from trainer.publishing.card import card
from trainer.publishing.sidecar import sidecar
from trainer.publishing.subject import Subject
from trainer.safetensors_file import LEGACY_HASH_KEY, copy_with_tensors
from trainer.styles.metadata import TITLE_KEYS
from trainer.styles.privacy import public_config, public_metadata, removed

PREVIEW_SIDE = 512
"""Longer side of the preview, pixels."""


@dataclass(frozen=True)
class Choices:
    """What the publisher wants.

    Attributes:
        keep_private: leave captions, names of images and paths in.
        license, base, author: instead of what the style says; a base is a hub id.
        repo: id of the hub repository it goes to, for the card's snippet.
    """

    keep_private: bool = False
    license: str = ""
    base: str = ""
    author: str = ""
    repo: str = ""


@dataclass(frozen=True)
class Parcel:
    """Files that are to be published.

    Attributes:
        folder: where they lie.
        files: their names relative to it with their sizes in bytes, in the order in which they are told.
        notes: sentences for the publisher: what was taken out, and what is missing.
    """

    folder: Path
    files: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def pack(subject: Subject, folder: Path, choices: Choices | None = None) -> Parcel:
    """Write everything into a new or empty folder: the style, A1111's ``.json`` and preview, samples, settings, card.

    Raises:
        PublishError: the folder holds something.
        AdapterFileError: the style cannot be read any more.
        OSError: the folder cannot be written.
    """
    choices = choices or Choices()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PublishError(f"{folder} is there already and not empty: choose another place, so that nothing is mixed.")
    folder.mkdir(parents=True, exist_ok=True)
    subject = replace(
        subject,
        license=choices.license or subject.license,
        base=choices.base or subject.base,
        author=choices.author or subject.author,
    )
    style = f"{subject.stem}.safetensors"
    notes = _write_style(subject, folder / style, choices)
    write_file(folder / f"{subject.stem}.json", sidecar(subject).encode())
    _write_preview(subject, folder / f"{subject.stem}.png")
    shown: list[tuple[str, str]] = []
    for number, picture in enumerate(subject.pictures):
        name = f"samples/{number:03d}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(picture.path, folder / name)
        shown.append((name, picture.prompt))
    if subject.sheet is not None:
        (folder / "samples").mkdir(exist_ok=True)
        shutil.copyfile(subject.sheet, folder / "samples" / "sheet.png")
    if subject.config is not None:
        config = subject.config if choices.keep_private else public_config(subject.config)
        write_file(folder / "config.toml", config.to_toml().encode())
    write_file(folder / "README.md", card(subject, shown, file=style, repo=choices.repo).encode())
    if not subject.license:
        notes.append("No licence is named, so nobody else may use the style: name one.")
    if not subject.base and subject.family != BUNDLED.key:
        notes.append("The base was no model of the hub, so none is named; give its id there if it has one.")
    return Parcel(folder, dict(_listed(folder, style)), tuple(notes))


def write_zip(parcel: Parcel, target: Path) -> None:
    """Write a parcel's files as one zip, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in parcel.files:
                archive.write(parcel.folder / name, f"{target.stem}/{name}")

    replace_file(target, fill)


@contextmanager
def packed(subject: Subject, choices: Choices | None = None) -> Iterator[Parcel]:
    """A parcel in a folder that is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="patina-parcel-") as scratch:
        yield pack(subject, Path(scratch) / "parcel", choices)


def _write_style(subject: Subject, target: Path, choices: Choices) -> list[str]:
    metadata = dict(subject.header.metadata)
    notes = []
    if not choices.keep_private:
        if gone := removed(metadata):
            notes.append(f"Taken out of the file, because it is private: {', '.join(gone)}.")
        metadata = public_metadata(metadata)
    metadata |= dict.fromkeys(TITLE_KEYS, subject.name)
    # It is of the header, too, which is another one now; the hash of the weights holds still.
    metadata.pop(LEGACY_HASH_KEY, None)
    told = {"modelspec.license": subject.license, "modelspec.author": subject.author}
    metadata |= {key: value for key, value in told.items() if value}
    if subject.base:
        metadata["ss_sd_model_name"] = subject.base
    copy_with_tensors(subject.header, target, metadata, {}, raises=AdapterFileError)
    return notes


def _write_preview(subject: Subject, target: Path) -> None:
    """The first sample, or else the picture in the file; a style without any has no preview."""
    from PIL import Image

    if subject.pictures:
        with Image.open(subject.pictures[0].path) as picture:
            small = picture.convert("RGB")
    else:
        return
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    replace_file(target, partial(small.save, format="PNG", optimize=True))


def _listed(folder: Path, style: str) -> Iterator[tuple[str, int]]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: (name != style, "/" in name, name)):
        yield name, (folder / name).stat().st_size
