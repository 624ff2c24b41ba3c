from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from trainer.config import OptimConfig
from trainer.training.optim import Average, learning_rate_at, make_optimizer, set_learning_rate


def rates(steps: int, warmup: int, schedule: str) -> list[float]:
    return [learning_rate_at(s, peak=1.0, steps=steps, warmup=warmup, schedule=schedule) for s in range(steps)]


def test_the_rate_warms_up_and_then_stays_or_falls_along_a_cosine() -> None:
    constant, cosine = rates(100, 10, "constant"), rates(100, 10, "cosine")
    assert constant[:10] == cosine[:10] == [pytest.approx((s + 1) / 11) for s in range(10)]
    assert constant[10:] == [1.0] * 90
    assert cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(5, 0, "constant")[0] == 1.0


def test_the_optimizer_moves_exactly_as_plain_adamw() -> None:
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    config = OptimConfig(learning_rate=1e-2, weight_decay=0.1)
    ours, plain = Parameter(start.clone()), Parameter(start.clone())
    optimizer = make_optimizer([ours], config)
    reference = torch.optim.AdamW([plain], lr=1e-2, weight_decay=0.1, foreach=False)
    for step in range(5):
        for parameter in (ours, plain):
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        set_learning_rate(optimizer, 1e-2)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, plain, atol=1e-7, rtol=1e-6)


def test_an_average_follows_slowly_and_starts_quickly() -> None:
    parameter = Parameter(torch.zeros(2))
    average = Average([parameter], decay=0.9)
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update([parameter])
    first = average.values[0][0].item()
    assert first == pytest.approx(0.9)
    for _ in range(200):
        average.update([parameter])
    assert average.values[0][0].item() == pytest.approx(1.0, abs=1e-4)
