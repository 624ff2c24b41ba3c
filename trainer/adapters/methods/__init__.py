"""The registry of adapter methods: how an update starts and how strongly it counts.

A method of the low-rank family is one row. What is common to all of them (gates, stacking, strengths) is the bank's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """One row of the registry.

    Attributes:
        name: as written in a config.
        source: the paper.
        file_alpha: ``(alpha, rank) -> alpha`` as readers of files understand it, who all apply ``alpha / rank``.
        start: fills ``down`` (r, in[, kh, kw]) and ``up`` (out, r[, 1, 1]) in place so that the update is zero.
    """

    name: str
    source: str
    file_alpha: Callable[[float, int], float]
    start: Callable[[Tensor, Tensor, torch.Generator], None]

    def scale(self, alpha: float, rank: int) -> float:
        """The factor on ``B A x`` at strength 1."""
        return self.file_alpha(alpha, rank) / rank


def _as_it_is(alpha: float, rank: int) -> float:
    return alpha


def _by_root_of_rank(alpha: float, rank: int) -> float:
    return alpha * math.sqrt(rank)


def _zero_up(down: Tensor, up: Tensor, generator: torch.Generator) -> None:
    # Kaiming-uniform with a = sqrt(5), as PEFT and kohya start: the bound is then 1 / sqrt(fan in).
    bound = 1.0 / math.sqrt(down[0].numel())
    down.uniform_(-bound, bound, generator=generator)
    up.zero_()


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("lora", "Hu et al., arXiv 2106.09685", _as_it_is, _zero_up),
        Method("rslora", "Kalajdzievski, arXiv 2312.03732", _by_root_of_rank, _zero_up),
    )
}


def method_named(name: str) -> Method:
    """The registry's row of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"adapter.method is {name!r}, but should be one of {known}.")
    return METHODS[name]
