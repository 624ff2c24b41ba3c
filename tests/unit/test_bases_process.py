"""Noise as the papers and diffusers have it: noised latents, targets, weights, and schedules that end in pure noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from trainer.bases.process import Diffusion
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.errors import BaseError, ConfigError

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULER = DDPMScheduler(**CONFIG)
CPU = torch.device("cpu")
EPSILON = Diffusion(CONFIG, "epsilon", CPU)
VELOCITY = Diffusion(CONFIG, "v_prediction", CPU)
ZERO = Diffusion({**CONFIG, "rescale_betas_zero_snr": True}, "v_prediction", CPU)
X, NOISE = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).unbind()
TIMESTEPS = torch.tensor([0, 500, 999])
ALL = torch.arange(1000)


def test_noised_latents_are_those_of_diffusers() -> None:
    assert torch.equal(EPSILON.noised(X, NOISE, TIMESTEPS), SCHEDULER.add_noise(X, NOISE, TIMESTEPS))


def test_targets_are_the_noise_or_the_velocity_of_diffusers() -> None:
    assert EPSILON.target(X, NOISE, TIMESTEPS) is NOISE
    assert torch.equal(VELOCITY.target(X, NOISE, TIMESTEPS), SCHEDULER.get_velocity(X, NOISE, TIMESTEPS))


@pytest.mark.parametrize(("process", "offset"), [(EPSILON, 0), (VELOCITY, 1)], ids=["epsilon", "v"])
def test_min_snr_weights_follow_the_paper(process: Diffusion, offset: int) -> None:
    snr = compute_snr(SCHEDULER, ALL)
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr + offset)
    torch.testing.assert_close(process.weights(ALL, 5.0), expected)


def test_gamma_zero_weighs_all_alike() -> None:
    assert torch.equal(ZERO.weights(ALL, 0), torch.ones(1000))


def rescaled_by_the_paper() -> Tensor:
    """Lin et al., algorithm 1, written down in float64 from the betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * first / (first - last)) ** 2


def test_the_rescaled_schedule_is_the_papers_and_ends_in_pure_noise() -> None:
    table = ZERO.alphas_cumprod
    assert table[-1] == 0
    assert table[0] == pytest.approx(float(EPSILON.alphas_cumprod[0]), rel=1e-5)
    torch.testing.assert_close(table.double(), rescaled_by_the_paper(), rtol=2e-4, atol=1e-7)


def test_at_the_last_step_of_a_rescaled_schedule_the_input_is_noise_and_the_target_the_picture() -> None:
    last = torch.full((3,), 999)
    assert torch.equal(ZERO.noised(X, NOISE, last), NOISE)
    assert torch.equal(ZERO.target(X, NOISE, last), -X)


def test_weights_of_a_rescaled_schedule_keep_the_step_that_decides_about_brightness() -> None:
    weights = ZERO.weights(ALL, 5.0)
    snr = ZERO.alphas_cumprod / (1 - ZERO.alphas_cumprod)
    torch.testing.assert_close(weights, (snr.clamp(max=5) + 1) / (snr + 1))
    assert weights[-1] == 1


def test_predicting_the_noise_of_pure_noise_is_refused() -> None:
    with pytest.raises(BaseError, match=r"base\.prediction to v_prediction, or base\.zero_terminal_snr to false"):
        replace(ZERO, prediction="epsilon")


def test_levels_spread_evenly_and_a_draw_picks_every_timestep_alike() -> None:
    assert EPSILON.levels(4) == [125, 375, 625, 875]
    assert EPSILON.last == 999
    assert {EPSILON.timestep(draw) for draw in range(2000)} == set(range(1000))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_begins_where_a_rescaled_schedule_ends_or_is_refused(name: Scheduler) -> None:
    if SCHEDULERS[name].needs_signal:
        with pytest.raises(ConfigError, match=r"ends in pure noise .*choose one of ddim, euler, euler_a, dpm"):
            ZERO.sampler(name, 10)
        return
    sampler = ZERO.sampler(name, 10)
    assert int(sampler.timesteps[0]) == 999
    assert sampler.config.prediction_type == "v_prediction"


class Gaussian:
    """The perfect denoiser of latents that are all drawn from N(mean, spread^2): its answer in v is known exactly."""

    def __init__(self, process: Diffusion, mean: float, spread: float) -> None:
        self.table, self.mean, self.spread = process.alphas_cumprod, mean, spread

    def __call__(self, noisy: Tensor, timestep: int) -> Tensor:
        a = self.table[timestep]
        share = a.sqrt() * self.spread**2 / (a * self.spread**2 + 1 - a)
        clean = self.mean + share * (noisy - a.sqrt() * self.mean)
        noise = (noisy - a.sqrt() * clean) / (1 - a).sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * clean


@pytest.mark.parametrize("name", [name for name, row in SCHEDULERS.items() if not row.needs_signal])
def test_every_sampler_reaches_the_brightness_that_a_zero_snr_base_has_learned(name: Scheduler) -> None:
    denoise, sampler = Gaussian(ZERO, mean=1.5, spread=0.5), ZERO.sampler(name, 30)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 64, 64, generator=generator)
    latents = noise * sampler.init_noise_sigma
    extra = {"generator": generator} if SCHEDULERS[name].draws_noise else {}
    for timestep in sampler.timesteps:
        answer = denoise(sampler.scale_model_input(latents, timestep), int(timestep))
        latents = sampler.step(answer, timestep, latents, return_dict=False, **extra)[0]
    assert float(latents.mean()) == pytest.approx(1.5, abs=0.05)
    assert float(latents.std()) == pytest.approx(0.5, abs=0.1)
