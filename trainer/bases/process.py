"""The noise process of a base: how pictures are noised in training, what is predicted, and how noise is taken away.

Shapes: B batch, C latent channels, h x w latent cells, T training timesteps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from trainer.bases.families.family import Prediction
from trainer.config.schedulers import SCHEDULERS, Scheduler, able
from trainer.errors import BaseError, ConfigError

_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


class Process(ABC):
    """What training, validation and sampling ask about noise; a timestep is a number that the base's denoiser reads."""

    @property
    @abstractmethod
    def last(self) -> float:
        """The timestep with the most noise."""

    @abstractmethod
    def timestep(self, draw: int) -> float:
        """The timestep to train on for a draw from all 32-bit numbers."""

    def noisy_timestep(self, draw: int) -> float:
        """As `timestep`, but mostly with much noise.

        Raises:
            ConfigError: this process has no such draw.
        """
        raise ConfigError("train.noise_levels is 'high', which this family of bases has no draw for: use 'even'.")

    @abstractmethod
    def levels(self, count: int) -> list[float]:
        """``count`` timesteps that are spread evenly over the process, from little noise to much."""

    @abstractmethod
    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents (B, C, h, w) at ``timesteps`` (B,) on the way to the noise."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should answer there, (B, C, h, w)."""

    def debiased(self, timesteps: Tensor) -> Tensor:
        """As `weights`, by debiased estimation.

        Raises:
            ConfigError: this process has none.
        """
        raise ConfigError("optim.debiased is not for this family of bases: set it to false.")

    @abstractmethod
    def weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Share (B,) of each squared error in the loss, with Min-SNR's ``gamma``; 0 weighs all alike."""

    @abstractmethod
    def sampler(self, name: Scheduler, steps: int) -> Any:
        """A diffusers scheduler that takes the noise away in ``steps`` steps.

        Raises:
            ConfigError: that method cannot draw with this process.
        """

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether nothing of the picture is left at the last timestep."""
        return False

    @property
    def guidance_rescale(self) -> float:
        """How far guided predictions are brought back to the spread they have without guidance, 0 to 1."""
        return 0.0


@dataclass(frozen=True)
class Diffusion(Process):
    """Variance-preserving diffusion in discrete steps (Ho et al. 2020), as Stable Diffusion 1, 2 and XL use it.

    Attributes:
        config: of the base's diffusers scheduler.
        prediction: what the denoiser answers.
        device: where the tables lie.

    Raises:
        BaseError: the schedule ends in pure noise, but the noise is what would be predicted.
    """

    config: Mapping[str, Any]
    prediction: Prediction
    device: torch.device

    def __post_init__(self) -> None:
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise BaseError(
                "The noise schedule ends in pure noise (zero terminal SNR), where predicting the noise says nothing of "
                "a picture: set base.prediction to v_prediction, or base.zero_terminal_snr to false."
            )

    @property
    def zero_terminal_snr(self) -> bool:
        return bool(self.config.get("rescale_betas_zero_snr"))

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Signal's share of the variance at each timestep, (T,), fp32; with zero terminal SNR the last is exactly 0.

        Source of the rescaling: Lin et al., arXiv 2305.08891, algorithm 1, in diffusers' scheduler.
        """
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        known = {name: self.config[name] for name in _BETAS if name in self.config}
        scheduler = DDPMScheduler(**known, rescale_betas_zero_snr=self.zero_terminal_snr)
        table: Tensor = scheduler.alphas_cumprod.float()
        return table.to(self.device)

    @property
    def last(self) -> float:
        return len(self.alphas_cumprod) - 1

    def timestep(self, draw: int) -> float:
        return draw % len(self.alphas_cumprod)

    def noisy_timestep(self, draw: int) -> float:
        """With log-SNR from a normal distribution around -6 of deviation 2 (Choi et al., arXiv 2411.14793, section 4),
        cut off where the schedule ends."""
        normal = NormalDist(-6, 2)
        table = self._log_snr
        least, most = normal.cdf(float(table[-1])), normal.cdf(float(table[0]))
        share = least + (most - least) * (draw + 0.5) / 2**32
        wanted = normal.inv_cdf(min(max(share, 1e-12), 1 - 1e-12))
        # The table falls; the first timestep that is at most as clean as wanted.
        return min(int(torch.searchsorted(-table, -wanted)), len(table) - 1)

    @cached_property
    def _log_snr(self) -> Tensor:
        """Logarithm of the signal-to-noise ratio, (T,), fp64, on the CPU; minus infinity where no signal is left."""
        signal = self.alphas_cumprod.cpu().double()
        return torch.log(signal / (1 - signal))

    def debiased(self, timesteps: Tensor) -> Tensor:
        """1 / sqrt(SNR), for v 1 / (SNR + 1), with SNR up to 1000 (Yu et al., arXiv 2310.08442; kohya's scripts)."""
        signal = self.alphas_cumprod[timesteps]
        snr = (signal / (1 - signal)).clamp(max=1000)
        return 1 / (snr + 1) if self.prediction == "v_prediction" else snr.rsqrt()

    def levels(self, count: int) -> list[float]:
        return [int((level + 0.5) * len(self.alphas_cumprod) / count) for level in range(count)]

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(a_t) x0 + sqrt(1 - a_t) eps (Ho et al. 2020, eq. 4)."""
        signal = self._signal(timesteps)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """eps, or v = sqrt(a_t) eps - sqrt(1 - a_t) x0 (Salimans and Ho 2022, section 4)."""
        if self.prediction == "epsilon":
            return noise
        signal = self._signal(timesteps)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents

    def weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Min-SNR: min(SNR, gamma) / SNR, for v min(SNR, gamma) / (SNR + 1) (Hang et al. 2023, section 3.4).

        With zero terminal SNR (min(SNR, gamma) + 1) / (SNR + 1): the paper's weight falls to 0 where the picture is
        gone, which is where such a base learns brightness and colour; this one is 1 there.
        """
        signal = self.alphas_cumprod[timesteps]
        if gamma == 0:
            return torch.ones_like(signal)
        snr = signal / (1 - signal)
        if self.prediction == "epsilon":
            # Never 0 here: the limit of the quotient is 1, but a schedule that ends in 0 is refused.
            return snr.clamp(max=gamma) / snr
        return (snr.clamp(max=gamma) + (1 if self.zero_terminal_snr else 0)) / (snr + 1)

    def sampler(self, name: Scheduler, steps: int) -> Any:
        scheduler = self.scheduler(name)
        scheduler.set_timesteps(steps, device=self.device)
        if hasattr(scheduler, "set_begin_index"):
            # Steps near pure noise may round to one timestep, where a search for its place finds the wrong one.
            scheduler.set_begin_index(0)
        return scheduler

    def scheduler(self, name: Scheduler) -> Any:
        """As `sampler`, for a pipeline that sets the number of steps itself."""
        import diffusers

        row = SCHEDULERS[name]
        # Latents leave [-1, 1], where diffusers clips unless it is told otherwise.
        config = {"clip_sample": False, **self.config, "prediction_type": self.prediction}
        if self.zero_terminal_snr:
            if row.needs_signal:
                working = ", ".join(able(zero_terminal_snr=True))
                raise ConfigError(
                    f"The scheduler {name!r} {row.needs_signal}, and this base's noise schedule ends in pure noise "
                    f"(zero terminal SNR): choose one of {working}."
                )
            # Any other spacing leaves out the last timestep, the only one that decides about brightness.
            config["timestep_spacing"] = "trailing"
        return getattr(diffusers, row.class_name).from_config(config, **row.options)

    @property
    def guidance_rescale(self) -> float:
        # The paper's value, section 3.4; without it guidance overexposes once brightness is free.
        return 0.7 if self.zero_terminal_snr else 0.0

    def _signal(self, timesteps: Tensor) -> Tensor:
        """The table at ``timesteps``, shaped (B, 1, 1, 1)."""
        return self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
