"""What the worker does with the library's files by the tools of `trainer.workbench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.studio.worker.protocol import Compare, Rework
from trainer.styles.alpha import BEFORE_ASKED
from trainer.styles.file import StyleFile
from trainer.styles.read import read_style
from trainer.workbench.diff import diff
from trainer.workbench.merge import Ingredient, merge
from trainer.workbench.resize import resize
from trainer.workbench.split import split


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
    """What differs between two files, a `trainer.workbench.diff.Difference` in plain values.

    Raises:
        AdapterFileError: one of them cannot be read.
    """
    return diff(_read(request.first), _read(request.second)).to_dict()


def _read(path: str) -> StyleFile:
    return read_style(Path(path), alpha=BEFORE_ASKED)
