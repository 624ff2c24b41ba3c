"""What the Preview tab makes and shows, without the page: from form values to orders, from jobs to frames.

A *scene* is everything about a picture except its seed and its strengths; the pictures of a scene are told apart by
those, so all jobs of one scene together are its frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config import BaseConfig, sentence
from trainer.errors import ConfigError
from trainer.events import PreviewRow, PreviewSettings
from trainer.studio.views import JobView, PreviewOrder, StyleUse

FILM = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Strengths of the filmstrip."""
LOWEST, HIGHEST = -1.0, 2.0
MOST_STYLES = 8
MOST_PICTURES = 8
PICTURE, FRAME, STRIP, SHEET = "picture", "frame", "film", "sheet"
"""Notes on orders: asked for by a person; by moving a slider; the filmstrip; a labelled sheet."""

Strengths = tuple[float, ...]


@dataclass(frozen=True)
class Use:
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

    uses: tuple[Use, ...] = ()
    focus: int = 0

    @property
    def strengths(self) -> Strengths:
        return tuple(use.strength for use in self.uses)

    @property
    def live(self) -> bool:
        """Whether a row stands for weights that change while we look."""
        return any(use.live and not use.step for use in self.uses)

    def value(self) -> dict[str, Any]:
        """For the widget."""
        return {"rows": [asdict(use) for use in self.uses], "focus": self.focus}

    @classmethod
    def read(cls, value: object) -> Mix:
        """From the widget; whatever a browser may have sent becomes rows that make sense."""
        rows = value.get("rows") if isinstance(value, Mapping) else None
        uses = tuple(use for row in rows if (use := _read_use(row))) if isinstance(rows, list) else ()
        uses = uses[:MOST_STYLES]
        focus = value.get("focus") if isinstance(value, Mapping) else 0
        return cls(uses, focus if isinstance(focus, int) and 0 <= focus < len(uses) else 0)

    def with_use(self, use: Use) -> Mix:
        """Add a style, or bring the focus to it when it is there already.

        Raises:
            ConfigError: there are as many as one picture can blend.
        """
        for index, other in enumerate(self.uses):
            if other.style == use.style:
                return replace(self, focus=index)
        if len(self.uses) >= MOST_STYLES:
            raise ConfigError(f"A picture blends at most {MOST_STYLES} styles. Remove one first.")
        return Mix((*self.uses, use), len(self.uses))


def _read_use(row: object) -> Use | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("style"), str) or not row["style"]:
        return None
    strength, step, steps = row.get("strength"), row.get("step"), row.get("steps")
    return Use(
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
    base: BaseConfig = field(default_factory=BaseConfig.model_construct)
    settings: PreviewSettings = field(default_factory=PreviewSettings.model_construct)

    @property
    def seeds(self) -> list[int]:
        """One for each picture, counting up."""
        return [(self.seed + index) % 2**32 for index in range(self.count)]

    @property
    def key(self) -> str:
        """The same for all pictures of one scene."""
        return scene_key(self.order((), PICTURE), self.prompt, self.negative)

    def row(self, seed: int, strengths: Strengths) -> PreviewRow:
        """One picture of this form."""
        return PreviewRow(prompt=self.prompt, negative=self.negative, seed=seed, strengths=strengths)

    def order(self, rows: Iterable[PreviewRow], note: str) -> PreviewOrder:
        """Rows of this form as an order."""
        styles = tuple(StyleUse(style=use.style, step=use.step) for use in self.mix.uses)
        return PreviewOrder(base=self.base, styles=styles, rows=tuple(rows), settings=self.settings, note=note)


def read_form(
    prompt: str | None,
    mixer: object,
    negative: str | None,
    seed: float | None,
    steps: float | None,
    guidance: float | None,
    scheduler: str | None,
    width: float | None,
    height: float | None,
    count: float | None,
    *,
    base: BaseConfig,
) -> Form:
    """The page's values as a form; empty numbers mean what suits the base.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    wanted: dict[str, Any] = {"steps": 20 if steps is None else steps, "guidance": guidance}
    wanted |= {"scheduler": scheduler or "ddim", "width": width or 0, "height": height or 0}
    try:
        settings = PreviewSettings.model_validate(wanted)
        row = PreviewRow.model_validate({"prompt": prompt or "", "negative": negative or "", "seed": seed or 0})
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
    number = int(count or 1)
    if not 1 <= number <= MOST_PICTURES:
        raise ConfigError(f"The number of pictures is {number}, but should be 1 to {MOST_PICTURES}.")
    return Form(row.prompt.strip(), Mix.read(mixer), row.negative.strip(), row.seed, number, base, settings)


def picture_order(form: Form, note: str = PICTURE, *, film: bool = False) -> PreviewOrder:
    """The pictures asked for, then the base's with the same seeds to wipe against.

    The styled ones come first because a slow machine draws one after the other.

    Args:
        film: also the filmstrip's, so that all frames show the weights of one moment.
    """
    strengths = form.mix.strengths
    rows = [form.row(seed, strengths) for seed in form.seeds]
    if any(strengths):
        rows += [form.row(seed, (0.0,) * len(strengths)) for seed in form.seeds]
    if film:
        made = {row.strengths for row in rows}
        rows += [form.row(form.seed, s) for s in film_strengths(form.mix) if s not in made]
    return form.order(rows, note)


def film_order(form: Form, missing: Sequence[Strengths]) -> PreviewOrder:
    """The filmstrip's frames that are not there yet, for the first seed."""
    return form.order([form.row(form.seed, strengths) for strengths in missing], STRIP)


def film_strengths(mix: Mix) -> list[Strengths]:
    """All rows' strengths for each frame of the strip: the focus varies, the others stay."""
    if not mix.uses:
        return []
    now = mix.strengths
    return [(*now[: mix.focus], value, *now[mix.focus + 1 :]) for value in FILM]


def scene_key(order: PreviewOrder, prompt: str, negative: str) -> str:
    """What all pictures of one scene share, as a text to compare."""
    return json.dumps(
        [
            order.base.model_dump(mode="json"),
            [style.model_dump(mode="json") for style in order.styles],
            order.settings.model_dump(mode="json"),
            prompt,
            negative,
        ],
        sort_keys=True,
    )


def key_of_job(order: PreviewOrder) -> str:
    """The scene a job belongs to, by its first row."""
    row = order.rows[0]
    return scene_key(order, row.prompt, row.negative)


def form_of(order: PreviewOrder, uses: Sequence[Use]) -> Form:
    """The form that would order this again; ``uses`` are the order's styles with their names."""
    first = order.rows[0]
    strengths = first.strengths or (0.0,) * len(uses)
    rows = tuple(replace(use, strength=s) for use, s in zip(uses, strengths, strict=True))
    seeds = {row.seed for row in order.rows if row.strengths == first.strengths}
    return Form(
        first.prompt,
        Mix(rows),
        first.negative,
        first.seed,
        min(len(seeds), MOST_PICTURES),
        order.base,
        order.settings,
    )


def frames(form: Form, jobs: Iterable[JobView]) -> dict[tuple[int, Strengths], Path]:
    """Which pictures of the form's scene exist: (seed, strengths) to the file."""
    return {
        (picture.row.seed, tuple(round(value, 2) for value in picture.row.strengths)): picture.path
        for job in jobs
        for picture in job.pictures
        if (picture.row.prompt, picture.row.negative) == (form.prompt, form.negative)
    }


def missing_frames(form: Form, jobs: Iterable[JobView]) -> list[Strengths]:
    """Strengths of the filmstrip that no job has made or is making."""
    ordered = {
        (row.seed, tuple(round(value, 2) for value in row.strengths))
        for job in jobs
        if job.state in {"queued", "working", "done"}
        for row in job.order.rows
        if (row.prompt, row.negative) == (form.prompt, form.negative)
    }
    return [strengths for strengths in film_strengths(form.mix) if (form.seed, strengths) not in ordered]
