"""Give an autoencoder one more level at the pixels' end, so that it carries images of twice the side.

The grown autoencoder makes latents of the same size out of four times as many pixels. Trained to keep them where
they were (`latents_of` shows where that is), it goes with the UNet that learnt the old ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.base.sizes import Size, new_autoencoder

NOISE = 0.15
"""Standard deviation of a new autoencoder's drawn latents, against that of the latents themselves.

Small enough that it need not blur, large enough that the decoder puts up with a UNet's errors."""


def levels(vae: Any) -> int:
    """Levels of an ``AutoencoderKL``; each after the first halves the side."""
    return len(vae.config.block_out_channels)


def grown(vae: Any, size: Size) -> Any:
    """A new autoencoder of ``size`` that has the weights of ``vae``, which has one level less, where they fit.

    The level at the pixels' end and what touches it is new; posteriors are as narrow as `NOISE` says.

    Raises:
        ValueError: ``size`` is not ``vae`` with one narrower or equally wide level before the others.
    """
    if tuple(size.autoencoder_channels[1:]) != tuple(vae.config.block_out_channels):
        raise ValueError(f"{tuple(vae.config.block_out_channels)} does not grow into {size.autoencoder_channels}")
    made = new_autoencoder(size)
    weights = made.state_dict()
    for name, weight in vae.state_dict().items():
        place = _place(name)
        if place in weights and weights[place].shape == weight.shape:
            weights[place] = weight
    latents = vae.config.latent_channels
    weights["quant_conv.weight"][latents:] = 0
    weights["quant_conv.bias"][latents:] = 2 * math.log(NOISE / vae.config.scaling_factor)
    made.load_state_dict(weights)
    made.register_to_config(scaling_factor=vae.config.scaling_factor)
    return made


def _place(name: str) -> str:
    """Where a weight of the smaller autoencoder stands in the grown one."""
    part, *rest = name.split(".")
    if part == "encoder" and rest[0] == "down_blocks":
        return ".".join((part, rest[0], str(int(rest[1]) + 1), *rest[2:]))
    return name


@torch.no_grad()
def latents_of(vae: Any, images: Tensor, side: int) -> Tensor:
    """Scaled latents (the posterior's means) of ``side`` x ``side`` that an autoencoder makes of images.

    ``images``: (B, 3, H, W) in [-1, 1]; they are reduced first where ``vae`` has fewer levels than H asks for.
    """
    factor = images.shape[-1] // (side * 2 ** (levels(vae) - 1))
    reduced = F.avg_pool2d(images, factor) if factor > 1 else images
    latents: Tensor = vae.encode(reduced).latent_dist.mean * vae.config.scaling_factor
    return latents
