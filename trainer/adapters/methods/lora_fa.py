"""LoRA-FA: A stays as it was drawn, and only B learns.

Source: Zhang et al. 2023, arXiv 2308.03303.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainer.adapters.methods.lora import Lora
from trainer.adapters.methods.method import Parts, Site


@dataclass(frozen=True)
class LoraFa(Lora):
    name: ClassVar[str] = "lora-fa"
    summary: ClassVar[str] = "trains one of LoRA's two matrices, which takes less memory and learns a little less"
    source: ClassVar[str] = "Zhang et al. 2023, arXiv 2308.03303"

    def start(self, site: Site) -> Parts:
        parts = super().start(site)
        return Parts({"up": parts.trained["up"]}, kept={"down": parts.trained["down"], **parts.kept})
