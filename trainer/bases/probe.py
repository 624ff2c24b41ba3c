"""Which prediction type and noise schedule a base was trained for, asked of the base itself: steps on pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.bases.base import Base, SizeFacts
from trainer.bases.families.family import Prediction
from trainer.bases.process import Diffusion

_SEED = 20_221_124  # any fixed number: the answer must not change from run to run
_CELLS = 32
"""Most latent cells along a side: enough values for two decimals, at a fraction of a training step's arithmetic."""
_FEW_CELLS = 16
_SHIFT = 0.05
"""Added to a channel of the noise: as much of a picture's brightness as the usual schedules leave at their end."""
_FOLLOWS, _STAYS = -0.5, -0.4
"""Of the answer's mean with the input's: at most the first where brightness is read off the noise, at least the second
where nothing is. Measured with the bundled base and the one before it, both trained on pure noise: -0.18 and -0.33;
as of the usual schedule, at the timestep that has as much noise as that ends in: -0.56 and -1.7."""


@dataclass(frozen=True)
class Probe:
    """The likelier prediction type; ``correlation`` is that of the output with the noise that went in."""

    prediction: Prediction
    correlation: float

    @property
    def note(self) -> str:
        """What to say where the files say nothing."""
        return (
            f"The checkpoint does not say whether it predicts epsilon or v. A test step on noise makes "
            f"{self.prediction} the likelier one (correlation {self.correlation:.2f}); if pictures are only noise, "
            "set base.prediction to the other."
        )

    def doubt(self, stated: Prediction) -> str | None:
        """What to say where the files or the settings say ``stated``; None where the base agrees."""
        if stated == self.prediction:
            return None
        does = "gives the noise back" if self.prediction == "epsilon" else "does not give the noise back"
        return (
            f"This base is said to predict {stated}, but on pure noise it {does} (correlation "
            f"{self.correlation:.2f}), as models do that predict {self.prediction}. If sample pictures are only noise, "
            f"stop and set base.prediction to {self.prediction}."
        )


@torch.no_grad()
def probe_prediction(base: Base) -> Probe:
    """Show the denoiser pure noise at the last timestep, without a prompt.

    There x_t = sqrt(a) x_0 + sqrt(1 - a) e is almost e alone, so an epsilon model answers with its input (correlation
    near 1), while a v model answers sqrt(a) e - sqrt(1 - a) x_0: mostly its guess of the picture.
    """
    side = min(_CELLS, base.resolution // base.vae_factor)
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(1, base.latent_channels, side, side, generator=generator)
    sizes = [SizeFacts.whole(base.resolution, base.resolution)]
    features = base.encode_texts([""]).to(base.device, base.dtype)
    last = torch.full((1,), base.process.last, device=base.device)
    with base.placement.ready("denoiser"):
        output = base.predict(noise.to(base.device), last, base.conditioning(features, sizes))
    pair = torch.stack([noise.flatten(), output.cpu().flatten()])
    correlation = float(torch.corrcoef(pair)[0, 1].nan_to_num())
    return Probe("epsilon" if correlation > 0.5 else "v_prediction", correlation)


@dataclass(frozen=True)
class ScheduleProbe:
    """How far the mean of a v model's answer to pure noise follows the noise's own mean, averaged over channels."""

    gain: float

    def doubt(self, zero_terminal_snr: bool) -> str | None:
        """What to say where the noise schedule is said to end in pure noise, or not to; None where the base agrees.

        Between the two clear answers nothing is said.
        """
        if zero_terminal_snr and self.gain < _FOLLOWS:
            return (
                "This base is said to be trained up to pure noise (zero terminal SNR), but it reads a picture's "
                f"brightness off pure noise (by {self.gain:.1f}), as models do whose schedule ends before that. If "
                "sample pictures are too dark or too bright, stop and set base.zero_terminal_snr to false."
            )
        if not zero_terminal_snr and self.gain > _STAYS:
            return (
                "This base predicts v, and its noise schedule is said to leave a trace of the picture at its end, but "
                f"it does not look for one (brightness follows the noise by {self.gain:.1f}), as models do that are "
                "trained up to pure noise. If sample pictures are grey or washed out, stop and set "
                "base.zero_terminal_snr to true."
            )
        return None


@torch.no_grad()
def probe_schedule(base: Base) -> ScheduleProbe | None:
    """Shift the mean of pure noise at the last timestep, channel by channel, and see whether the answer's mean follows.

    A usual schedule leaves sqrt(a) = 0.07 of the picture at its end, and a mean is what noise hides least: among N
    cells its own is 1 / sqrt(N). So a model that was trained there takes the mean for the picture's brightness, and v,
    there -x_0, moves against it, by sqrt(a) S / (a S + 1 / N) for means that spread by S. Where nothing was left to see
    in training, nothing of the kind was learned. Source of the effect: Lin et al., arXiv 2305.08891, section 3.

    None where the base does not predict v.
    """
    process = base.process
    if not isinstance(process, Diffusion) or process.prediction != "v_prediction":
        return None
    side, channels = min(_FEW_CELLS, base.resolution // base.vae_factor), base.latent_channels
    noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(_SEED))
    noise -= noise.mean(dim=(2, 3), keepdim=True)
    shifts = _SHIFT * torch.eye(channels)[:, :, None, None]
    rows = torch.cat([noise + shifts, noise - shifts])
    sizes = [SizeFacts.whole(base.resolution, base.resolution)] * len(rows)
    # Without a prompt, where the most is left to guess.
    features = base.encode_texts([""] * len(rows)).to(base.device, base.dtype)
    last = torch.full((len(rows),), process.last, device=base.device)
    with base.placement.ready("denoiser"):
        answer = base.predict(rows.to(base.device), last, base.conditioning(features, sizes))
    means = answer.cpu().mean(dim=(2, 3))
    moved = (means[:channels] - means[channels:]).diagonal() / (2 * _SHIFT)
    return ScheduleProbe(float(moved.mean().nan_to_num()))
