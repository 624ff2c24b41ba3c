from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainer.adapters.bank import Bank
from trainer.bases.base import Base


@pytest.fixture
def bank(base: Base) -> Iterator[Bank]:
    """Two adapters that clearly do something."""
    torch.set_num_threads(1)
    bank = Bank(base.roots)
    for name, seed in (("one", 1), ("two", 2)):
        bank.add(name, rank=4, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in bank.parameters_of(name):
                if key.endswith(".up"):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    yield bank
    bank.detach()
