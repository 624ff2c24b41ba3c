"""The colours of pictures by name: which one a drawing shows, and the same drawing in another.

Shapes: H x W pixels. Hues are in degrees, 0 (red) to 360.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HUES = {
    "red": (346.0, 14.0),
    "orange": (14.0, 40.0),
    "yellow": (40.0, 66.0),
    "green": (66.0, 165.0),
    "blue": (165.0, 250.0),
    "purple": (250.0, 300.0),
    "pink": (300.0, 346.0),
}
"""From and to which hue a colour's name is right; red goes round the circle's end."""
CENTRES = {"red": 0.0, "orange": 28.0, "yellow": 48.0, "green": 115.0, "blue": 212.0, "purple": 272.0, "pink": 328.0}
"""The hue that is most a colour's own, as icons have it."""
LEAST_SATURATION = 0.3
LEAST_BRIGHTNESS = 0.3
BROWN = (5.0, 40.0)
BROWN_BRIGHTNESS = 0.78
"""Red and orange of these hues that are darker are brown, which has no hue of its own."""
BRIGHT = 0.92
"""What orange and yellow are at least when a picture is turned to them."""
LEAST_INK = 0.02
"""Share of a picture that must be coloured for it to have a colour."""
PLAIN = 0.7
"""Share of the coloured pixels that must agree for a caption to name their colour."""


def hues(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The hue of every pixel of (H, W, 3), and which pixels are coloured: neither grey, white, brown nor black."""
    hsv = np.asarray(Image.fromarray(image).convert("HSV"), dtype=np.float64)
    hue = hsv[..., 0] * (360 / 256)
    saturation, brightness = hsv[..., 1] / 255, hsv[..., 2] / 255
    coloured = (saturation >= LEAST_SATURATION) & (brightness >= LEAST_BRIGHTNESS)
    brown = (BROWN[0] <= hue) & (hue < BROWN[1]) & (brightness < BROWN_BRIGHTNESS)
    return hue, coloured & ~brown


def shares(image: NDArray[np.uint8]) -> dict[str, float]:
    """Each colour's share of the coloured pixels of (H, W, 3); empty where hardly any is coloured."""
    hue, coloured = hues(image)
    count = int(coloured.sum())
    if count < LEAST_INK * coloured.size:
        return {}
    return {name: float((_within(hue, name) & coloured).sum() / count) for name in HUES}


def dominant(image: NDArray[np.uint8]) -> str | None:
    """The colour that most coloured pixels have, or None in a picture without colours."""
    found = shares(image)
    return max(found, key=lambda name: found[name]) if found else None


def plain(image: NDArray[np.uint8]) -> str | None:
    """The colour that a person would name: the dominant one, if hardly another is there and much ink has it."""
    found = shares(image)
    name = dominant(image)
    if name is None or found[name] < PLAIN:
        return None
    ink = image.min(axis=2) < 245
    return name if hues(image)[1].sum() >= 0.5 * ink.sum() else None


def recoloured(image: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """The picture with its dominant hue, and all others with it, turned to ``colour``.

    Dark orange is brown and dark yellow is olive: for these two it becomes brighter too where it must.

    Raises:
        ValueError: the picture has no colour to turn.
    """
    hue, coloured = hues(image)
    was = dominant(image)
    if was is None:
        raise ValueError("a picture without colours cannot be recoloured")
    here = _within(hue, was) & coloured
    middle = CENTRES[was] + float(np.median((hue[here] - CENTRES[was] + 180) % 360 - 180))
    hsv = np.asarray(Image.fromarray(image).convert("HSV")).copy()
    if colour in ("orange", "yellow"):
        brightness = float(np.median(hsv[..., 2][here])) / 255
        hsv[..., 2] = np.minimum(hsv[..., 2] * max(1.0, BRIGHT / brightness), 255).astype(np.uint8)
    hsv[..., 0] = np.round((hue + CENTRES[colour] - middle) % 360 * (256 / 360)).astype(int) % 256
    turned: NDArray[np.uint8] = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), dtype=np.uint8)
    return turned


def _within(hue: NDArray[np.float64], name: str) -> NDArray[np.bool_]:
    low, high = HUES[name]
    return (low <= hue) & (hue < high) if low < high else (hue >= low) | (hue < high)
