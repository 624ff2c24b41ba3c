"""The three controls that say what you will see, and the settings they become.

Each has five positions around what the preset would choose; the middle leaves the setting to the preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.bases.families import Preset

POSITIONS = range(-2, 3)


@dataclass(frozen=True)
class Dial:
    """A control: position p multiplies the preset's value by ``factors[p + 2]``."""

    name: str
    setting: str
    factors: tuple[float, float, float, float, float]
    whole: bool

    def value(self, preset: float, position: int) -> float | int | None:
        """The setting at a position; None, which leaves it to the preset, in the middle."""
        if position == 0:
            return None
        exact = preset * self.factors[position + 2]
        if not self.whole:
            return float(f"{exact:.2g}")
        count = max(1, round(exact))
        return count if count < 50 else max(10, round(count / 10) * 10)

    def position(self, preset: float, value: float | None) -> int:
        """The position nearest to a setting, by ratio."""
        if value is None or value <= 0:
            return 0
        return min(POSITIONS, key=lambda p: abs(value / (preset * self.factors[p + 2]) - 1) + 0.001 * abs(p))


DIALS = (
    Dial("strength", "optim.learning_rate", (0.4, 0.65, 1.0, 1.5, 2.2), whole=False),
    Dial("length", "train.steps", (0.4, 0.65, 1.0, 1.6, 2.5), whole=True),
    Dial("detail", "adapter.rank", (0.25, 0.5, 1.0, 2.0, 4.0), whole=True),
)


def preset_values(preset: Preset, images: int) -> dict[str, float]:
    """What a preset chooses for the dials' settings with so many images."""
    return {
        "optim.learning_rate": preset.learning_rate,
        "train.steps": preset.steps(max(1, images)),
        "adapter.rank": preset.rank,
    }


def at(settings: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested settings, or None."""
    node: Any = settings
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node
