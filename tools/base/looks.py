"""Looks of our own making: the same drawing outlined, grey, on a dark ground, ... each under words of its own.

    python -m tools.base.looks --data DATA --out DATA2 --each 5 --share 0.5

A base that has seen a thing in the ways of its icon sets only keeps each way with the thing. Drawn so, every subject
comes in looks that have nothing to do with it, and a style becomes something that any subject can have.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tools.base import dataset
from tools.base.dataset import IconData

Picture = NDArray[np.float32]
"""(H, W, 3), 0 to 1."""
INK = np.array([0.13, 0.12, 0.2], dtype=np.float32)
NIGHT = np.array([0.1, 0.14, 0.28], dtype=np.float32)
PAPER = np.array([0.95, 0.89, 0.77], dtype=np.float32)
SHADE = np.array([0.72, 0.73, 0.78], dtype=np.float32)
SLATE = np.array([0.14, 0.24, 0.22], dtype=np.float32)
CHALK = np.array([0.93, 0.93, 0.86], dtype=np.float32)
BLOCK = 8
"""Side of the squares of a mosaic, in pixels."""
LOOKS_EACH = 5
"""Looks of our own making that each drawing gets."""
SHARE = 0.5
"""Of the drawings learnt from: those in such a look."""
SHADOW = 5
"""How far a shadow lies to the lower right, in pixels."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def ground(picture: Picture) -> NDArray[np.bool_]:
    """Where nothing is drawn: near white and joined to the border, (H, W)."""
    light = picture.min(axis=2) > 0.96
    reached = np.zeros_like(light)
    reached[0, :] = reached[-1, :] = reached[:, 0] = reached[:, -1] = True
    reached &= light
    while True:
        spread = reached.copy()
        spread[1:] |= reached[:-1]
        spread[:-1] |= reached[1:]
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread &= light
        if (spread == reached).all():
            return reached
        reached = spread


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.float32]:
    """A mask that reaches so many pixels further, with a soft rim."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    if pixels:
        image = image.filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32) / 255


def _over(picture: Picture, colour: Picture | NDArray[np.float32], where: NDArray[np.float32]) -> Picture:
    return picture * (1 - where[..., None]) + colour * where[..., None]


def _edges(picture: Picture, least: float) -> NDArray[np.bool_]:
    """Where neighbours differ by more than ``least``, (H, W)."""
    found = np.zeros(picture.shape[:2], dtype=bool)
    for axis in (0, 1):
        step = np.abs(np.diff(picture, axis=axis)).max(axis=2) > least
        found[tuple(slice(0, n) for n in step.shape)] |= step
    return found


def _rim(outside: NDArray[np.bool_], pixels: int) -> NDArray[np.float32]:
    """A line of so many pixels to either side of where the ground ends."""
    return _grown(_edges(outside[..., None].astype(np.float32), 0.5), pixels)


def _lines(picture: Picture) -> NDArray[np.float32]:
    """Lines around the thing and between its parts, as one would draw it."""
    return np.maximum(_rim(ground(picture), 1), _grown(_edges(picture, 0.12), 0))


def outlined(picture: Picture) -> Picture:
    """A dark line around the thing and between its parts."""
    outside = ground(picture)
    parts = 0.8 * _grown(_edges(picture, 0.22) & ~outside, 0)
    return _over(_over(picture, INK, parts), INK, _rim(outside, 2))


def shadowed(picture: Picture) -> Picture:
    """A grey shadow on the ground behind it, to the lower right."""
    outside = ground(picture)
    moved = np.zeros(outside.shape, dtype=np.float32)
    moved[SHADOW:, SHADOW:] = _grown(~outside, 1)[:-SHADOW, :-SHADOW]
    return _over(picture, SHADE, moved * outside)


def grey(picture: Picture) -> Picture:
    """No colours."""
    return np.repeat((picture @ LUMA)[..., None], 3, axis=2)


def pastel(picture: Picture) -> Picture:
    """Pale, soft colours."""
    return 0.4 * picture + 0.6


def pencil(picture: Picture) -> Picture:
    """Dark lines on white, nothing filled."""
    return _over(np.ones_like(picture), INK, _lines(picture))


def night(picture: Picture) -> Picture:
    """On a dark blue ground."""
    return _over(picture, NIGHT, _grown(ground(picture), 0))


def paper(picture: Picture) -> Picture:
    """As printed on old paper: everything tinted."""
    return picture * PAPER


def vivid(picture: Picture) -> Picture:
    """Stronger colours."""
    middle = (picture @ LUMA)[..., None]
    return middle + 1.8 * (picture - middle)


def stencil(picture: Picture) -> Picture:
    """One dark colour, in one tone."""
    tone = np.clip((0.92 - picture @ LUMA) * 2.2, 0, 1)
    return _over(np.ones_like(picture), np.array([0.16, 0.33, 0.5], dtype=np.float32), tone)


def poster(picture: Picture) -> Picture:
    """Few tones of each colour."""
    return np.round(picture * 2) / 2


def misty(picture: Picture) -> Picture:
    """Blurred and light."""
    image = Image.fromarray((255 * picture).round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    return 0.3 + 0.7 * np.asarray(image, dtype=np.float32) / 255


def striped(picture: Picture) -> Picture:
    """The thing shaded with slanting lines."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    lines = (np.sin((rows + columns) * (2 * np.pi / 7)) > 0.2) & ~ground(picture)
    return _over(picture, INK, 0.55 * lines.astype(np.float32))


def inked(picture: Picture) -> Picture:
    """A heavy dark line around the thing."""
    return _over(picture, INK, _rim(ground(picture), 4))


def sticker(picture: Picture) -> Picture:
    """A white rim around the thing, on a grey ground."""
    outside = ground(picture)
    return _over(picture, SHADE, 1 - _grown(~outside, 5))


def dotted(picture: Picture) -> Picture:
    """The thing shaded with a grid of dark dots."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    dots = (np.sin(rows * np.pi / 3) * np.sin(columns * np.pi / 3) > 0.3) & ~ground(picture)
    return _over(picture, INK, 0.6 * dots.astype(np.float32))


def mosaic(picture: Picture) -> Picture:
    """Squares of one colour each."""
    height, width = picture.shape[:2]
    image = Image.fromarray((255 * picture).round().astype(np.uint8))
    small = image.resize((max(width // BLOCK, 1), max(height // BLOCK, 1)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST), dtype=np.float32) / 255


def chalk(picture: Picture) -> Picture:
    """Light lines on a dark board, nothing filled."""
    return _over(np.broadcast_to(SLATE, picture.shape), CHALK, _lines(picture))


FORMS: dict[str, Callable[[Picture], Picture]] = {
    "outlined": outlined,
    "inked": inked,
    "shadowed": shadowed,
    "striped": striped,
    "dotted": dotted,
    "mosaic": mosaic,
    "misty": misty,
}
"""What changes how a thing is drawn."""
COLOURS: dict[str, Callable[[Picture], Picture]] = {
    "grey": grey,
    "pastel": pastel,
    "vivid": vivid,
    "poster": poster,
    "paper": paper,
    "night": night,
}
"""What changes the colours it is drawn in."""
ALONE: dict[str, Callable[[Picture], Picture]] = {
    "pencil": pencil,
    "chalk": chalk,
    "stencil": stencil,
    "sticker": sticker,
}
"""What leaves nothing for another to change."""
AFTER = ("paper", "night")
"""Colours of the ground, which come last: a dark line is drawn on white before the white is dark."""


def _recipes() -> dict[str, tuple[Callable[[Picture], Picture], ...]]:
    recipes = {name: (change,) for name, change in (FORMS | COLOURS | ALONE).items()}
    for (colour, recolour), (form, redraw) in product(COLOURS.items(), FORMS.items()):
        order = (redraw, recolour) if colour in AFTER or form in ("mosaic", "misty") else (recolour, redraw)
        recipes[f"{colour} {form}"] = order
    for colour in ("grey", "pastel", "vivid"):
        recipes[f"{colour} outlined shadowed"] = (COLOURS[colour], outlined, shadowed)
    return recipes


LOOKS = _recipes()
"""What each look is called in captions, and what makes it, in order."""


def looked(image: NDArray[np.uint8], look: str) -> NDArray[np.uint8]:
    """An image (H, W, 3) in one of `LOOKS`."""
    picture: Picture = image.astype(np.float32) / 255
    for change in LOOKS[look]:
        picture = np.clip(change(picture), 0, 1).astype(np.float32)
    return (255 * picture).round().astype(np.uint8)


def with_looks(data: IconData, each: int, share: float, *, processes: int | None = None) -> IconData:
    """The same data, and each drawing to learn in ``each`` looks besides, which together take ``share`` of all looks
    at what is learnt.

    Which looks a drawing gets follows from its name. Those in a colour that
    their thing does not have are left as they are. ``processes``: one per core unless told otherwise.
    """
    orders, entries = [], []
    weight = share / (1 - share) / each
    names = sorted(LOOKS)
    for image, entry in zip(data.images, data.entries, strict=True):
        if entry.split != "train" or entry.subject not in entry.captions:
            continue
        drawn = random.Random(f"{entry.set_key}/{entry.name}")
        for look in drawn.sample(names, each):
            orders.append((image, look))
            entries.append(replace(entry, name=f"{entry.name}-{look}", look=look, weight=weight * entry.weight))
    # Not fork: the parent may hold threads of numpy or torch.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        images = pool.starmap(looked, orders, chunksize=64)
    return IconData(np.concatenate([data.images, np.stack(images)]), (*data.entries, *entries))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that tools.base.dataset has built")
    parser.add_argument("--out", type=Path, required=True, help="folder for the same data with looks")
    parser.add_argument("--each", type=int, default=LOOKS_EACH, help=f"looks of each drawing ({LOOKS_EACH})")
    parser.add_argument("--share", type=float, default=SHARE, help=f"share of drawings in a look ({SHARE})")
    parser.add_argument("--processes", type=int, help="one per core unless told otherwise")
    chosen = parser.parse_args(arguments)
    found = with_looks(dataset.load(chosen.data), chosen.each, chosen.share, processes=chosen.processes)
    dataset.write(found, chosen.out)
    print(f"{len(found.entries)} images, {sum(bool(entry.look) for entry in found.entries)} of them in a look")


if __name__ == "__main__":
    main()
