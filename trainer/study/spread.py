"""What several seeds allow to say: mean, spread, and whether a difference is more than noise.

Arms of one seed see the same images in the same order with the same noise, so two arms are compared seed by seed: what
a seed does to both cancels out (a paired t interval, Student 1908).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# fmt: off
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""The 97.5% quantile of Student's t for 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Spread:
    """Of one number over seeds.

    Attributes:
        deviation: the sample's standard deviation; None for a single value.
        interval: half of the width of the mean's 95% interval; None for a single value.
    """

    count: int
    mean: float
    deviation: float | None = None
    interval: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether zero is a mean that these values allow; a single value allows any."""
        return self.interval is None or abs(self.mean) <= self.interval


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Spread(1, mean)
    deviation = statistics.stdev(values)
    quantile = _STUDENT[min(count - 1, len(_STUDENT)) - 1]
    return Spread(count, mean, deviation, quantile * deviation / count**0.5)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Spread | None:
    """How far ``one`` is above ``other``, both by seed, over the seeds that both have; None without any."""
    shared = sorted(one.keys() & other.keys())
    return spread([one[seed] - other[seed] for seed in shared]) if shared else None
