"""What pictures are to show: the styles, one row a picture, and what all rows share.

*Which weights* a picture shows is a short text that is kept with it. It tells weights apart (two pictures of one style
may be compared only when theirs are equal) and says how they are called: ``final:...`` is a finished or imported file,
``step-000200:...`` a saved checkpoint, and ``live:120`` a run in training as it was after step 120. What follows the
first colon of a file is its time and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from trainer.config import BaseConfig, Scheduler
from trainer.events import Message

_FINAL, _LIVE, _STEP = "final", "live", "step-"


class PreviewSettings(Message):
    """What the pictures of one request share; a side of 0 is the base's own, a guidance of None what suits the base.

    Attributes:
        image: a picture to begin with instead of noise alone: path of a PNG, or in an order its name in the studio
            folder. Where no side is given, the pictures take its shape.
        change: how much of it may change, as a share of the denoising steps; 1 keeps nothing of it.
    """

    steps: int = Field(20, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=30, allow_inf_nan=False)
    scheduler: Scheduler = "ddim"
    width: int = Field(0, ge=0, le=4096)
    height: int = Field(0, ge=0, le=4096)
    image: str = ""
    change: float = Field(0.6, gt=0, le=1, allow_inf_nan=False)

    def deciding(self) -> dict[str, Any]:
        """What decides the pixels, for keys; pictures that were made before there were images keep theirs."""
        return self.model_dump(exclude=None if self.image else {"image", "change"})


class PreviewRow(Message):
    """One picture: ``strengths[i]`` belongs to the i-th adapter of the request; ``settings`` if it has its own."""

    prompt: str
    negative: str = ""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    strengths: tuple[float, ...] = ()
    settings: PreviewSettings | None = None


class StyleUse(Message):
    """A style in a preview.

    Attributes:
        style: id of a finished run or an imported style, or of a run in training.
        step: a checkpoint's step; 0 is the finished file, or for a run in training its weights of this moment.
        weights: which weights that was when the pictures were made (`weights_in`); the studio fills it in.
        blocks: how much it counts in parts of the UNet (`trainer.adapters.blocks`), on top of its strength.
    """

    style: str
    step: int = 0
    weights: str = ""
    blocks: str = Field("", max_length=200)


class PlacedStyle(StyleUse):
    """A style in a preview that was looked up: where its weights lie at this moment.

    Attributes:
        name: what people call it.
        path: an adapter file, or a checkpoint's folder; empty for the weights in training.
    """

    name: str
    path: str = ""


class PreviewOrder(Message):
    """Pictures to make: ``rows[i].strengths[j]`` belongs to ``styles[j]``; all strengths 0 is the base itself.

    Attributes:
        base: left out, it is that of the first style that was trained here, or else the bundled one.
        columns: pictures per line when this is a sheet (rows in reading order); 0 is no sheet.
        row_labels, column_labels, title: of the sheet.
        note: a word of the asker about what this is for, given back in the job ("wipe", "film", ...).
    """

    base: BaseConfig = Field(default_factory=BaseConfig.model_construct)
    styles: tuple[StyleUse, ...] = ()
    rows: tuple[PreviewRow, ...]
    settings: PreviewSettings = Field(default_factory=PreviewSettings.model_construct)
    columns: int = 0
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    title: str = ""
    note: str = ""

    @property
    def weights(self) -> tuple[str, ...]:
        """What each style was drawn with."""
        return tuple(use.weights for use in self.styles)

    def drawn_with(self, weights: Sequence[str]) -> PreviewOrder:
        """The order with the weights of each style filled in."""
        uses = zip(self.styles, weights, strict=True)
        return self.model_copy(update={"styles": tuple(use.model_copy(update={"weights": w}) for use, w in uses)})


def weights_in(path: Path) -> str:
    """The weights in an adapter file or a checkpoint's folder; empty when it is not there."""
    try:
        status = (path / "manifest.json" if path.is_dir() else path).stat()
    except OSError:
        return ""
    name = path.name if path.name.startswith(_STEP) else _FINAL
    return f"{name}:{status.st_mtime_ns:x}-{status.st_size:x}"


def live_weights(step: int | None = None) -> str:
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
