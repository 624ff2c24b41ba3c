"""Which prediction type a base was trained for, asked of the base itself: one step on pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.bases.base import Base, SizeFacts
from trainer.bases.registry import Prediction

_SEED = 20_221_124  # any fixed number: the answer must not change from run to run
_ROWS = 4


@dataclass(frozen=True)
class Probe:
    """The likelier prediction type; ``correlation`` is that of the output with the noise that went in."""

    prediction: Prediction
    correlation: float

    @property
    def note(self) -> str:
        return (
            f"The checkpoint does not say whether it predicts epsilon or v. A test step on noise makes "
            f"{self.prediction} the likelier one (correlation {self.correlation:.2f}); if pictures are only noise, "
            "set base.prediction to the other."
        )


@torch.no_grad()
def probe_prediction(base: Base) -> Probe:
    """Show the UNet pure noise at the last timestep, without a prompt.

    There x_t = sqrt(a) x_0 + sqrt(1 - a) e is almost e alone, so an epsilon model answers with its input (correlation
    near 1), while a v model answers sqrt(a) e - sqrt(1 - a) x_0: mostly its guess of the picture.
    """
    side = int(base.unet.config.sample_size)
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(_ROWS, base.latent_channels, side, side, generator=generator)
    pixels = (side * base.vae_factor,) * 2
    sizes = [SizeFacts(original=pixels, crop=(0, 0), target=pixels)] * _ROWS
    features = base.encode_texts([""] * _ROWS).to(base.device, base.dtype)
    last = len(base.alphas_cumprod) - 1
    with base.placement.ready("unet"):
        output = base.unet(
            noise.to(base.device, base.dtype), last, **base.conditioning(features, sizes), return_dict=False
        )[0]
    pair = torch.stack([noise.flatten(), output.float().cpu().flatten()])
    correlation = float(torch.corrcoef(pair)[0, 1].nan_to_num())
    return Probe("epsilon" if correlation > 0.5 else "v_prediction", correlation)
