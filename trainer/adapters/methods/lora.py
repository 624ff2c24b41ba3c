"""LoRA: ``alpha / r * B A x``, with B zero and A random at the start.

Source: Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Lora(Method):
    """Parts: ``down`` is A, (r, in[, kh, kw]); ``up`` is B, (out, r[, 1, 1])."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "scales the update by alpha / rank"
    source: ClassVar[str] = "Hu et al. 2021, arXiv 2106.09685"

    def file_alpha(self, rank: int, alpha: float) -> float:
        """Alpha as readers of files understand it, who all apply ``alpha / rank``."""
        return alpha

    def start(self, site: Site) -> Parts:
        import torch

        weight = site.base.weight
        room = min(weight.shape[0], weight[0].numel())
        if site.rank > room:
            raise ConfigError(f"adapter.rank is {site.rank}, but {site.path} has room for {room} at most.")
        tail = (1, 1) if weight.dim() == 4 else ()
        down = torch.empty(site.rank, *weight.shape[1:], dtype=torch.float32, device="cpu")
        # Kaiming-uniform with a = sqrt(5), as PEFT and kohya start: the bound is then 1 / sqrt(fan in).
        bound = 1.0 / weight[0].numel() ** 0.5
        down.uniform_(-bound, bound, generator=site.generator())
        return Parts({"down": down, "up": torch.zeros(weight.shape[0], site.rank, *tail, device="cpu")})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (self.file_alpha(rank, alpha) / rank,) * rank

    def factors(self, values: Values) -> tuple[Tensor, Tensor]:
        return values["down"], values["up"]

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        return LayerWeights(values["down"], values["up"], self.file_alpha(rank, alpha))

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        return Parts({"down": weights.down.float(), "up": weights.up.float()})
