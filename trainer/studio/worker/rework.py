"""What the worker does with the library's files by the tools of `trainer.workbench`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.errors import BaseError, ConfigError
from trainer.studio.worker.protocol import Compare, Dissect, Rework
from trainer.styles.alpha import BEFORE_ASKED
from trainer.styles.file import StyleFile
from trainer.styles.read import read_style
from trainer.workbench.anatomy import ENERGY, anatomy
from trainer.workbench.base_files import Place, open_base_files
from trainer.workbench.diff import diff
from trainer.workbench.merge import Ingredient, merge
from trainer.workbench.resize import resize
from trainer.workbench.split import split
from trainer.workbench.subspaces import overlaps

MOST_DIRECTIONS = 16
"""Of each style, whose overlap is told."""
MOST_RANK = 128
"""Of files whose overlap is told: the directions of whole differences would take minutes."""


def reworked(request: Rework) -> tuple[str, ...]:
    """Make and write what is asked for; what there is to say of it.

    Raises:
        PatinaError: as of the tool.
    """
    files = [(_read(path), strength) for path, strength in request.sources]
    if request.keep:
        made, _ = split(files[0][0], request.keep, name=request.name)
    elif len(files) == 1:
        made = resize(files[0][0], rank=request.rank, name=request.name)
    else:
        made = merge([Ingredient(*each) for each in files], rank=request.rank, name=request.name)
    made.write(Path(request.target))
    return made.notes


def compared(request: Compare) -> dict[str, Any]:
    """What differs between two files, a `trainer.workbench.diff.Difference` in plain values, and which directions of
    what they write they share, by kind of layer; where a change depends on the base, nothing is said of those.

    Raises:
        AdapterFileError: one of them cannot be read.
    """
    first, second = _read(request.first), _read(request.second)
    shared = []
    widest = max(layer.rank for file in (first, second) for layer in file.layers.values())
    with contextlib.suppress(ConfigError):
        shared = [
            {
                "kind": one.kind,
                "layers": len(one.layers),
                "similarity": one.similarity[:MOST_DIRECTIONS, :MOST_DIRECTIONS].tolist(),
                "by_chance": float(one.by_chance[0, 0]),
            }
            for one in (overlaps(first, second) if widest <= MOST_RANK else ())
        ]
    return diff(first, second).to_dict() | {"shared_directions": shared}


def dissected(request: Dissect) -> dict[str, Any]:
    """What a style does to each layer, a `trainer.workbench.anatomy.Anatomy` in plain values.

    The base is read from its files, a weight at a time; one that is not on this machine is done without.

    Raises:
        AdapterFileError: the file cannot be read, or its change depends on the base.
    """
    weights: dict[str, Place] = {}
    if request.base:
        with contextlib.suppress(BaseError):
            weights = open_base_files(request.base, offline=True).layers()

    def weight_of(path: str) -> Tensor | None:
        place = weights.get(path)
        return None if place is None else place.read()

    found = anatomy(_read(request.path), weight_of)
    return found.to_dict() | {"energy": ENERGY}


def _read(path: str) -> StyleFile:
    return read_style(Path(path), alpha=BEFORE_ASKED)
