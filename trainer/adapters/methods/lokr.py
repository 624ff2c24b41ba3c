"""LoKr: the update is a Kronecker product, ``alpha / r C (x) (B A)``, one small block many times over.

Source: Edalati et al. 2022 (KronA), arXiv 2212.10650; as in LyCORIS, Yeh et al. 2023, arXiv 2309.14859.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.foreign import Foreign, plain, split, through
from trainer.adapters.methods.method import Values, convolves
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Lokr(Foreign):
    """Parts: ``outer`` is C, (p, q); ``down`` is A, (r, in / q[, kh, kw]); ``up`` is B, (out / p, r[, 1, 1]).

    Where a convolution's file keeps A flat, it is (r, in / q * kh * kw) until the layer is known.
    """

    name: ClassVar[str] = "lokr"
    summary: ClassVar[str] = "repeats one small block over the layer"
    source: ClassVar[str] = "Edalati et al. 2022, arXiv 2212.10650"
    parts: ClassVar[tuple[str, ...]] = ("outer",)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        outer, down, up = values["outer"].to(x.dtype), values["down"], values["up"]
        q = outer.shape[1]
        if not convolves(base):
            inner = through(base, through(base, x.unflatten(-1, (q, -1)), down), up)
            moved = (outer @ inner).flatten(-2)
        else:
            inner = through(base, x.reshape(-1, x.shape[1] // q, *x.shape[2:]), down)
            inner = up.flatten(1).to(x.dtype) @ inner.flatten(2)
            moved = (outer @ inner.view(x.shape[0], q, -1)).view(y.shape)
        return (moved * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def product(self, weights: LayerWeights) -> Tensor:
        import torch

        outer, down = weights.extra["outer"].float(), weights.down.float()
        block = (weights.up.float().flatten(1) @ down.flatten(1)).view(-1, *down.shape[1:])
        return torch.kron(outer.view(*outer.shape, *(1,) * (down.dim() - 2)), block).flatten(1)

    def norm(self, weights: LayerWeights) -> float:
        block = weights.up.double().flatten(1) @ weights.down.double().flatten(1)
        return abs(weights.scale) * float(weights.extra["outer"].double().norm() * block.norm())

    def sides(self, weights: LayerWeights) -> tuple[int, tuple[int, ...]]:
        p, q = weights.extra["outer"].shape
        _, width, *kernel = weights.down.shape
        return p * weights.up.shape[0], (q * width, *kernel)

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        out, inputs = self.sides(weights)
        if (out, math.prod(inputs)) != (shape[0], math.prod(shape[1:])) or shape[1] % weights.extra["outer"].shape[1]:
            return None
        width = shape[1] // weights.extra["outer"].shape[1]
        return replace(weights, down=weights.down.reshape(weights.rank, width, *shape[2:]))

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        import torch

        right, left = split(weights.extra["outer"].float())
        out, inputs = self.sides(weights)
        if left.shape[1] * weights.rank >= min(out, math.prod(inputs)):
            return plain(weights, *split(self.product(weights).view(out, *inputs)))
        tail = (1,) * (len(inputs) - 1)
        up = torch.kron(left, weights.up.float().flatten(1))
        down = torch.kron(right.view(*right.shape, *tail), weights.down.float())
        return plain(weights, down, up.view(*up.shape, *tail))
