"""Which prediction type a base was trained for, asked of the base itself: one step on pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.bases.base import Base, SizeFacts
from trainer.bases.families.family import Prediction

_SEED = 20_221_124  # any fixed number: the answer must not change from run to run
_CELLS = 32
"""Most latent cells along a side: enough values for two decimals, at a fraction of a training step's arithmetic."""


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
