"""Train the autoencoder: images that live on the device, a loss that keeps edges crisp, and the latents' scale.

`Decoder` trains the decoder alone: the latents stay exactly where they are, so that a UNet that has learnt them is not
disturbed, and pictures get crisper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.base.dataset import IconData
from tools.base.device import precision, to_pixels
from tools.base.grow import latents_of, levels
from tools.base.learner import Learner
from tools.base.model_folder import Model

KL_WEIGHT = 2e-5
"""Per latent element: enough to keep the latents near a normal distribution, too little to blur."""
EDGE_WEIGHT = 1.0
LATENT_ERROR = 0.1
"""Largest standard deviation of what `Decoder` adds to latents of unit deviation."""
TIE_WEIGHT = 0.2
"""Of the squared distance between scaled latents and those to keep to: 3% of a variance cost a tenth of the rest."""


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours, across and down. ``images``: (B, 3, H, W)."""
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(restored: Tensor, images: Tensor) -> Tensor:
    """L1 and squared error of colours, and L1 of their differences between neighbours.

    Squared error is what PSNR counts; L1 keeps flat fields flat; the differences are what a blurred edge
    gets wrong. All images in [-1, 1], (B, 3, H, W).
    """
    error = restored - images
    across, down = edges(error)
    return error.abs().mean() + error.square().mean() + EDGE_WEIGHT * (across.abs().mean() + down.abs().mean())


def autoencoder_loss(vae: Any, images: Tensor, noise: Tensor, wanted: Tensor | None) -> Tensor:
    """Loss of one batch, with the latent drawn by ``noise``.

    ``images``: (B, 3, H, W); ``noise``: (B, 4, h, w); ``wanted``: scaled latents to keep to, (B, 4, h, w), if any.
    """
    moments = vae.quant_conv(vae.encoder(images))
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    latent = mean + (0.5 * log_variance).exp() * noise
    restored = vae.decoder(vae.post_quant_conv(latent))
    kl = 0.5 * (mean.float().square() + log_variance.float().exp() - 1 - log_variance.float()).mean()
    loss = reconstruction_loss(restored.float(), images.float()) + KL_WEIGHT * kl
    if wanted is not None:
        loss = loss + TIE_WEIGHT * F.mse_loss(mean.float() * vae.config.scaling_factor, wanted.float())
    return loss


def decoder_loss(vae: Any, images: Tensor, latents: Tensor) -> Tensor:
    """Loss of decoding ``latents`` (B, 4, h, w), not scaled, into ``images`` (B, 3, H, W)."""
    restored = vae.decoder(vae.post_quant_conv(latents))
    return reconstruction_loss(restored.float(), images.float())


@dataclass
class Autoencoder:
    """Everything one step needs, on one device."""

    vae: Any
    images: Tensor
    """All images, (N, 3, H, W), uint8."""
    batch: int
    loss: Callable[..., Tensor]
    keep_to: Any | None
    """An autoencoder whose latents to keep to, so that a UNet that has learnt them stays of use."""

    @classmethod
    def of(cls, model: Model, data: IconData, *, batch: int, keep_to: Any | None = None) -> Autoencoder:
        """Prepare training on a data set."""
        images = torch.from_numpy(data.images).to(model.device).permute(0, 3, 1, 2).contiguous()
        compiled = model.device.type == "cuda"
        loss = torch.compile(autoencoder_loss, dynamic=False) if compiled else autoencoder_loss
        return cls(model.vae, images, batch, loss, keep_to and keep_to.to(model.device))

    def __call__(self, generator: torch.Generator) -> Tensor:
        """The loss of one batch of varied icons."""
        device = self.images.device
        rows = torch.randint(0, len(self.images), (self.batch,), generator=generator, device=device)
        images = varied(self.images[rows].float().div_(127.5).sub_(1), generator)
        side = images.shape[-1] // 2 ** (levels(self.vae) - 1)
        noise = torch.randn(self.batch, 4, side, side, generator=generator, device=device)
        with precision(device):
            wanted = latents_of(self.keep_to, images, side) if self.keep_to else None
            return self.loss(self.vae, images, noise, wanted)

    def learner(self, folder: Path, *, seconds: float, rate: float | None, seed: int) -> Learner:
        """The learner of the model's autoencoder; its highest rate is 6e-4 unless told otherwise."""
        return Learner(
            folder=folder,
            modules={"vae": self.vae.train()},
            total_seconds=seconds,
            peak=rate or 6e-4,
            decay=0.999,
            seed=seed,
            batch=self.batch,
        )


@dataclass
class Decoder:
    """Everything one step of training the decoder alone needs, on one device."""

    vae: Any
    images: Tensor
    """All images, (N, 3, H, W), uint8."""
    batch: int

    @classmethod
    def of(cls, model: Model, data: IconData, *, batch: int) -> Decoder:
        """Prepare training on a data set; the encoder and the latents' distribution are frozen."""
        images = torch.from_numpy(data.images).to(model.device).permute(0, 3, 1, 2).contiguous()
        model.vae.requires_grad_(False)
        for part in (model.vae.decoder, model.vae.post_quant_conv):
            part.requires_grad_(True)
        return cls(model.vae, images, batch)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """The loss of one batch of varied icons, their latents shifted by up to `LATENT_ERROR` as a UNet might."""
        device = self.images.device
        rows = torch.randint(0, len(self.images), (self.batch,), generator=generator, device=device)
        images = varied(self.images[rows].float().div_(127.5).sub_(1), generator)
        with precision(device):
            with torch.no_grad():
                latents = self.vae.encode(images).latent_dist.mean
            spread = LATENT_ERROR / self.vae.config.scaling_factor
            size = spread * torch.rand(len(rows), 1, 1, 1, generator=generator, device=device)
            noise = torch.randn(latents.shape, generator=generator, device=device)
            return decoder_loss(self.vae, images, latents + size * noise)

    def learner(self, folder: Path, *, seconds: float, rate: float | None, seed: int) -> Learner:
        """The learner of the model's decoder; its highest rate is 4e-4 unless told otherwise."""
        return Learner(
            folder=folder,
            modules={"vae": self.vae.train()},
            total_seconds=seconds,
            peak=rate or 4e-4,
            decay=0.995,
            seed=seed,
            batch=self.batch,
        )


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of a batch mirrored, a fifth with its colour channels turned round, (B, 3, H, W).

    An autoencoder for styles must carry colours that no icon has; white ground stays white.
    """
    uniform = torch.rand(2, len(images), 1, 1, 1, generator=generator, device=images.device)
    images = torch.where(uniform[0] < 0.5, images, images.flip(-1))
    return torch.where(uniform[1] < 0.8, images, images.roll(1, dims=1))


@torch.no_grad()
def set_scaling(model: Model, data: IconData, *, count: int = 1024) -> float:
    """Set the scaling factor that gives latents unit standard deviation, from evenly spaced images; return it."""
    rows = torch.linspace(0, len(data.images) - 1, min(count, len(data.images))).long()
    latents = [
        model.vae.encode(to_pixels(data.images[part.numpy()], model.device)).latent_dist.mean.float()
        for part in rows.split(64)
    ]
    factor = 1.0 / float(torch.cat(latents).std())
    model.vae.register_to_config(scaling_factor=factor)
    return factor
