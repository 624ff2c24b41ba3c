"""Which files of a folder are meant as its images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from trainer.data.repeats import folder_repeats
from trainer.data.suffixes import IMAGE_SUFFIXES
from trainer.errors import DatasetError
from trainer.findings import Finding


def list_images(folder: Path) -> tuple[list[Path], list[Finding]]:
    """The images of a folder and of the folders in it, in natural order, and what was passed over.

    Hidden files, links, the folders of trainings and those that macOS adds to archives are left out. What a number in a
    folder's name means (`10_name`) is said in `trainer.data.repeats`.

    Raises:
        DatasetError: there is no such folder, it is a file, or it may not be read.
    """
    findings: list[Finding] = []
    files: list[Path] = []
    for entry in _entries(folder):
        if entry.is_symlink():
            if _is_image(entry) or entry.is_dir():
                findings.append(_passed_over(entry.name, "is a link", "the file itself is needed"))
        elif entry.is_dir() and (entry / "config.toml").is_file():
            findings.append(_passed_over(entry.name, "is the folder of a training", "its pictures are results"))
        elif entry.is_dir():
            inner = _images_of_subfolder(entry, folder, findings)
            if inner and (asked := folder_repeats(entry.name) or 1) > 1:
                findings.append(
                    Finding(
                        entry.name,
                        "repeats",
                        "note",
                        f"the folder's name asks for {asked} repeats of each image",
                        "they come that often beside images asked for once; how long it trains is set by the steps",
                    )
                )
            files += inner
        elif _is_image(entry):
            files.append(entry)
    return sorted(files, key=lambda f: natural_key(f.relative_to(folder).as_posix())), findings


MASK_ENDING = "-mask"


def masked_by(file: Path) -> str:
    """The name, without ending, of the image that a file is a mask of by its own name; empty where it is none."""
    is_mask = file.suffix.lower() == ".png" and file.stem.endswith(MASK_ENDING)
    return file.stem.removesuffix(MASK_ENDING) if is_mask else ""


def without_masks(files: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Files that are images, and by image the file beside it that is its mask: ``cat-mask.png`` of ``cat.jpg``."""
    images = {file.with_suffix(""): file for file in files}
    masks: dict[Path, Path] = {}
    for file in files:
        stem = masked_by(file)
        image = images.get(file.with_name(stem)) if stem else None
        if image is not None:
            masks[image] = file
    taken = set(masks.values())
    return [file for file in files if file not in taken], masks


def common_folder(files: Sequence[Path]) -> Path:
    """The folder that holds all of some files, however deep.

    Raises:
        DatasetError: no files, or they lie on different drives.
    """
    if not files:
        raise DatasetError("No images were given: add at least one.")
    try:
        return Path(os.path.commonpath([file.absolute().parent for file in files]))
    except ValueError:
        raise DatasetError("The images lie on different drives: put them in one folder.") from None


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts "img 2" before "img 10", and letters without regard to case."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts], name


def _images_of_subfolder(folder: Path, root: Path, findings: list[Finding]) -> list[Path]:
    files: list[Path] = []
    for entry in _entries(folder):
        name = entry.relative_to(root).as_posix()
        if entry.is_symlink():
            if _is_image(entry):
                findings.append(_passed_over(name, "is a link", "the file itself is needed"))
        elif entry.is_dir():
            findings.append(_passed_over(name, "is a folder two levels deep", "move its images up to use them"))
        elif _is_image(entry):
            files.append(entry)
    return files


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in natural order, without what systems hide there.

    Raises:
        DatasetError: the folder cannot be listed.
    """
    try:
        entries = [e for e in folder.iterdir() if e.name[0] != "." and e.name != "__MACOSX"]
    except FileNotFoundError:
        raise DatasetError(f"There is no folder {folder}: check the path.") from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is a file: give the folder that holds the images.") from None
    except OSError as error:
        raise DatasetError(f"The folder {folder} cannot be read ({error.strerror or error}).") from error
    return sorted(entries, key=lambda e: natural_key(e.name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _passed_over(name: str, message: str, action: str) -> Finding:
    return Finding(name, "not_read", "note", message, f"left out: {action}")
