"""LoHa: the update is the product, value by value, of two low-rank matrices, ``alpha / r (B1 A1) * (B2 A2)``.

Source: Hyeon-Woo et al. 2021 (FedPara), arXiv 2108.06098; as in LyCORIS, Yeh et al. 2023, arXiv 2309.14859.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.foreign import Foreign, plain, split, through
from trainer.adapters.methods.method import Values
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loha(Foreign):
    """Parts: ``down`` and ``up`` are A1 (r, in[, kh, kw]) and B1 (out, r[, 1, 1]), ``down2`` and ``up2`` A2 and B2.

    Where a convolution's file keeps A flat, it is (r, in * kh * kw) until the layer is known.
    """

    name: ClassVar[str] = "loha"
    summary: ClassVar[str] = "multiplies two low-rank updates value by value"
    source: ClassVar[str] = "Hyeon-Woo et al. 2021, arXiv 2108.06098"
    parts: ClassVar[tuple[str, ...]] = ("down2", "up2")

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        product = _product(values["down"], values["up"], values["down2"], values["up2"])
        moved = through(base, x, product.view(-1, *values["down"].shape[1:]))
        return (moved * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def product(self, weights: LayerWeights) -> Tensor:
        return _product(weights.down, weights.up, weights.extra["down2"], weights.extra["up2"])

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        down, down2 = weights.down, weights.extra["down2"]
        if (weights.up.shape[0], down[0].numel()) != (shape[0], math.prod(shape[1:])):
            return None
        extra = {**weights.extra, "down2": down2.reshape(down2.shape[0], *shape[1:])}
        return replace(weights, down=down.reshape(down.shape[0], *shape[1:]), extra=extra)

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        down, up = weights.down.float(), weights.up.float().flatten(1)
        down2, up2 = weights.extra["down2"].float(), weights.extra["up2"].float().flatten(1)
        tail = (1,) * (down.dim() - 2)
        if down.shape[0] * down2.shape[0] >= min(up.shape[0], down[0].numel()):
            return plain(weights, *split(self.product(weights).view(up.shape[0], *down.shape[1:])))
        # Each pair of directions, one of either factor, is a direction of the product.
        pairs = (up[:, :, None] * up2[:, None]).flatten(1)
        return plain(weights, (down[:, None] * down2[None]).flatten(0, 1), pairs.view(*pairs.shape, *tail))


def _product(down: Tensor, up: Tensor, down2: Tensor, up2: Tensor) -> Tensor:
    first = up.float().flatten(1) @ down.float().flatten(1)
    return first * (up2.float().flatten(1) @ down2.float().flatten(1))
