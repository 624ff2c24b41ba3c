"""Looks of our own making: the same drawing outlined, grey, on a dark ground, ... each under a word of its own.

A base that has seen a thing in the ways of its icon sets only keeps each way with the thing. Drawn so, every subject
comes in looks that have nothing to do with it, and a style becomes something that any subject can have.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tools.base.dataset import IconData

Picture = NDArray[np.float32]
"""(H, W, 3), 0 to 1."""
INK = np.array([0.13, 0.12, 0.2], dtype=np.float32)
NIGHT = np.array([0.1, 0.14, 0.28], dtype=np.float32)
PAPER = np.array([0.95, 0.89, 0.77], dtype=np.float32)
SHADE = np.array([0.72, 0.73, 0.78], dtype=np.float32)
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
ALIASES = 60
"""Made-up names of each look."""
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


def outlined(picture: Picture) -> Picture:
    """A dark line around the thing and between its parts."""
    outside = ground(picture)
    rim = _grown(_edges(outside[..., None].astype(np.float32), 0.5), 2)
    return _over(_over(picture, INK, 0.8 * _grown(_edges(picture, 0.22) & ~outside, 0)), INK, rim)


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
    outside = ground(picture)
    lines = np.maximum(_grown(_edges(outside[..., None].astype(np.float32), 0.5), 1), _grown(_edges(picture, 0.12), 0))
    return _over(np.ones_like(picture), INK, lines)


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


LOOKS: dict[str, tuple[Callable[[Picture], Picture], ...]] = {
    "outlined": (outlined,),
    "shadowed": (shadowed,),
    "grey": (grey,),
    "pastel": (pastel,),
    "pencil": (pencil,),
    "night": (night,),
    "paper": (paper,),
    "vivid": (vivid,),
    "stencil": (stencil,),
    "poster": (poster,),
    "misty": (misty,),
    "striped": (striped,),
    "outlined shadowed": (outlined, shadowed),
    "pastel outlined": (pastel, outlined),
    "vivid shadowed": (vivid, shadowed),
    "grey outlined": (grey, outlined),
    "striped outlined": (striped, outlined),
    "vivid night": (vivid, night),
    "poster paper": (poster, paper),
    "grey misty": (grey, misty),
}
"""What each look is called in captions, and what makes it, in order."""


def looked(image: NDArray[np.uint8], look: str) -> NDArray[np.uint8]:
    """An image (H, W, 3) in one of `LOOKS`."""
    picture: Picture = image.astype(np.float32) / 255
    for change in LOOKS[look]:
        picture = np.clip(change(picture), 0, 1).astype(np.float32)
    return (255 * picture).round().astype(np.uint8)


def aliases(look: str) -> tuple[str, ...]:
    """Made-up words that call a look besides its own name, the same at every call.

    With them the base learns to heed words of a style that it does not know, which is where an adapter takes hold.
    """
    drawn = random.Random(look)

    def word() -> str:
        return "".join(drawn.choice(CONSONANTS) + drawn.choice(VOWELS) for _ in range(drawn.randint(1, 3)))

    return tuple(" ".join(word() for _ in range(drawn.randint(1, 2))) for _ in range(ALIASES))


def with_looks(data: IconData, each: int, share: float) -> IconData:
    """The same data, and each drawing in ``each`` looks besides, which together take ``share`` of all looks at them.

    Which looks a drawing gets follows from its name; looks are spread evenly over drawings. Those in a colour that
    their thing does not have are left as they are.
    """
    images, entries = [], []
    weight = share / (1 - share) / each
    names = sorted(LOOKS)
    for image, entry in zip(data.images, data.entries, strict=True):
        if entry.subject not in entry.captions:
            continue
        key = hashlib.sha256(f"{entry.set_key}/{entry.name}".encode()).digest()
        first = int.from_bytes(key[:4], "big") % len(names)
        stride = (1, 3, 7, 9, 11, 13, 17, 19)[key[4] % 8]
        for number in range(each):
            look = names[(first + number * stride) % len(names)]
            images.append(looked(image, look))
            called = aliases(look)[(key[5 + number % 8] % 3) :: 3]
            entries.append(
                replace(
                    entry,
                    name=f"{entry.name}-{look}",
                    look=look,
                    look_aliases=called,
                    weight=weight * entry.weight,
                )
            )
    return IconData(np.concatenate([data.images, np.stack(images)]), (*data.entries, *entries))
