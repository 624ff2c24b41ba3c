"""Which styles and bases the Preview tab offers, looked up in the studio when they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from app.preview.form import Form, Mix, MixRow
from app.preview.frames import form_of
from app.texts import TEXTS
from trainer.adapters.targets import HALVES
from trainer.bases.describe import BaseInfo
from trainer.bases.families import FAMILIES, SDXL
from trainer.config import BaseConfig
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.errors import ConfigError, PatinaError, StudioError
from trainer.preview.order import PreviewOrder
from trainer.studio.store import State
from trainer.studio.views import RunView

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

_DRAWABLE = (State.TRAINING, State.PAUSED)
"""States of runs that have no file yet but weights to draw with."""


@dataclass(frozen=True)
class Found:
    """A style with the base it was trained on (None when its file does not say), and a prompt that shows it."""

    use: MixRow
    base: BaseConfig | None
    prompt: str


@dataclass(frozen=True)
class Suits:
    """What suits a base, as far as it can be told without opening it.

    Attributes:
        source: names the base.
        scheduler, steps: its family's.
        schedulers: those that it can draw with.
        subjects: what it says that it draws well.
        halves: blocks that are known to hold style and content apart.
        info: what tokens are counted with; None where the base cannot be told.
    """

    source: str = ""
    scheduler: Scheduler = "ddim"
    steps: int = 20
    schedulers: tuple[Scheduler, ...] = tuple(SCHEDULERS)
    subjects: tuple[str, ...] = ()
    halves: tuple[str, ...] = ()
    info: BaseInfo | None = None


def suits(studio: Studio, source: str) -> Suits:
    """What suits a base; of one that cannot be told, what suits any. May ask the network for a hub id."""
    found = studio.bases.check(source)
    if found.family is None:
        return Suits(source)
    family = FAMILIES[found.family]
    halves = tuple(HALVES) if family is SDXL else ()
    return Suits(source, family.scheduler, family.steps, found.schedulers, found.subjects, halves, found)


def schedulers(suits: Suits, also: Scheduler | None = None) -> list[tuple[str, str]]:
    """(title, key) of the schedulers that a base can draw with, and of one more that a form may hold already."""
    return [(row.title, key) for key, row in SCHEDULERS.items() if key in {*suits.schedulers, also}]


def choices(studio: Studio) -> list[tuple[str, str]]:
    """(label, id) of every style that can be drawn with: those in training first, then the library."""
    words = TEXTS.preview
    running = [
        (words.in_training.format(name=run.name, step=run.step), run.id)
        for run in studio.runs.all()
        if run.state in _DRAWABLE and run.step
    ]
    return [*running, *((card.name, card.id) for card in studio.library.cards())]


def names(studio: Studio) -> dict[str, str]:
    """Id to name, of all styles and runs."""
    return {run.id: run.name for run in studio.runs.all()} | {card.id: card.name for card in studio.library.cards()}


def find(studio: Studio, style: str, step: int = 0, strength: float | None = None) -> Found:
    """A finished, imported or running style as a row of the mixer.

    Args:
        strength: None is the one that it was judged best at, or else 1.

    Raises:
        StudioError: there is none of that id.
    """
    try:
        opened = studio.library.view(style)
    except PatinaError:
        run: RunView | None = (running := studio.runs.view(style))
        name, trigger = running.name, running.trigger
    else:
        run, name, trigger = opened.run, opened.card.name, opened.card.trigger
        if strength is None and not step:
            strength = opened.card.strength
    steps = tuple(point.step for point in run.checkpoints) if run else ()
    use = MixRow(
        style=style,
        name=name,
        strength=1.0 if strength is None else strength,
        step=step if step in steps else 0,
        trigger=trigger,
        steps=steps,
        live=run is not None and run.state in _DRAWABLE,
    )
    prompt = run.samples[0].prompt if run and run.samples else ""
    return Found(use, base_of(run) if run else None, prompt)


def again(studio: Studio, uses: Iterable[MixRow]) -> list[MixRow]:
    """Rows of the mixer as they are called now: names, checkpoints, and whether they are still in training."""
    found = []
    for use in uses:
        try:
            found.append(find(studio, use.style, use.step, use.strength).use)
        except PatinaError:
            found.append(MixRow(style=use.style, name=TEXTS.preview.gone, strength=use.strength, step=use.step))
    return found


def base_of(run: RunView) -> BaseConfig | None:
    """The base a run was trained on."""
    try:
        return BaseConfig.model_validate(run.settings.get("base") or {})
    except ValidationError:
        return None


def base_named(studio: Studio, source: str, mix: Mix) -> BaseConfig:
    """The base that is meant by a source: with all its settings when a style in the mix was trained on it.

    Raises:
        ConfigError: no such text can be a source.
    """
    source = source.strip() or "bundled"
    for use in mix.rows:
        try:
            base = find(studio, use.style).base
        except StudioError:
            continue
        if base is not None and base.source == source:
            return base
    try:
        return BaseConfig.model_validate({"source": source})
    except ValidationError:
        raise ConfigError(TEXTS.preview.bad_base) from None


def base_title(source: str) -> str:
    """A base for people."""
    return TEXTS.preview.bundled if source == "bundled" else source.rstrip("/").rsplit("/", 1)[-1]


def bases(studio: Studio) -> list[tuple[str, str]]:
    """(label, source) of the bases that styles here were trained on; others can be typed."""
    sources = {"bundled": TEXTS.preview.bundled}
    for card in studio.library.cards():
        try:
            base = find(studio, card.id).base
        except PatinaError:
            continue
        if base is not None:
            sources.setdefault(base.source, base.source)
    for model in studio.shelves.models():
        sources.setdefault(str(model), model.name)
    return [(label, source) for source, label in sources.items()]


def form_again(studio: Studio, order: PreviewOrder) -> Form:
    """The form of an order that was made before; styles that were deleted since keep their place and say so."""
    return form_of(order, again(studio, [MixRow(style=use.style, name="", step=use.step) for use in order.styles]))
