"""GLoRA: an update of the base's own weight beside a LoRA, ``alpha / r (W0 A1 A2 + B1 B2)``.

Source: Chavan et al. 2023, arXiv 2306.07967, of which LyCORIS has these two terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.methods.foreign import Foreign, plain, split
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Glora(Foreign):
    """Parts: ``a1`` is A1, (in, r); ``a2`` is A2, (r, in); ``up`` is B1, (out, r); ``down`` is B2 as in LoRA."""

    name: ClassVar[str] = "glora"
    summary: ClassVar[str] = "also multiplies the base's own weight"
    source: ClassVar[str] = "Chavan et al. 2023, arXiv 2306.07967"
    parts: ClassVar[tuple[str, ...]] = ("a1", "a2")
    needs_base: ClassVar[bool] = True

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        import torch

        if base is None:
            raise ValueError("what GLoRA adds depends on the base's weight")
        base = base.detach().to("cpu", torch.float32)
        a1, a2 = weights.extra["a1"].float(), weights.extra["a2"].float()
        # Over a kernel, the base's weight is multiplied at each of its places; (out, kh * kw, r) and its counterpart.
        kernel = base[0, 0].numel()
        moved = torch.einsum("oik,ir->okr", base.flatten(2) if base.dim() == 4 else base[..., None], a1)
        spread = torch.einsum("kl,ri->kril", torch.eye(kernel), a2)
        down = torch.cat([spread.reshape(-1, *base.shape[1:]), weights.down.float()])
        up = torch.cat([moved.flatten(1), weights.up.float().flatten(1)], dim=1)
        if down.shape[0] >= min(base.shape[0], base[0].numel()):
            return plain(weights, *split((up @ down.flatten(1)).view(base.shape)))
        return plain(weights, down, up.view(*up.shape, *(1,) * (base.dim() - 2)))

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        fitting = super().shaped(weights, shape)
        fits = weights.extra["a1"].shape[0] == shape[1] == weights.extra["a2"].shape[1]
        return replace(fitting) if fitting is not None and fits else None
