"""Train the text model and the UNet together on latents that live on the device.

Latents are encoded once; captions are drawn from a table of tokens; noise, timesteps and images are drawn on
the device. On CUDA the step is compiled, runs in bfloat16, and asks the host for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tools.base.dataset import IconData
from tools.base.device import precision, to_pixels
from tools.base.diffusion import MADE_UP_SHARE, CaptionTable, alphas_cumprod, draw_indices, errors, min_snr_weights
from tools.base.learner import Learner
from tools.base.model_folder import Model

CAPTION_DROPOUT = 0.1


@torch.no_grad()
def encode(model: Model, data: IconData, *, batch: int = 64) -> Tensor:
    """Scaled latents (the posterior's means) of all images, on the model's device: (N, 4, H, W), fp32."""
    latents = []
    for start in range(0, len(data.images), batch):
        pixels = to_pixels(data.images[start : start + batch], model.device)
        latents.append(model.vae.encode(pixels).latent_dist.mean.float() * model.vae.config.scaling_factor)
    return torch.cat(latents)


@dataclass
class TextToImage:
    """Everything one step needs, on one device."""

    model: Model
    latents: Tensor
    captions: CaptionTable
    cumulative: Tensor
    batch: int
    noise_offset: float = 0.0
    """Standard deviation of a shift of each noise channel as a whole."""
    made_up: float = MADE_UP_SHARE
    """Share of captions that end with a made-up style."""
    errors: Callable[..., Tensor] = errors

    def __post_init__(self) -> None:
        self.alphas = alphas_cumprod(self.model.scheduler).to(self.latents.device)
        weights = min_snr_weights(self.alphas, self.model.prediction).double()
        # Timesteps that count little are drawn seldom instead: the same loss on average, and no step wasted on them.
        self.timesteps = (weights.cumsum(0) / weights.sum()).float()

    @classmethod
    def of(
        cls,
        model: Model,
        data: IconData,
        *,
        batch: int,
        noise_offset: float = 0.0,
        made_up: float = MADE_UP_SHARE,
    ) -> TextToImage:
        """Prepare training on a data set: every image of it is encoded now."""
        weight = torch.tensor([entry.weight for entry in data.entries], dtype=torch.float64)
        cumulative = (weight.cumsum(0) / weight.sum()).float().to(model.device)
        latents = encode(model, data)
        captions = CaptionTable.of(data.entries, model.tokenizer, model.device)
        # The caption's embeddings and the noise prediction compile into one graph; it has one shape.
        compiled = torch.compile(errors, dynamic=False) if model.device.type == "cuda" else errors
        return cls(model, latents, captions, cumulative, batch, noise_offset, made_up, compiled)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """The loss of one batch, its timesteps drawn by how much they count (Min-SNR)."""
        device = self.latents.device
        images = draw_indices(self.cumulative, self.batch, generator)
        tokens = self.captions.draw(images, generator, dropout=CAPTION_DROPOUT, made_up=self.made_up)
        x0 = self.latents[images]
        noise = torch.randn(x0.shape, generator=generator, device=device)
        if self.noise_offset:
            noise += self.noise_offset * torch.randn(*x0.shape[:2], 1, 1, generator=generator, device=device)
        t = draw_indices(self.timesteps, self.batch, generator)
        with precision(device):
            found = self.errors(
                self.model.unet, self.model.text_encoder, x0, tokens, noise, t, self.alphas, self.model.prediction
            )
        return found.mean()

    def learner(self, folder: Path, *, seconds: float, rate: float | None, seed: int) -> Learner:
        """The learner of the model's text encoder and UNet; its highest rate is 1e-3 unless told otherwise."""
        self.model.vae.requires_grad_(False)
        return Learner(
            folder=folder,
            modules={"unet": self.model.unet.train(), "text_encoder": self.model.text_encoder.train()},
            total_seconds=seconds,
            peak=rate or 1e-3,
            # Some tenth of a short training on a CPU; a thousand steps of a long one.
            decay=0.998 if self.model.device.type == "cpu" else 0.999,
            seed=seed,
            batch=self.batch,
        )
