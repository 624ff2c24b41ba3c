"""How a base looks at pictures: features, and how well a caption explains one. The adapters are closed meanwhile.

Shapes: P pictures, K captions, L noise levels, C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures
from trainer.judging.features import Features, coarse, layout, observed, statistics
from trainer.noise import gaussian
from trainer.preview.generate import as_before
from trainer.randomness import stable_seed

STYLE_LEVELS = (0.01, 0.05)
"""Noise levels, as shares of the schedule, at which features are taken: little noise, so that strokes are seen.

Tried on the sample styles with the bundled base: pictures of one set lie nearer to each other than to another set's
by 1.4 to 1.5 at these levels and only by 1.0 to 1.2 in the middle of the UNet or under much noise.
"""
SUBJECT_LEVELS = (0.65,)
"""Noise levels at which captions are compared: what a picture shows is decided in the middle of the schedule.

A second level, 0.45, cost as much again and picked no better ones of fifteen runs' candidates (docs/judging.md).

Tried with the bundled base and fifty captions: it tells its own pictures at every level from 0.25 to 0.65, but takes
half of those in a style of black outlines for something else at 0.25, where strokes outweigh shapes.
"""
RECALL_LEVEL = 0.9
"""Noise level at which a caption has to say alone what the picture is."""


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
        means, deviations = [], []
        with as_before(self.base, self.bank):
            self.bank.close()
            text = self.base.encode_texts([""])
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
    def caption_errors(
        self, latents: Tensor, captions: Sequence[Sequence[str]], levels: Sequence[float] = SUBJECT_LEVELS
    ) -> Tensor:
        """Squared error of each picture under each of its captions and at each noise level, (P, K, L), on the CPU.

        All captions of a picture see the same noise (Li et al., arXiv 2303.16203, section 3.2), so their differences
        are far less noisy than the errors themselves.

        Args:
            captions: for each picture, as many for one as for another.
        """
        unique = list(dict.fromkeys(caption for own in captions for caption in own))
        pairs = [
            (picture, place, unique.index(caption))
            for picture, own in enumerate(captions)
            for place, caption in enumerate(own)
        ]
        errors = torch.zeros(len(latents), len(captions[0]), len(levels))
        with as_before(self.base, self.bank):
            self.bank.close()
            texts = self.base.encode_texts(unique)
            for level, share in enumerate(levels):
                noise = self._noise(latents, f"captions {share}")
                for start in range(0, len(pairs), self.batch):
                    part = pairs[start : start + self.batch]
                    rows = [picture for picture, _, _ in part]
                    steps = self._steps(share, len(rows))
                    told = self._conditioning(latents, texts, [text for _, _, text in part])
                    with self.base.placement.ready("denoiser"):
                        found = self.base.errors(latents[rows], noise[rows], steps, told).cpu()
                    for (picture, place, _), error in zip(part, found, strict=True):
                        errors[picture, place, level] = error
        return errors

    @torch.no_grad()
    def recalled(self, latents: Sequence[Tensor], captions: Sequence[str], strengths: Tensor) -> Tensor:
        """What the base draws of captions in one step from noise that holds no picture, on `layout`'s grid: (N, D).

        It is the mean of all pictures that a caption may stand for: a blur, unless it stands for one alone.

        Args:
            latents: scaled, each (C, h, w); of them only the shape is read.
            captions: one for each.
            strengths: of the bank's adapters, (1, adapters).
        """
        parts: list[Tensor] = []
        with as_before(self.base, self.bank):
            self.bank.set_strengths(strengths)
            texts = self.base.encode_texts(captions)
            for start, group in _alike(latents, self.batch):
                shape = (len(group), *group[0].shape)
                steps = self._steps(RECALL_LEVEL, len(group))
                nothing = torch.zeros(shape, device=self.base.device)
                noise = self._noise(nothing[:1], "recall").expand(shape)
                noisy = self.base.process.noised(nothing, noise, steps)
                answer = self._predict(noisy, steps, texts, range(start, start + len(group)))
                parts.append(coarse(self._clean(noisy, answer, steps)).cpu())
        return torch.cat(parts)

    def _clean(self, noisy: Tensor, answer: Tensor, steps: Tensor) -> Tensor:
        """The picture that a prediction means, whatever the base predicts: (B, C, h, w).

        A process is linear in picture and noise, ``noisy = a x + s n`` and ``target = c x + d n``, which is solved for
        ``x``.
        """
        process = self.base.process
        one = torch.ones_like(noisy)
        none = torch.zeros_like(noisy)
        a, s = process.noised(one, none, steps), process.noised(none, one, steps)
        c, d = process.target(one, none, steps), process.target(none, one, steps)
        return (answer - d / s * noisy) / (c - d * a / s)

    @torch.no_grad()
    def predictions(self, latents: Tensor, prompts: Sequence[str], strengths: Tensor) -> Tensor:
        """Predictions for each picture with its own prompt in the middle of the schedule, (P, C, h, w).

        Args:
            strengths: of the bank's adapters, (1, adapters).
        """
        parts = []
        with as_before(self.base, self.bank):
            self.bank.set_strengths(strengths)
            texts = self.base.encode_prompts(prompts)
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


def _alike(latents: Sequence[Tensor], most: int) -> Iterator[tuple[int, Sequence[Tensor]]]:
    """Neighbours of one shape, ``most`` of them at a time, each with the index of the first."""
    start = 0
    while start < len(latents):
        end = start + 1
        while end < min(len(latents), start + most) and latents[end].shape == latents[start].shape:
            end += 1
        yield start, latents[start:end]
        start = end
