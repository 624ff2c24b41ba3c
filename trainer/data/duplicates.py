"""Images that look the same although their files differ: copies resized, re-saved, or recoloured a bit.

A difference hash finds candidates (which of two neighbours is brighter, on a 9 x 8 grid), a small
colour picture confirms them: on flat drawings most of a difference hash is zero, and alone it would
take two icons on white for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

MAX_BITS = 4
"""Of 64; re-saving and resizing seldom flips more."""
MAX_COLOUR_DISTANCE = 6.0
"""Mean absolute difference of the small pictures, of 255. Re-saved copies stay near 1; two icons in
one style on one background differ by 10 and more."""

_GRID = 16


@dataclass(frozen=True)
class Fingerprint:
    """What two images are compared by: 64 bits of differences, and 16 x 16 RGB bytes."""

    bits: int
    colours: bytes

    def looks_like(self, other: Fingerprint) -> bool:
        """Whether the two images are near-duplicates."""
        if (self.bits ^ other.bits).bit_count() > MAX_BITS:
            return False
        distance = sum(abs(a - b) for a, b in zip(self.colours, other.colours, strict=True))
        return distance <= MAX_COLOUR_DISTANCE * len(self.colours)


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an RGB image."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            left = grey[row * 9 + column]
            right = grey[row * 9 + column + 1]
            bits = bits << 1 | (right > left)
    colours = image.resize((_GRID, _GRID), Image.Resampling.BOX).tobytes()
    return Fingerprint(bits, colours)
