"""Contact sheets: a grid of pictures with labels above the columns and beside the rows."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from trainer.preview.fonts import Font, font_for

PAPER, INK = "#FAF8F4", "#2A2D2E"
GAP = 8


def contact_sheet(
    grid: Sequence[Sequence[Image.Image]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    cell: int = 0,
) -> Image.Image:
    """A labelled grid, ``grid[row][column]``.

    Args:
        rows, columns: labels; none leaves their margin out.
        title: a line above it all, on as many lines as it takes.
        cell: side of a picture's square in pixels; 0 takes the largest picture's, at least 128, at most 512.
    """
    side = cell or max(128, min(512, max(max(picture.size) for line in grid for picture in line)))
    font = font_for("".join([title, *rows, *columns]), max(13, side // 11))
    line_height = round(font.getbbox("Ag")[3]) + 4
    left = GAP + (side if rows else 0)
    width = left + max(len(line) for line in grid) * (side + GAP)
    above = _wrapped(title, font, width - 2 * GAP) if title else []
    head = GAP + (len(above) * line_height + GAP if above else 0)
    top = head + (line_height + GAP if columns else 0)
    height = top + len(grid) * (side + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, line in enumerate(above):
        draw.text((GAP, GAP + index * line_height), line, INK, font=font)
    for index, label in enumerate(columns):
        text = _shortened(label, font, side)
        draw.text((left + index * (side + GAP) + side / 2, head), text, INK, font=font, anchor="ma")
    for index, label in enumerate(rows):
        text = "\n".join(_wrapped(label, font, side - 2 * GAP))
        middle = top + index * (side + GAP) + side / 2
        draw.multiline_text((left - GAP, middle), text, INK, font=font, anchor="rm", align="right")
    for y, pictures in enumerate(grid):
        for x, picture in enumerate(pictures):
            box = (left + x * (side + GAP), top + y * (side + GAP))
            sheet.paste(_fitted(picture, side), box)
    return sheet


def mosaic(pictures: Sequence[Image.Image], side: int = 256) -> Image.Image:
    """The first four pictures in a square of two by two; fewer than four: the first alone. ``side`` in pixels."""
    if len(pictures) < 4:
        return _fitted(pictures[0], side)
    square = Image.new("RGB", (side, side), PAPER)
    for index, picture in enumerate(pictures[:4]):
        square.paste(_fitted(picture, side // 2), (index % 2 * (side // 2), index // 2 * (side // 2)))
    return square


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """The picture within a square of paper, its shape kept; small ones are enlarged by whole factors."""
    factor = side / max(picture.size)
    if factor >= 2:
        factor = int(factor)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _shortened(text: str, font: Font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, font: Font, width: int, most: int = 4) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + " ..."]
    return [_shortened(line, font, width) for line in lines]
