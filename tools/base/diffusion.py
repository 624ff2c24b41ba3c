"""The mathematics of training the base: the noise schedule, the loss, and where captions come from.

Shapes: B batch, C = 4 latent channels, H and W the latent's sides, L = 16 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.base.dataset import Entry
from tools.base.sizes import MAX_TOKENS, scheduler_config

GAMMA = 5.0
"""Of Min-SNR weighting (Hang et al., arXiv 2303.09556)."""


def alphas_cumprod() -> Tensor:
    """Products of ``1 - beta``: (1000,), fp32."""
    config = scheduler_config()
    root = torch.linspace(
        config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, config["num_train_timesteps"], dtype=torch.float64
    )
    return torch.cumprod(1 - root**2, dim=0).float()


def min_snr_weights(alphas: Tensor) -> Tensor:
    """``min(SNR, gamma) / SNR`` for each timestep, for epsilon prediction."""
    snr = alphas / (1 - alphas)
    return snr.clamp(max=GAMMA) / snr


def noised(x0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """``sqrt(alpha) x0 + sqrt(1 - alpha) noise``. ``x0``, ``noise``: (B, C, H, W); ``alpha``: (B,)."""
    a = alpha.view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def epsilon_errors(
    unet: Any, text_encoder: Any, x0: Tensor, tokens: Tensor, noise: Tensor, t: Tensor, alphas: Tensor
) -> Tensor:
    """Mean squared error of the predicted noise for each sample: (B,), fp32. ``tokens``: (B, L); ``t``: (B,)."""
    context = text_encoder(input_ids=tokens).last_hidden_state
    predicted = unet(noised(x0, noise, alphas[t]), t, encoder_hidden_states=context, return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Captions as (N, L) token ids, padded and cut to L."""
    ids = tokenizer(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.long)


@dataclass(frozen=True)
class CaptionTable:
    """All captions of all images as tokens on one device, so that drawing them needs no host.

    Row 0 of ``tokens`` (rows, L) is the empty caption; image i owns ``count[i]`` rows from ``first[i]`` on: its
    own name twice, each synonym once, each with and without the style word.
    """

    tokens: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, entries: Sequence[Entry], tokenizer: Any, device: torch.device) -> CaptionTable:
        """The table of a data set's entries."""
        texts, first, count = [""], [], []
        for entry in entries:
            names = (entry.captions[0], *entry.captions)
            styled = (entry.styled_captions[0], *entry.styled_captions)
            first.append(len(texts))
            texts.extend((*names, *styled))
            count.append(len(names) + len(styled))
        as_tensor = torch.tensor
        return cls(
            tokenize(tokenizer, texts).to(device),
            as_tensor(first, device=device),
            as_tensor(count, device=device),
        )

    def draw(self, images: Tensor, generator: torch.Generator, *, dropout: float) -> Tensor:
        """A caption for each image index (B,), empty with probability ``dropout``: (B, L)."""
        uniform = torch.rand(2, len(images), generator=generator, device=images.device)
        rows = self.first[images] + (uniform[0] * self.count[images]).long()
        return self.tokens[torch.where(uniform[1] < dropout, 0, rows)]


def draw_indices(cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` image indices by weight, with replacement. ``cumulative``: running sum of weights, ends at 1."""
    uniform = torch.rand(count, generator=generator, device=cumulative.device)
    return torch.searchsorted(cumulative, uniform).clamp(max=len(cumulative) - 1)
