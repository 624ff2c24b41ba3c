"""LoRA+: B learns faster than A, as wide layers need it.

Source: Hayou et al. 2024, arXiv 2402.12354.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainer.adapters.methods.lora import Lora


@dataclass(frozen=True)
class LoraPlus(Lora):
    """Attributes:
    rate_ratio: learning rate of B relative to that of A, which is the run's; the paper finds 16 good.
    """

    name: ClassVar[str] = "lora+"
    summary: ClassVar[str] = "lets one of LoRA's two matrices learn faster, so that the style shows sooner"
    source: ClassVar[str] = "Hayou et al. 2024, arXiv 2402.12354"

    rate_ratio: float = 16.0

    def rate_factor(self, part: str) -> float:
        return self.rate_ratio if part == "up" else 1.0
