"""Subspace similarities as a picture, a panel for each kind of layer, as figures 3 and 4 of the LoRA paper."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from trainer.preview.fonts import font_for
from trainer.preview.sheet import INK, PAPER
from trainer.workbench.subspaces import Overlap

_STOPS = ((250, 248, 244), (178, 214, 204), (46, 125, 111), (14, 45, 48))
"""From phi = 0 to phi = 1: the paper's colour, then darker and darker greens."""
_SIDE, _GAP, _TEXT = 232, 28, 15
"""Pixels: about a panel's side, what lies between panels, and the height of letters."""
_PER_ROW = 4


def heatmap(found: Sequence[Overlap], *, title: str, names: tuple[str, str]) -> Image.Image:
    """phi(i, j) of each kind of layer: i goes down over the first style's directions, j across over the second's.

    Args:
        found: at least one.
        title: a line above.
        names: of the two styles, for the axes.
    """
    below = f"down: i strongest directions of {names[0]};  across: j of {names[1]};  light is 0, dark is 1"
    font = font_for(title + below, _TEXT)
    columns = min(_PER_ROW, len(found))
    lines = -(-len(found) // columns)
    each = _SIDE + _GAP
    width = max(_GAP + columns * each, *(round(font.getlength(text)) + 2 * _GAP for text in (title, below)))
    height = 3 * _GAP + lines * (each + 2 * _GAP)
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_GAP, _GAP), title, INK, font=font)
    for index, one in enumerate(found):
        left = _GAP + index % columns * each
        top = 3 * _GAP + index // columns * (each + 2 * _GAP)
        rows, across = one.similarity.shape
        draw.text((left, top - _TEXT - 6), f"{one.kind}, {len(one.layers)} layers", INK, font=font)
        cells = Image.new("RGB", (across, rows))
        cells.putdata([colour(value) for value in one.similarity.flatten().tolist()])
        picture.paste(cells.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top))
        draw.rectangle((left - 1, top - 1, left + _SIDE, top + _SIDE), outline=INK)
        first, last = float(one.similarity[0, 0]), float(one.similarity[-1, -1])
        said = f"{first:.2f} at 1, 1;  {last:.2f} at {rows}, {across}"
        draw.text((left, top + _SIDE + 6), said, INK, font=font)
    draw.text((_GAP, height - _GAP - _TEXT // 2), below, INK, font=font)
    return picture


def colour(value: float) -> tuple[int, int, int]:
    """The colour of a similarity from 0 to 1."""
    place = min(1.0, max(0.0, value)) * (len(_STOPS) - 1)
    index = min(int(place), len(_STOPS) - 2)
    share = place - index
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_STOPS[index], _STOPS[index + 1], strict=True))
    return red, green, blue
