"""How often an image comes beside the others: as settings say, or the name of its folder, as kohya's tools read it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from trainer.config.sections import MOST_REPEATS
from trainer.data.dataset import Example

_IN_NAME = re.compile(r"(\d+)_.+")


def folder_repeats(folder: str) -> int | None:
    """The number in a folder's name such as ``10_cats``, at most `MOST_REPEATS`; None where it has none."""
    found = _IN_NAME.fullmatch(folder)
    return min(max(1, int(found[1])), MOST_REPEATS) if found else None


def repeats_of(name: str, wanted: Mapping[str, int]) -> int:
    """How often one image is asked for.

    Args:
        name: in its folder, with ``/`` behind the subfolder that it lies in.
        wanted: by name of an image, with or without its ending and folder, or of a folder.
    """
    path = PurePosixPath(name)
    folder = path.parent.name
    asked = next((wanted[key] for key in (name, path.name, path.stem, folder) if key and key in wanted), None)
    return asked or folder_repeats(folder) or 1


def with_repeats(examples: Sequence[Example], wanted: Mapping[str, int]) -> list[Example]:
    """The images with how often each comes in an epoch, in the least whole numbers: steps set how long it trains."""
    counts = [repeats_of(example.name, wanted) for example in examples]
    shared = math.gcd(*counts)
    return [replace(example, repeats=count // shared) for example, count in zip(examples, counts, strict=True)]
