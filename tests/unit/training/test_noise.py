from __future__ import annotations

import torch

from trainer.noise import gaussian, uniform


def test_a_row_of_noise_depends_on_its_own_seed_alone() -> None:
    together, alone = gaussian((4, 2, 2), [7, 8]), gaussian((4, 2, 2), [8])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_noise_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    gaussian((4, 2, 2), [1, 2, 3])
    assert torch.equal(before, torch.get_rng_state())


def test_uniform_numbers_spread_over_the_unit_interval() -> None:
    numbers = [uniform(1, "caption", step, 0) for step in range(2000)]
    assert 0 <= min(numbers) < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.03
