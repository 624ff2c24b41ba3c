from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from trainer.training.noise import add_noise, gaussian, loss_weights, prediction_target, uniform

SCHEDULER = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
TABLE = SCHEDULER.alphas_cumprod
X, NOISE = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).unbind()
TIMESTEPS = torch.tensor([0, 500, 999])


def test_noised_latents_are_those_of_diffusers() -> None:
    assert torch.equal(add_noise(X, NOISE, TIMESTEPS, TABLE), SCHEDULER.add_noise(X, NOISE, TIMESTEPS))


def test_targets_are_the_noise_or_the_velocity_of_diffusers() -> None:
    assert prediction_target(X, NOISE, TIMESTEPS, TABLE, "epsilon") is NOISE
    velocity = prediction_target(X, NOISE, TIMESTEPS, TABLE, "v_prediction")
    assert torch.equal(velocity, SCHEDULER.get_velocity(X, NOISE, TIMESTEPS))


@pytest.mark.parametrize(("prediction", "offset"), [("epsilon", 0), ("v_prediction", 1)])
def test_min_snr_weights_follow_the_paper(prediction: str, offset: int) -> None:
    snr = compute_snr(SCHEDULER, torch.arange(1000))
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr + offset)
    torch.testing.assert_close(loss_weights(TABLE, 5.0, prediction), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_are_finite_where_nothing_of_the_signal_is_left(prediction: str) -> None:
    weights = loss_weights(torch.tensor([0.9, 0.5, 0.0]), 5.0, prediction)
    assert torch.isfinite(weights).all()
    assert weights[2] == (1.0 if prediction == "epsilon" else 0.0)


def test_gamma_zero_weighs_all_alike() -> None:
    assert torch.equal(loss_weights(TABLE, 0, "epsilon"), torch.ones(1000))


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
