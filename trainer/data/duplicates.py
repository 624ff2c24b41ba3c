"""Images that look the same although their files differ: copies resized, re-saved or brightened a bit.

A difference hash (which of two neighbours is brighter, on a 9 x 8 grid) finds candidates. On drawings
over a plain ground most of its bits are noise, and alone it takes C, O and Q for one picture; so the
correlation of two small colour pictures has the last word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import mul

from PIL import Image

MAX_BITS = 4
"""Of 64; re-saving, resizing and brightening seldom flip more."""
MIN_CORRELATION = 0.98
"""Among 74 black glyphs on white, copies re-saved at JPEG quality 50, halved or brightened stay above
0.99, the likest different glyphs (O and Q) reach 0.972 and all others less than 0.94."""

_GRID = 24
FINGERPRINT_BYTES = _GRID * _GRID * 3


@dataclass(frozen=True)
class Fingerprint:
    """What two images are compared by: 64 bits of differences, and 24 x 24 RGB bytes."""

    bits: int
    colours: bytes

    def looks_like(self, other: Fingerprint) -> bool:
        """Whether the two images are near-duplicates."""
        if (self.bits ^ other.bits).bit_count() > MAX_BITS:
            return False
        return correlation(self.colours, other.colours) >= MIN_CORRELATION


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an RGB image."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            left = grey[row * 9 + column]
            right = grey[row * 9 + column + 1]
            bits = bits << 1 | (right > left)
    return Fingerprint(bits, image.resize((_GRID, _GRID), Image.Resampling.BOX).tobytes())


def correlation(a: bytes, b: bytes) -> float:
    """Pearson's correlation of two equally long series; of a flat one, 1 with its like and 0 else."""
    n, sum_a, sum_b = len(a), sum(a), sum(b)
    spread_a = n * sum(map(mul, a, a)) - sum_a**2
    spread_b = n * sum(map(mul, b, b)) - sum_b**2
    if spread_a == 0 or spread_b == 0:
        return float(a == b)
    return (n * sum(map(mul, a, b)) - sum_a * sum_b) / math.sqrt(spread_a * spread_b)
