"""What an adapter is: its settings and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter is, without its weights.

    Attributes:
        name: unique in its bank.
        rank, alpha: what most layers have; ``ranks`` and ``alphas`` hold the layers that differ.
        method: the name of a method, see `trainer.adapters.methods`; of a loaded file, what most layers have.
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
class Learning:
    """What a method asks of the training beyond the gradients of the loss; parts that stay as they are need no
    gradients (``requires_grad`` False).

    Attributes:
        rate_factor: of a parameter, by its key, on the learning rate.
        extra_loss: added to each step's loss, a scalar with a gradient; None adds nothing.
        after_step: called with (steps done, steps of the run) once the weights have moved; their gradients are still
            there.
    """

    rate_factor: Callable[[str], float] = lambda key: 1.0
    extra_loss: Callable[[], Tensor | None] = lambda: None
    after_step: Callable[[int, int], None] = lambda done, steps: None


@dataclass(frozen=True)
class Adapter:
    """An adapter in a bank: its specification, its parameters as (key, tensor), and what to know about it."""

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
