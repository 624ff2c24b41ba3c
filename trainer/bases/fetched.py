"""Frozen layers whose weight is not lying ready: it is made or brought wherever it is used, and let go again.

The pass back to the input needs the weight once more. It is fetched again instead of being kept between the two, which
is what makes room.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class Fetched(nn.Module):
    """What such layers share; ``weight`` is a tensor of its own whenever it is asked for."""

    def lent(self) -> Tensor:
        """The weight for one use, which is over when the next one is lent."""
        weight: Tensor = self.weight  # type: ignore[assignment]
        return weight

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            answer: Tensor = _Pass.apply(x, self)
            return answer
        return self.answer(x, self.lent())

    def answer(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the layer makes of ``x``."""
        raise NotImplementedError

    def back(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        """The gradient of an input of that shape."""
        raise NotImplementedError


class FetchedLinear(Fetched, nn.Linear):
    """An `nn.Linear`."""

    def answer(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)

    def back(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        return gradient @ weight


class FetchedConv2d(Fetched, nn.Conv2d):
    """An `nn.Conv2d`."""

    def answer(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(x, weight, self.bias)

    def back(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        return conv2d_input(shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups)


class _Pass(torch.autograd.Function):
    """A layer's pass, of which nothing stays for the way back but the layer itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Fetched) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.answer(x, layer.lent())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer: Fetched = ctx.layer
        return layer.back(ctx.shape, gradients[0], layer.lent()), None
