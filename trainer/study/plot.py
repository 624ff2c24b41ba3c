"""A study as a picture: each arm a line, each seed a dot, the mean with its 95% interval, zero the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from trainer.preview.fonts import Font, font_for
from trainer.preview.sheet import INK, PAPER
from trainer.study.result import Row

FAINT, GRID, OWN = "#8FB8AE", "#DDD8CE", "#25665B"
_SMOOTH = 3
"""Drawn so many times larger and then shrunk, because Pillow draws without smoothing edges."""
_SIZE, _LINE, _EDGE, _PLOT = 15, 26, 16, 460
"""Pixels: of letters, of a row, of the margin, and of the plot's width."""


def plot(table: Sequence[Row], *, title: str, note: str = "") -> Image.Image:
    """The share of the base's loss that each arm took away, in percent; more to the right is better.

    Args:
        table: at least one row with a loss.
        title, note: a line above and one below.
    """
    shown = [row for row in table if row.gain is not None]
    unit = _SMOOTH
    font = font_for("".join([title, note, *(row.arm for row in shown)]), _SIZE * unit)
    labels = [(row.arm, f"r {row.rank}", _short(row.values)) for row in shown]
    ends, left = [], _EDGE * unit
    for column in zip(*labels, strict=True):
        left += max(_width(font, text) for text in column) + 14 * unit
        ends.append(left - 14 * unit)
    width = max(left + (_PLOT + _EDGE) * unit, *(2 * _EDGE * unit + _width(font, text) for text in (title, note)))
    top = (_EDGE + 2 * _LINE) * unit
    bottom = top + len(shown) * _LINE * unit
    picture = Image.new("RGB", (width, bottom + (3 * _LINE + _EDGE) * unit), PAPER)
    draw = ImageDraw.Draw(picture)
    ticks = _ticks(shown)

    def across(percent: float) -> float:
        return left + (percent - ticks[0]) / (ticks[-1] - ticks[0]) * _PLOT * unit

    draw.text((_EDGE * unit, _EDGE * unit), title, INK, font=font)
    for tick in ticks:
        x = across(tick)
        draw.line([(x, top - 6 * unit), (x, bottom)], INK if tick == 0 else GRID, unit)
        draw.text((x, bottom + 6 * unit), f"{tick:g}%", INK, font=font, anchor="ma")
    for index, (row, texts) in enumerate(zip(shown, labels, strict=True)):
        y = top + (index + 0.5) * _LINE * unit
        for end, text in zip(ends, texts, strict=True):
            draw.text((end, y), text, INK, font=font, anchor="rm")
        _draw_row(draw, row, y, across)
    below = "of the base's loss on held-out images taken away"
    draw.text((left + _PLOT * unit / 2, bottom + (6 + _LINE) * unit), below, INK, font=font, anchor="ma")
    draw.text((_EDGE * unit, bottom + (6 + 2 * _LINE) * unit), note, INK, font=font)
    return picture.resize((picture.width // unit, picture.height // unit), Image.Resampling.LANCZOS)


def _draw_row(draw: ImageDraw.ImageDraw, row: Row, y: float, across: Callable[[float], float]) -> None:
    assert row.gain is not None
    unit = _SMOOTH
    mean = 100 * row.gain.mean
    if row.gain.interval is not None:
        reach = 100 * row.gain.interval
        ends = across(mean - reach), across(mean + reach)
        draw.line([(ends[0], y), (ends[1], y)], OWN, 2 * unit)
        for x in ends:
            draw.line([(x, y - 4 * unit), (x, y + 4 * unit)], OWN, 2 * unit)
    for value in row.each if len(row.each) > 1 else ():
        _dot(draw, across(100 * value), y, 3 * unit, FAINT)
    _dot(draw, across(mean), y, 5 * unit, OWN)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _ticks(table: Sequence[Row]) -> list[float]:
    """Round percentages that hold every mean, seed and interval, and zero."""
    values = [0.0]
    for row in table:
        assert row.gain is not None
        reach = row.gain.interval or 0.0
        values += [100 * v for v in (*row.each, row.gain.mean - reach, row.gain.mean + reach)]
    low, high = min(values), max(values)
    rough = max(high - low, 1e-6) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _short(values: int) -> str:
    return f"{values / 1e6:.2f} M" if values >= 1e6 else f"{values / 1e3:.1f} k"


def _width(font: Font, text: str) -> int:
    return math.ceil(font.getlength(text))
