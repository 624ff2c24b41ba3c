"""Methods of other tools whose files are read, but which nothing is begun with here.

Each says what its tensors do to a layer and how the same update is written with two matrices, which is what every other
part of the program understands.

Shapes: r rank, in and out of the layer, kh and kw of its kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.method import Method, Parts, Site, Values, convolves
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Foreign(Method):
    """A method with one gate a layer, ``alpha / r``, whose tensors are down, up and ``parts``."""

    parts: ClassVar[tuple[str, ...]]
    stacks: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def start(self, site: Site) -> Parts:
        raise NotImplementedError(f"{self.name} is only read from files")

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (alpha / rank,)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        weights = self.weights(values, rank, alpha)
        return {"weight": alpha / rank * self.product(weights).view(base.weight.shape)}

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        extra = {part: values[part] for part in self.parts}
        return LayerWeights(values["down"], values["up"], alpha, self.name, extra)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        tensors = {"down": weights.down, "up": weights.up, **weights.extra}
        return Parts({part: tensor.float() for part, tensor in tensors.items()})

    def product(self, weights: LayerWeights) -> Tensor:
        """The update without ``alpha / r``, (out, in * kh * kw), fp32."""
        raise NotImplementedError(f"{self.name} has no product of its own")

    def norm(self, weights: LayerWeights) -> float:
        return abs(weights.scale) * float(self.product(weights).double().norm())


def split(whole: Tensor) -> tuple[Tensor, Tensor]:
    """A and B with ``B A = whole``, value for value: one of them is the identity, whichever is smaller.

    Args:
        whole: (out, in[, kh, kw]).
    """
    import torch

    tail = (1,) * (whole.dim() - 2)
    out, inputs = whole.shape[0], math.prod(whole.shape[1:])
    # Made in fp32, because not every type that files have can be filled.
    identity = torch.eye(min(out, inputs), device=whole.device).to(whole.dtype)
    if out <= inputs:
        return whole, identity.view(out, out, *tail)
    return identity.view(inputs, *whole.shape[1:]), whole.reshape(out, inputs, *tail)


def plain(weights: LayerWeights, down: Tensor, up: Tensor) -> LayerWeights:
    """A LoRA of ``up`` and ``down`` as strong as ``weights``, without its further tensors."""
    return replace(weights, down=down, up=up, alpha=weights.scale * down.shape[0], method="lora", extra={})


def through(base: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What the frozen layer would answer without its bias if ``weight`` were its weight."""
    import torch.nn.functional as F

    if not convolves(base):
        return F.linear(x, weight.to(x.dtype))
    return F.conv2d(x, weight.to(x.dtype), None, base.stride, base.padding, base.dilation)
