"""Noise that depends on a counter instead of a generator's past."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.randomness import stable_seed


def gaussian(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape), fp32 on the CPU; row i depends on ``seeds[i]`` alone."""
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def uniform(*parts: int | str) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    return stable_seed(*parts) / 2**32
