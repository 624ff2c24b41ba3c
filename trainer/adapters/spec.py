"""What an adapter is: its settings and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter is, without its weights.

    Attributes:
        name: unique in its bank.
        rank, alpha: what most layers have; ``ranks`` and ``alphas`` hold the layers that differ.
        method: a row of `trainer.adapters.methods`; what is loaded from a file is always ``lora``.
        targets: root-qualified paths of its layers.
        dropout: probability that a direction is off for an image, while training.
    """

    name: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    method: str = "lora"
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0

    def rank_of(self, path: str) -> int:
        return self.ranks.get(path, self.rank)

    def alpha_of(self, path: str) -> float:
        return self.alphas.get(path, self.alpha)


@dataclass(frozen=True)
class Adapter:
    """An adapter in a bank: its specification, its parameters as (path, tensor), and what to know about it."""

    spec: AdapterSpec
    parameters: tuple[tuple[str, nn.Parameter], ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def size(self) -> int:
        """Number of trainable values."""
        return sum(parameter.numel() for _, parameter in self.parameters)
