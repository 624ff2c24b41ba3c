"""The diffusion process as pure functions, and noise that depends on a counter instead of a generator's past.

Shapes: B batch, C latent channels, h x w latent cells, T training timesteps. ``alphas_cumprod`` (T,) is the signal's
share of the variance at each timestep.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.bases.registry import Prediction
from trainer.randomness import stable_seed


def gaussian(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape), fp32 on the CPU; row i depends on ``seeds[i]`` alone."""
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def uniform(*parts: int | str) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    return stable_seed(*parts) / 2**32


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The forward process: sqrt(a_t) x0 + sqrt(1 - a_t) eps, all (B, C, h, w) (Ho et al. 2020, eq. 4)."""
    signal = _per_row(alphas_cumprod, timesteps)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def prediction_target(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction: Prediction
) -> Tensor:
    """What the UNet should predict: eps, or v = sqrt(a_t) eps - sqrt(1 - a_t) x0 (Salimans and Ho 2022, section 4)."""
    if prediction == "epsilon":
        return noise
    signal = _per_row(alphas_cumprod, timesteps)
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def loss_weights(alphas_cumprod: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Min-SNR weight of each timestep, (T,): min(SNR, gamma) / SNR, for v / (SNR + 1) (Hang et al. 2023, section 3.4).

    ``gamma`` 0 weighs all alike. Where SNR is 0 (zero-terminal-SNR schedules) the weight for epsilon is its limit, 1.
    """
    if gamma == 0:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    if prediction == "epsilon":
        return torch.where(snr > 0, snr.clamp(max=gamma) / snr.clamp(min=1e-12), torch.ones_like(snr))
    return snr.clamp(max=gamma) / (snr + 1)


def _per_row(table: Tensor, timesteps: Tensor) -> Tensor:
    """``table[timesteps]`` shaped (B, 1, 1, 1)."""
    return table[timesteps].view(-1, 1, 1, 1)
