"""How well each training image was learned, and which of them stand out. Plain numbers, without torch.

An image's gain is the share of the base's error on it that the style takes away, at the same noise for all states. Most
images of one style gain alike. One that gains far less is of another kind than the rest, or its caption does not fit;
one that gains far more is learned by heart. What is far is told by the median and the median absolute deviation
(Leys et al. 2013, "Detecting outliers: do not use standard deviation around the mean"), which the outliers do not move.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

FEWEST_IMAGES = 6
FAR = 2.5
"""Deviations from the median; Leys et al. advise 2.5 to 3."""
SCALE = 1.4826
"""What makes the median absolute deviation of a normal distribution its standard deviation."""
LEAST_DEVIATION = 0.02
"""Gains closer to each other than this are alike, however close all the others are."""

Standing = Literal["", "least", "most"]


class Learned(BaseModel):
    """One training image.

    Attributes:
        name: its file.
        title: what the user calls it.
        gains: at each of the judged states, 0 being the base.
        standing: ``least`` or ``most`` when it stands out at the end among its like.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    title: str = ""
    gains: tuple[float, ...]
    standing: Standing = ""


def learned(names: Sequence[str], gains: Sequence[Sequence[float]]) -> tuple[Learned, ...]:
    """Images with their gains and standing.

    Args:
        gains: by state, then image.
    """
    standings = standing([*gains[-1]])
    by_image = zip(*gains, strict=True)
    return tuple(
        Learned(name=name, gains=tuple(round(gain, 4) for gain in own), standing=where)
        for name, own, where in zip(names, by_image, standings, strict=True)
    )


def standing(gains: Sequence[float]) -> list[Standing]:
    """Which images stand out by their gain; with too few images none does."""
    if len(gains) < FEWEST_IMAGES:
        return [""] * len(gains)
    middle = statistics.median(gains)
    deviation = max(SCALE * statistics.median(abs(gain - middle) for gain in gains), LEAST_DEVIATION)
    return [_standing((gain - middle) / deviation) for gain in gains]


def _standing(deviations: float) -> Standing:
    return "least" if deviations < -FAR else "most" if deviations > FAR else ""
