"""Sheets: one labelled picture that compares, with a row for each value of one thing and a column for each of another.

Seven things besides the prompt can vary. Each value of an axis changes a `Cell`; the cells of all rows and columns
become one order, so that a sheet is drawn in as few batches as its settings allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from app.preview.form import HIGHEST, LOWEST, Form
from app.preview.frames import SHEET
from app.texts import ENGLISH, TEXTS, texts
from app.texts.preview import PreviewTexts
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.errors import ConfigError
from trainer.preview.fonts import can_write
from trainer.preview.order import PreviewOrder, PreviewRow, PreviewSettings, StyleUse

MOST = 64
"""Pictures on a sheet."""
Kind = Literal["prompts", "strengths", "checkpoints", "styles", "seeds", "steps", "guidance", "schedulers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WRITTEN = frozenset({"prompts", "strengths", "seeds", "steps", "guidance", "schedulers"})
"""Kinds whose values are written down; of the others all there are is taken."""


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet: ``uses`` are (style, step, strength)."""

    prompt: str
    seed: int
    uses: tuple[tuple[str, int, float], ...]
    settings: PreviewSettings


@dataclass(frozen=True)
class Value:
    """A value of an axis: its label, and what it makes of a cell."""

    label: str
    change: Callable[[Cell], Cell]


@dataclass(frozen=True)
class Axis:
    """What varies along rows or columns; ``written`` holds the values, where the kind needs any."""

    kind: Kind
    written: str = ""


def sheet_order(form: Form, rows: Axis, columns: Axis, title: str = "") -> PreviewOrder:
    """One order for the whole sheet.

    Args:
        form: the left side; its focus is the style whose strength or checkpoints vary.
        rows, columns: two different kinds.
        title: a line above the pictures.

    Raises:
        ConfigError: a value that cannot be used, nothing to compare, or too many pictures.
    """
    words = TEXTS.preview
    if rows.kind == columns.kind:
        raise ConfigError(words.sheet_same_axes.format(kind=words.axes[rows.kind]))
    if {rows.kind, columns.kind} == {"styles", "checkpoints"}:
        raise ConfigError(words.sheet_two_choices)
    down, across = values_of(form, rows), values_of(form, columns)
    if (count := len(down) * len(across)) > MOST:
        raise ConfigError(words.sheet_too_large.format(rows=len(down), columns=len(across), count=count, most=MOST))
    now = tuple((use.style, use.step, use.strength) for use in form.mix.rows)
    plain = Cell(form.prompt, form.seed, now, form.settings)
    # A choice of styles or checkpoints replaces the mix, so it comes before what changes a strength in it.
    choosing = rows.kind in ("styles", "checkpoints")
    cells = [
        column.change(row.change(plain)) if choosing else row.change(column.change(plain))
        for row in down
        for column in across
    ]
    uses = list(dict.fromkeys((style, step) for cell in cells for style, step, _ in cell.uses))
    return PreviewOrder(
        base=form.base,
        styles=tuple(StyleUse(style=style, step=step, blocks=form.blocks) for style, step in uses),
        rows=tuple(_row(form, cell, uses) for cell in cells),
        settings=form.settings,
        columns=len(across),
        row_labels=tuple(value.label for value in down),
        column_labels=tuple(value.label for value in across),
        title=title,
        note=SHEET,
    )


def _row(form: Form, cell: Cell, uses: Sequence[tuple[str, int]]) -> PreviewRow:
    strengths = {(style, step): strength for style, step, strength in cell.uses}
    return PreviewRow(
        prompt=cell.prompt,
        negative=form.negative,
        seed=cell.seed,
        strengths=tuple(strengths.get(use, 0.0) for use in uses),
        settings=None if cell.settings == form.settings else cell.settings,
    )


def values_of(form: Form, axis: Axis) -> list[Value]:
    """The values of an axis, in the order written and each once.

    Raises:
        ConfigError: there are none, or one cannot be used.
    """
    words, drawn = TEXTS.preview, drawn_texts()
    if axis.kind == "prompts":
        lines = [line.strip() for line in axis.written.splitlines() if line.strip()] or [form.prompt]
        return [Value(line, _prompt(line)) for line in dict.fromkeys(lines)]
    if axis.kind == "strengths":
        if not form.mix.rows:
            raise ConfigError(words.sheet_needs_style)
        style = form.mix.rows[form.mix.focus].style
        numbers = _numbers(axis, LOWEST, HIGHEST)
        return [Value(f"{number:g}", _strength(style, round(number, 2))) for number in numbers]
    if axis.kind == "seeds":
        seeds = [int(number) for number in _numbers(axis, 0, 2**32 - 1, whole=True)]
        return [Value(drawn.seed_number.format(seed=seed), _seed(seed)) for seed in seeds]
    if axis.kind == "steps":
        counts = [int(number) for number in _numbers(axis, 1, 200, whole=True)]
        return [Value(drawn.steps_number.format(steps=count), _settings(steps=count)) for count in counts]
    if axis.kind == "guidance":
        numbers = _numbers(axis, 0, 30)
        return [Value(drawn.guidance_number.format(guidance=f"{n:g}"), _settings(guidance=n)) for n in numbers]
    if axis.kind == "schedulers":
        return [Value(SCHEDULERS[name].title, _settings(scheduler=name)) for name in _schedulers(axis.written)]
    return _of_mix(form, axis.kind)


def _of_mix(form: Form, kind: Kind) -> list[Value]:
    """The base, then each checkpoint of the focus, or each style of the mix, alone."""
    words, drawn = TEXTS.preview, drawn_texts()
    if not form.mix.rows:
        raise ConfigError(words.sheet_needs_style)
    found = [Value(drawn.column_base, _alone(None))]
    if kind == "styles":
        if len(form.mix.rows) < 2:
            raise ConfigError(words.sheet_needs_two)
        return [*found, *(Value(u.name, _alone((u.style, u.step, u.strength or 1.0))) for u in form.mix.rows)]
    focus = form.mix.rows[form.mix.focus]
    if not focus.steps:
        raise ConfigError(words.sheet_needs_checkpoints.format(name=focus.name))
    for step in sorted(focus.steps):
        label = drawn.column_step.format(step=step)
        found.append(Value(label, _alone((focus.style, step, focus.strength or 1.0))))
    last = drawn.column_live if focus.live else drawn.column_final
    return [*found, Value(last, _alone((focus.style, 0, focus.strength or 1.0)))]


def _parts(written: str) -> list[str]:
    """What stands between commas or semicolons, those of a Chinese keyboard too."""
    return [part.strip() for part in re.split("[,;\uff0c\uff1b\u3001]", written) if part.strip()]


def _numbers(axis: Axis, lowest: float, highest: float, *, whole: bool = False) -> list[float]:
    words = TEXTS.preview
    found: list[float] = []
    parts = _parts(axis.written)
    for part in parts or [axis.written.strip()]:
        try:
            value = float(part)
        except ValueError:
            value = float("nan")
        if not lowest <= value <= highest or (whole and not value.is_integer()):
            raise ConfigError(
                words.sheet_bad_value.format(
                    value=part, kind=words.axes[axis.kind], lowest=f"{lowest:.10g}", highest=f"{highest:.10g}"
                )
            )
        if value not in found:
            found.append(value)
    return found


def _schedulers(written: str) -> list[Scheduler]:
    words = TEXTS.preview
    known = {row.title.casefold(): name for name, row in SCHEDULERS.items()}
    parts = _parts(written)
    found = []
    for part in parts or [written.strip()]:
        if part.casefold() not in known:
            titles = ", ".join(row.title for row in SCHEDULERS.values())
            raise ConfigError(words.sheet_bad_scheduler.format(value=part, known=titles))
        found.append(known[part.casefold()])
    return list(dict.fromkeys(found))


def _prompt(text: str) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, prompt=text)


def _seed(seed: int) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, seed=seed)


def _settings(**changes: object) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, settings=cell.settings.model_copy(update=changes))


def _strength(style: str, strength: float) -> Callable[[Cell], Cell]:
    def change(cell: Cell) -> Cell:
        # Beside other styles on the other axis, the strength is that of whichever stands alone in the cell.
        alone = len(cell.uses) == 1
        uses = tuple((s, step, strength if alone or s == style else old) for s, step, old in cell.uses)
        return replace(cell, uses=uses)

    return change


def _alone(use: tuple[str, int, float] | None) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, uses=() if use is None else (use,))


def drawn_texts() -> PreviewTexts:
    """Texts for what is drawn into a picture: the visitor's; English where no font here has their letters."""
    words = TEXTS.preview
    return words if can_write(words.column_base + words.column_final) else texts(ENGLISH).preview


def title_of(form: Form, base: str) -> str:
    """What stands above a sheet: the styles with their triggers, the base and the seed."""
    words = drawn_texts()
    named = [use.name if not use.trigger else f"{use.name} ({use.trigger})" for use in form.mix.rows]
    return " \u00b7 ".join([*(named or [words.only_base]), base, words.seed_number.format(seed=form.seed)])
