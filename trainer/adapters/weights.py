"""One layer of an adapter as files and the bank hand it to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LayerWeights:
    """One layer of an adapter.

    Attributes:
        down: A, (r, in) or (r, in, kh, kw).
        up: B, (out, r) or (out, r, 1, 1).
        alpha: the update counts ``alpha / r``.
        method: whose weights these are; ``lora`` for all that down, up and alpha tell wholly.
        extra: further tensors of another method, by the names of its parts.
    """

    down: Tensor
    up: Tensor
    alpha: float
    method: str = "lora"
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(tensor.numel() for tensor in (self.down, self.up, *self.extra.values()))

    @property
    def scale(self) -> float:
        """The factor on ``B A x`` at strength 1."""
        return self.alpha / self.rank
