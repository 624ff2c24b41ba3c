"""Sheets: a row for each prompt, a column for each strength, checkpoint or style; made as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from app.files import picture_url
from app.html import text
from app.preview.form import HIGHEST, LOWEST, SHEET, Form
from app.texts import TEXTS
from trainer.errors import ConfigError
from trainer.events import PreviewRow
from trainer.studio.views import JobView, PreviewOrder, StyleUse

WORDS = TEXTS.preview
MOST = 64
"""Pictures on a sheet."""
Kind = Literal["strengths", "checkpoints", "styles"]
"""What the columns vary."""


def read_strengths(line: str) -> list[float]:
    """``"0, 0.5, 1"`` as numbers, in the order given and each once.

    Raises:
        ConfigError: a part is no strength.
    """
    found: list[float] = []
    for part in line.replace(";", ",").split(","):
        if not part.strip():
            continue
        try:
            value = float(part)
        except ValueError:
            value = float("nan")
        if not LOWEST <= value <= HIGHEST:
            raise ConfigError(WORDS.sheet_bad_strength.format(value=part.strip()))
        if round(value, 2) not in found:
            found.append(round(value, 2))
    if not found:
        raise ConfigError(WORDS.sheet_bad_strength.format(value=line.strip()))
    return found


def sheet_order(form: Form, prompts: str, kind: Kind, strengths: str) -> PreviewOrder:
    """One order for the whole sheet; the first column is the base unless strengths say otherwise.

    Args:
        form: the left side; its focus is the style whose strength or checkpoints vary.
        prompts: one a line; empty takes the form's.
        strengths: for ``kind`` ``strengths``.

    Raises:
        ConfigError: nothing to compare, or too many pictures.
    """
    lines = [line.strip() for line in prompts.splitlines() if line.strip()] or [form.prompt]
    styles, columns, labels = _columns(form, kind, strengths)
    if len(lines) * len(columns) > MOST:
        raise ConfigError(
            WORDS.sheet_too_large.format(
                rows=len(lines), columns=len(columns), count=len(lines) * len(columns), most=MOST
            )
        )
    rows = tuple(
        PreviewRow(prompt=line, negative=form.negative, seed=form.seed, strengths=column)
        for line in lines
        for column in columns
    )
    return PreviewOrder(
        base=form.base,
        styles=styles,
        rows=rows,
        settings=form.settings,
        columns=len(columns),
        row_labels=tuple(lines),
        column_labels=tuple(labels),
        note=SHEET,
    )


def _columns(form: Form, kind: Kind, strengths: str) -> tuple[tuple[StyleUse, ...], list[tuple[float, ...]], list[str]]:
    """(styles, strengths of each column, label of each column)."""
    mix = form.mix
    if not mix.uses:
        raise ConfigError(WORDS.sheet_needs_style)
    focus = mix.uses[mix.focus]
    if kind == "strengths":
        values = read_strengths(strengths)
        now = mix.strengths
        columns = [(*now[: mix.focus], value, *now[mix.focus + 1 :]) for value in values]
        styles = tuple(StyleUse(style=use.style, step=use.step) for use in mix.uses)
        return styles, columns, [WORDS.column_strength.format(strength=f"{value:g}") for value in values]
    if kind == "checkpoints":
        if not focus.steps:
            raise ConfigError(WORDS.sheet_needs_checkpoints.format(name=focus.name))
        # A checkpoint of the last step is the finished file over again only for a run that has one; both are shown.
        styles = tuple(StyleUse(style=focus.style, step=step) for step in (*sorted(focus.steps), 0))
        labels = [WORDS.column_step.format(step=step) for step in sorted(focus.steps)]
        labels.append(WORDS.column_live if focus.live else WORDS.column_final)
        return styles, *_one_by_one([focus.strength or 1.0] * len(styles), labels)
    if len(mix.uses) < 2:
        raise ConfigError(WORDS.sheet_needs_two)
    styles = tuple(StyleUse(style=use.style, step=use.step) for use in mix.uses)
    return styles, *_one_by_one([use.strength or 1.0 for use in mix.uses], [use.name for use in mix.uses])


def _one_by_one(strengths: Sequence[float], labels: Sequence[str]) -> tuple[list[tuple[float, ...]], list[str]]:
    """The base, then each style alone."""
    count = len(strengths)
    columns = [tuple(strengths[i] if i == j else 0.0 for i in range(count)) for j in range(-1, count)]
    return columns, [WORDS.column_base, *labels]


def sheet_html(job: JobView | None, sheet: Path | None) -> str:
    """The sheet, or how far it is, as HTML; names and prompts in it are escaped."""
    if job is None:
        return f'<p class="sheet-nothing">{text(WORDS.sheet_nothing)}</p>'
    columns = max(1, job.order.columns)
    rows = len(job.order.rows) // columns
    if sheet is not None:
        url = text(picture_url(sheet))
        name = text(f"sheet-{rows}x{columns}.png")
        alt = text(WORDS.sheet_alt.format(rows=rows, columns=columns))
        return (
            f'<figure class="sheet"><a href="{url}" target="_blank" rel="noopener"><img src="{url}" alt="{alt}"></a>'
            f'<figcaption><a href="{url}" download="{name}">{text(WORDS.sheet_save)}</a></figcaption></figure>'
        )
    status = {
        "queued": job.message or WORDS.waiting,
        "working": WORDS.drawing,
        "failed": job.message,
        "cancelled": job.message or WORDS.stopped,
    }.get(job.state, "")
    bar = ""
    if job.state in ("queued", "working"):
        value = f' value="{job.done}" max="{job.total}"' if job.total else ""
        bar = f'<progress class="viewer-progress"{value} aria-label="{text(WORDS.viewer.progress)}"></progress>'
    return f'<div class="sheet-status">{bar}<p role="status" aria-live="polite">{text(status)}</p></div>'
