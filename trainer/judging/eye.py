"""How a base looks at pictures: features, and how well a caption explains one. The adapters are closed meanwhile.

Shapes: P pictures, K captions, L noise levels, C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures
from trainer.judging.features import Features, layout, observed, statistics
from trainer.noise import gaussian
from trainer.preview.generate import as_before
from trainer.randomness import stable_seed

STYLE_LEVELS = (0.01, 0.05)
"""Noise levels, as shares of the schedule, at which features are taken: little noise, so that strokes are seen.

Tried on the sample styles with the bundled base: pictures of one set lie nearer to each other than to another set's
by 1.4 to 1.5 at these levels and only by 1.0 to 1.2 in the middle of the UNet or under much noise.
"""
SUBJECT_LEVELS = (0.35, 0.6)
"""Noise levels at which captions are compared: what a picture shows is decided in the middle of the schedule."""


class Eye:
    """A base that looks; its adapters count for nothing while it does.

    Args:
        base: the frozen base.
        bank: the bank on it; its strengths, training mode and random state are as before after every call.
        batch: most pictures in one forward pass.
    """

    def __init__(self, base: Base, bank: Bank, *, batch: int = 8) -> None:
        self.base, self.bank, self.batch = base, bank, batch

    @torch.no_grad()
    def features(self, latents: Tensor) -> Features:
        """`Features` of pictures, given as scaled latents (P, C, h, w)."""
        layers = self.base.style_layers
        text = self.base.encode_texts([""])
        means, deviations = [], []
        with as_before(self.base, self.bank):
            self.bank.close()
            for share in STYLE_LEVELS:
                parts = []
                for part in latents.split(self.batch):
                    with observed(layers) as seen:
                        # One noise for all: two pictures then differ by themselves alone.
                        noise = self._noise(part[:1], f"features {share}").expand_as(part)
                        steps = self._steps(share, len(part))
                        self._predict(self.base.process.noised(part, noise, steps), steps, text, [0] * len(part))
                        parts.append(statistics(seen))
                means.append(torch.cat([mean for mean, _ in parts]))
                deviations.append(torch.cat([deviation for _, deviation in parts]))
        return Features(torch.cat(means, dim=1).cpu(), torch.cat(deviations, dim=1).cpu(), layout(latents).cpu())

    @torch.no_grad()
    def caption_errors(self, latents: Tensor, captions: Sequence[str]) -> Tensor:
        """Squared error of each picture under each caption and noise level, (P, K, L), on the CPU.

        All captions of a picture see the same noise (Li et al., arXiv 2303.16203, section 3.2), so their differences
        are far less noisy than the errors themselves.
        """
        texts = self.base.encode_texts(captions)
        count, kinds = len(latents), len(captions)
        errors = torch.zeros(count, kinds, len(SUBJECT_LEVELS))
        pairs = [(picture, caption) for picture in range(count) for caption in range(kinds)]
        with as_before(self.base, self.bank):
            self.bank.close()
            for level, share in enumerate(SUBJECT_LEVELS):
                noise = self._noise(latents, f"captions {share}")
                for start in range(0, len(pairs), self.batch):
                    part = pairs[start : start + self.batch]
                    rows = [picture for picture, _ in part]
                    steps = self._steps(share, len(rows))
                    told = self._conditioning(latents, texts, [caption for _, caption in part])
                    with self.base.placement.ready("denoiser"):
                        found = self.base.errors(latents[rows], noise[rows], steps, told).cpu()
                    for (picture, caption), error in zip(part, found, strict=True):
                        errors[picture, caption, level] = error
        return errors

    @torch.no_grad()
    def predictions(self, latents: Tensor, prompts: Sequence[str], strengths: Tensor) -> Tensor:
        """Predictions for each picture with its own prompt in the middle of the schedule, (P, C, h, w).

        Args:
            strengths: of the bank's adapters, (1, adapters).
        """
        texts = self.base.encode_prompts(prompts)
        parts = []
        with as_before(self.base, self.bank):
            self.bank.set_strengths(strengths)
            for start in range(0, len(latents), self.batch):
                rows = list(range(start, min(start + self.batch, len(latents))))
                steps = self._steps(0.5, len(rows))
                noise = self._noise(latents[rows], "predictions", start)
                noisy = self.base.process.noised(latents[rows], noise, steps)
                parts.append(self._predict(noisy, steps, texts, rows))
        return torch.cat(parts)

    def _steps(self, share: float, rows: int) -> Tensor:
        """The timestep at a share of the process's noise, for so many rows: (rows,)."""
        levels = self.base.process.levels(100)
        return torch.tensor([levels[round(share * (len(levels) - 1))]] * rows, device=self.base.device)

    def _noise(self, latents: Tensor, purpose: str, first: int = 0) -> Tensor:
        seeds = [stable_seed("judging", purpose, first + row) for row in range(len(latents))]
        return gaussian(latents.shape[1:], seeds).to(latents.device)

    def _conditioning(self, latents: Tensor, texts: TextFeatures, rows: Sequence[int]) -> Conditioning:
        factor = self.base.vae_factor
        size = SizeFacts.whole(latents.shape[-1] * factor, latents.shape[-2] * factor)
        features = texts.rows(list(rows)).to(self.base.device, self.base.dtype)
        return self.base.conditioning(features, [size] * len(rows))

    def _predict(self, noisy: Tensor, steps: Tensor, texts: TextFeatures, rows: Sequence[int]) -> Tensor:
        with self.base.placement.ready("denoiser"):
            return self.base.predict(noisy, steps, self._conditioning(noisy, texts, rows))
