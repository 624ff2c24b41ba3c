"""A card whose driver moves what no longer fits into main memory, as on Windows: nothing fails, all is just slow."""

from __future__ import annotations

import torch

from trainer.hardware import machine

FALL = 3.0
"""So many times slower than before is no fluctuation."""
REPORTS = 4
"""Reports in a row that must be so slow."""
FREE = 0.04
"""Share of a card's memory that is free at most when it spills."""


class SpillWatch:
    """Hears how fast a training is, and says once when it has become slow on a full card.

    Args:
        device: that it trains on; on others than cards nothing is ever said.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._best = 0.0
        self._slow = 0
        self._said = False

    def heard(self, samples_per_second: float) -> str:
        """The sentence that is due with this report; mostly none."""
        if self._said or self.device.type != "cuda":
            return ""
        self._best = max(self._best, samples_per_second)
        self._slow = self._slow + 1 if samples_per_second * FALL < self._best else 0
        if self._slow < REPORTS or not self._is_full():
            return ""
        self._said = True
        slower = self._best / max(samples_per_second, 1e-9)
        return (
            f"Steps have become {slower:.0f} times slower and the card is full: its driver seems to keep a part of "
            "it in main memory. Close other programs that use the card, or pause and resume with memory.limit_gib set "
            "below what it has."
        )

    def _is_full(self) -> bool:
        has = machine(self.device)
        return has.available < FREE * has.total
