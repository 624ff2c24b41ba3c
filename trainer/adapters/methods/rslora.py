"""rsLoRA: LoRA with ``alpha / sqrt(r)``, so that high ranks learn as strongly as low ones.

Source: Kalajdzievski 2023, arXiv 2312.03732.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from trainer.adapters.methods.lora import Lora


@dataclass(frozen=True)
class RsLora(Lora):
    name: ClassVar[str] = "rslora"
    summary: ClassVar[str] = "scales LoRA's update by alpha / sqrt(rank), which keeps high ranks lively"
    source: ClassVar[str] = "Kalajdzievski 2023, arXiv 2312.03732"

    def file_alpha(self, rank: int, alpha: float) -> float:
        return alpha * math.sqrt(rank)
