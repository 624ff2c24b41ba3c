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
from tools.base.sizes import MAX_TOKENS

GAMMA = 5.0
"""Of Min-SNR weighting (Hang et al., arXiv 2303.09556)."""
MADE_UP_SHARE = 0.1
"""Of the captions: those that end with a style nobody has heard of."""
MADE_UP_TOKENS = 5
"""Most tokens of the words that call such a style."""


def alphas_cumprod(scheduler: dict[str, Any]) -> Tensor:
    """Products of ``1 - beta``: (1000,), fp32. ``scheduler``: the configuration of diffusers' scheduler.

    With ``rescale_betas_zero_snr`` their square roots are shifted and stretched so that the last is 0 and the first
    stays (Lin et al., arXiv 2305.08891, algorithm 1).
    """
    ends = (scheduler["beta_start"] ** 0.5, scheduler["beta_end"] ** 0.5)
    betas = torch.linspace(*ends, scheduler["num_train_timesteps"], dtype=torch.float64).square()
    alphas = torch.cumprod(1 - betas, dim=0)
    if scheduler.get("rescale_betas_zero_snr"):
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    return alphas.float()


def min_snr_weights(alphas: Tensor, prediction: str) -> Tensor:
    """How much each timestep's error counts: fully where noise prevails, little where hardly any is.

    For epsilon ``min(SNR, gamma) / SNR``. For v ``(min(SNR, gamma) + 1) / (SNR + 1)``: an error of v counts
    ``SNR + 1`` times that of the image, so that the last step of a schedule with zero terminal SNR counts fully.
    """
    snr = alphas / (1 - alphas)
    if prediction == "v_prediction":
        return (snr.clamp(max=GAMMA) + 1) / (snr + 1)
    return snr.clamp(max=GAMMA) / snr


def noised(x0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """``sqrt(alpha) x0 + sqrt(1 - alpha) noise``. ``x0``, ``noise``: (B, C, H, W); ``alpha``: (B,)."""
    a = alpha.view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def target(x0: Tensor, noise: Tensor, alpha: Tensor, prediction: str) -> Tensor:
    """What the UNet learns to answer: the noise, or v (Salimans & Ho, arXiv 2202.00512). Shapes as in `noised`."""
    if prediction == "v_prediction":
        a = alpha.view(-1, 1, 1, 1)
        return a.sqrt() * noise - (1 - a).sqrt() * x0
    return noise


def errors(
    unet: Any, text_encoder: Any, x0: Tensor, tokens: Tensor, noise: Tensor, t: Tensor, alphas: Tensor, prediction: str
) -> Tensor:
    """Mean squared error of the UNet's answer for each sample: (B,), fp32. ``tokens``: (B, L); ``t``: (B,)."""
    context = text_encoder(input_ids=tokens).last_hidden_state
    answer = unet(noised(x0, noise, alphas[t]), t, encoder_hidden_states=context, return_dict=False)[0]
    wanted = target(x0, noise, alphas[t], prediction)
    return F.mse_loss(answer.float(), wanted.float(), reduction="none").mean(dim=(1, 2, 3))


def with_article(text: str) -> str:
    """``a fox``, ``an owl``."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Captions as (N, L) token ids, padded and cut to L."""
    ids = tokenizer(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.long)


@dataclass(frozen=True)
class CaptionTable:
    """All captions of all images as tokens on one device, so that drawing them needs no host.

    Row 0 of ``tokens`` (rows, L) is the empty caption; image i owns ``count[i]`` rows from ``first[i]`` on: its
    first caption twice, each other once, and all of that twice without the style word and once with it, because
    people seldom write one; once an article stands before the first. What is always called by its style has these rows
    alone.
    """

    tokens: Tensor
    first: Tensor
    count: Tensor
    named: Tensor
    """Whether the image is always called by its style (N,)."""
    end: int
    """The token that ends a caption and fills what is left."""
    comma: int
    """The token between subject and style."""
    style: int
    """The token of the word ``style``."""
    vocabulary: int
    """Number of tokens; those after ``end`` are words and parts of words."""

    @classmethod
    def of(cls, entries: Sequence[Entry], tokenizer: Any, device: torch.device) -> CaptionTable:
        """The table of a data set's entries."""
        texts, first, count = [""], [], []
        for entry in entries:
            names = (entry.captions[0], *entry.captions)
            styled = (entry.styled_captions[0], *entry.styled_captions)
            rows = styled if entry.named else (*names, *names, with_article(entry.captions[0]), *styled)
            first.append(len(texts))
            texts.extend(rows)
            count.append(len(rows))
        as_tensor = torch.tensor
        return cls(
            tokenize(tokenizer, texts).to(device),
            as_tensor(first, device=device),
            as_tensor(count, device=device),
            as_tensor([entry.named for entry in entries], device=device),
            end=tokenizer.eos_token_id,
            comma=tokenizer(",").input_ids[1],
            style=tokenizer("style").input_ids[1],
            vocabulary=len(tokenizer),
        )

    def draw(self, images: Tensor, generator: torch.Generator, *, dropout: float, made_up: float = 0.0) -> Tensor:
        """A caption for each image index (B,): (B, L).

        Args:
            dropout: share of empty captions, among what is not always called by its style; as for ``made_up``.
            made_up: share of the others that end with a made-up style, see `with_made_up_styles`.
        """
        uniform = torch.rand(3, len(images), generator=generator, device=images.device)
        rows = self.first[images] + (uniform[0] * self.count[images]).long()
        tokens, own = self.tokens[rows], ~self.named[images]
        empty = own & (uniform[1] < dropout)
        tokens = torch.where(
            (own & (uniform[2] < made_up))[:, None], self.with_made_up_styles(tokens, generator), tokens
        )
        return torch.where(empty[:, None], self.tokens[0], tokens)

    def with_made_up_styles(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Captions (B, L) with a style of one to `MADE_UP_TOKENS` drawn tokens, instead of their own or of none.

        The words that call a new style mean nothing to the base. Unless it has learnt to pass over such words, they
        spoil the subject before an adapter has changed anything.
        """
        count, length = tokens.shape
        place = torch.arange(length, device=tokens.device)
        comma = ((tokens == self.comma) | (tokens == self.end)).int().argmax(dim=1, keepdim=True)
        drawn = torch.randint(0, MADE_UP_TOKENS, (count, 1), generator=generator, device=tokens.device) + 1
        shape = (count, length)
        words = torch.randint(self.end + 1, self.vocabulary, shape, generator=generator, device=tokens.device)
        after = place - comma
        words = words.where(after <= drawn, self.style).where(after <= drawn + 1, self.end)
        return tokens.where(after < 0, words.where(after > 0, self.comma))


def draw_indices(cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` image indices by weight, with replacement. ``cumulative``: running sum of weights, ends at 1."""
    uniform = torch.rand(count, generator=generator, device=cumulative.device)
    return torch.searchsorted(cumulative, uniform).clamp(max=len(cumulative) - 1)
