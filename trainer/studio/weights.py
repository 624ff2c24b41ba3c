"""Which weights a picture was made with, as a short text that is kept with it.

The text tells weights apart (two pictures of one style may be compared only when theirs are equal) and says how they
are called: ``final:...`` is a finished or imported file, ``step-000200:...`` a saved checkpoint, and ``live:120`` a run
in training as it was after step 120. What follows the first colon of a file is its time and size.
"""

from __future__ import annotations

from pathlib import Path

_FINAL, _LIVE, _STEP = "final", "live", "step-"


def of_file(path: Path) -> str:
    """The weights in an adapter file or a checkpoint's folder; empty when it is not there."""
    try:
        status = (path / "manifest.json" if path.is_dir() else path).stat()
    except OSError:
        return ""
    name = path.name if path.name.startswith(_STEP) else _FINAL
    return f"{name}:{status.st_mtime_ns:x}-{status.st_size:x}"


def live(step: int | None = None) -> str:
    """The weights of a run in training after a step; None while it is not known yet which."""
    return f"{_LIVE}:{'' if step is None else step}"


def is_live(weights: str) -> bool:
    """Whether they were a training's of one moment, which cannot be drawn with again."""
    return weights.partition(":")[0] == _LIVE


def step_of(weights: str) -> int | None:
    """The step they were learned up to; None for a finished file, or when it is not known."""
    name, _, rest = weights.partition(":")
    digits = rest if name == _LIVE else name.removeprefix(_STEP)
    return int(digits) if digits.isdecimal() else None
