"""What a visitor asks for in the Preview tab: the styles in the mixer and the form's values, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from app.texts import TEXTS
from trainer.adapters.blocks import blocks_text, read_blocks
from trainer.adapters.targets import HALVES
from trainer.config import BaseConfig, sentence
from trainer.errors import ConfigError
from trainer.preview.order import PreviewOrder, PreviewRow, PreviewSettings, StyleUse

LOWEST, HIGHEST = -1.0, 2.0
MOST_STYLES = 8
BLOCK_SLIDERS = ("down", "mid", "up", "style", "content")
"""Parts of the UNet that the form has a slider for, of `trainer.adapters.blocks`; the last two are SDXL's alone."""
MOST_PICTURES = 8

Strengths = tuple[float, ...]


@dataclass(frozen=True)
class MixRow:
    """A style in the mixer.

    Attributes:
        style: id of a finished, imported or running style.
        step: a checkpoint's step; 0 is the finished file, or the weights of this moment when it is ``live``.
        steps: checkpoints to choose from.
        live: whether it is in training.
    """

    style: str
    name: str
    strength: float = 1.0
    step: int = 0
    trigger: str = ""
    steps: tuple[int, ...] = ()
    live: bool = False


@dataclass(frozen=True)
class Mix:
    """The mixer's rows; ``focus`` is the row whose strength the filmstrip varies."""

    rows: tuple[MixRow, ...] = ()
    focus: int = 0

    @property
    def strengths(self) -> Strengths:
        return tuple(use.strength for use in self.rows)

    @property
    def live(self) -> bool:
        """Whether a row stands for weights that change while we look."""
        return any(use.live and not use.step for use in self.rows)

    @property
    def styles(self) -> tuple[StyleUse, ...]:
        """For an order."""
        return tuple(StyleUse(style=use.style, step=use.step) for use in self.rows)

    def value(self) -> dict[str, Any]:
        """For the page."""
        return {"rows": [asdict(use) for use in self.rows], "focus": self.focus}

    @classmethod
    def read(cls, value: object) -> Mix:
        """From the page; whatever a browser may have sent becomes rows that make sense."""
        rows = value.get("rows") if isinstance(value, Mapping) else None
        uses = tuple(use for row in rows if (use := _read_use(row))) if isinstance(rows, list) else ()
        uses = uses[:MOST_STYLES]
        focus = value.get("focus") if isinstance(value, Mapping) else 0
        return cls(uses, focus if isinstance(focus, int) and 0 <= focus < len(uses) else 0)

    def with_use(self, use: MixRow) -> Mix:
        """Add a style, or bring the focus to it when it is there already.

        Raises:
            ConfigError: there are as many as one picture can blend.
        """
        for index, other in enumerate(self.rows):
            if other.style == use.style:
                return replace(self, focus=index)
        if len(self.rows) >= MOST_STYLES:
            raise ConfigError(TEXTS.preview.too_many_styles.format(most=MOST_STYLES))
        return Mix((*self.rows, use), len(self.rows))


def _read_use(row: object) -> MixRow | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("style"), str) or not row["style"]:
        return None
    strength, step, steps = row.get("strength"), row.get("step"), row.get("steps")
    return MixRow(
        style=row["style"],
        name=str(row.get("name") or row["style"]),
        strength=_bounded(strength) if isinstance(strength, int | float) else 1.0,
        step=step if isinstance(step, int) and step >= 0 else 0,
        trigger=str(row.get("trigger") or ""),
        steps=tuple(s for s in steps if isinstance(s, int)) if isinstance(steps, list) else (),
        live=row.get("live") is True,
    )


def _bounded(strength: float) -> float:
    # NaN compares false with everything and becomes the lowest bound.
    return round(max(LOWEST, min(HIGHEST, strength)) if strength == strength else 0.0, 2)


@dataclass(frozen=True)
class Form:
    """Everything the left side says, checked."""

    prompt: str
    mix: Mix = field(default_factory=Mix)
    negative: str = ""
    seed: int = 0
    count: int = 1
    blocks: str = ""
    base: BaseConfig = field(default_factory=BaseConfig.model_construct)
    settings: PreviewSettings = field(default_factory=PreviewSettings.model_construct)

    @property
    def seeds(self) -> list[int]:
        """One for each picture, counting up."""
        return [(self.seed + index) % 2**32 for index in range(self.count)]

    def row(self, seed: int, strengths: Strengths) -> PreviewRow:
        """One picture of this form."""
        return PreviewRow(prompt=self.prompt, negative=self.negative, seed=seed, strengths=strengths)

    def order(self, rows: Iterable[PreviewRow], note: str) -> PreviewOrder:
        """Rows of this form as an order."""
        styles = tuple(use.model_copy(update={"blocks": self.blocks}) for use in self.mix.styles)
        return PreviewOrder(base=self.base, styles=styles, rows=tuple(rows), settings=self.settings, note=note)

    def values(self) -> dict[str, Any]:
        """The other way: what `read_form` reads."""
        settings, blocks = self.settings, read_blocks(self.blocks)
        above = blocks.get("up", 1.0)
        return {
            "prompt": self.prompt,
            "mixer": self.mix.value(),
            "negative": self.negative,
            "seed": self.seed,
            "steps": settings.steps,
            "guidance": "" if settings.guidance is None else f"{settings.guidance:g}",
            "scheduler": settings.scheduler,
            "width": str(settings.width or ""),
            "height": str(settings.height or ""),
            "count": self.count,
            **{f"block_{name}": blocks.get(name, above if name in HALVES else 1.0) for name in BLOCK_SLIDERS},
            "base": self.base.source,
            "change": settings.change,
        }


def read_form(values: Mapping[str, Any], base: BaseConfig) -> Form:
    """The page's values as a form; empty numbers mean what suits the base.

    Args:
        values: as `Form.values` gives them; without SDXL's sliders where another base draws. ``guidance``, ``width``
            and ``height`` are texts, because a field for numbers cannot be told to stay empty. ``image`` is what
            `Pictures.begin_with` calls a picture, or empty.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    steps = values.get("steps")
    wanted: dict[str, Any] = {
        "steps": 20 if steps is None else steps,
        "guidance": _number(values.get("guidance")),
        "scheduler": values.get("scheduler") or "ddim",
        "width": _number(values.get("width")) or 0,
        "height": _number(values.get("height")) or 0,
    }
    if values.get("image"):
        wanted |= {"image": values["image"], "change": values.get("change") or 0.6}
    said = {"prompt": values.get("prompt") or "", "negative": values.get("negative") or ""}
    try:
        settings = PreviewSettings.model_validate(wanted)
        row = PreviewRow.model_validate({**said, "seed": values.get("seed") or 0})
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
    number = int(values.get("count") or 1)
    if not 1 <= number <= MOST_PICTURES:
        raise ConfigError(TEXTS.preview.bad_count.format(count=number, most=MOST_PICTURES))
    mix = Mix.read(values.get("mixer"))
    factors = {name: values.get(f"block_{name}") for name in BLOCK_SLIDERS}
    blocks = blocks_text({name: _bounded(f) for name, f in factors.items() if isinstance(f, int | float)})
    read_blocks(blocks)
    return Form(row.prompt.strip(), mix, row.negative.strip(), row.seed, number, blocks, base, settings)


def _number(text: object) -> object:
    """A number that may be left out; what is none stays as it is, to be named in the complaint."""
    written = str(text).strip().replace(",", ".") if text is not None else ""
    if not written:
        return None
    try:
        value = float(written)
    except ValueError:
        return written
    return int(value) if value.is_integer() else value
