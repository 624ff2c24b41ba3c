"""How well are images explained? Loss with noise that never changes: of held-out images, and of those trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from trainer.bases.base import Base, TextFeatures
from trainer.randomness import permutation, stable_seed
from trainer.training.batches import Batches, TrainingImage
from trainer.training.loop import Trainer
from trainer.training.texts import LiveTexts

LEVELS = 8
Grid = tuple[tuple[float, ...], ...]


def held_out(count: int, share: float, seed: int) -> list[int]:
    """Which of ``count`` images are kept out of training, ascending: none for a share of 0, else at least one.

    At least one image is always left to train on.
    """
    if share == 0 or count < 2:
        return []
    wanted = max(1, min(count - 1, round(share * count)))
    return sorted(permutation(count, seed, "held out")[:wanted])


@dataclass(frozen=True)
class Losses:
    """Mean squared errors, by noise level and image: with the adapter at strength 1, and of the base alone."""

    styled: Grid
    plain: Grid

    @property
    def style(self) -> float:
        """Mean with the adapter."""
        return _mean(self.styled)

    @property
    def base(self) -> float:
        """Mean of the base alone."""
        return _mean(self.plain)

    @property
    def gain(self) -> float:
        """Share of the base's loss that the style took away."""
        return _gain(self.style, self.base)

    @property
    def by_level(self) -> tuple[float, ...]:
        """That share at each noise level, from the least noise to the most: a mean hides where a style is learned."""
        return tuple(_gain(fmean(mine), fmean(bases)) for mine, bases in zip(self.styled, self.plain, strict=True))

    @property
    def by_image(self) -> tuple[float, ...]:
        """That share for each image."""
        images = zip(zip(*self.styled, strict=True), zip(*self.plain, strict=True), strict=True)
        return tuple(_gain(fmean(mine), fmean(bases)) for mine, bases in images)


def _mean(grid: Grid) -> float:
    return fmean(value for level in grid for value in level)


def _gain(style: float, base: float) -> float:
    return 1 - style / base if base else 0.0


class Validation:
    """A fixed grid of (image, timestep, noise): every image at a few evenly spread noise levels.

    Args:
        base: what is measured.
        images: what it is measured on.
        features: text features as in `Batches`.
        seed: the run's seed; the grid depends on nothing else.
        batch_size: images in a forward pass.
        levels: how many noise levels.
    """

    def __init__(
        self,
        base: Base,
        images: Sequence[TrainingImage],
        features: TextFeatures,
        *,
        seed: int,
        batch_size: int = 8,
        levels: int = LEVELS,
    ) -> None:
        self.base = base
        self.batches = Batches(base, images, features, batch_size=1, seed=stable_seed(seed, "validation"))
        self.members = _by_shape(images, batch_size)
        self.features = features
        self.levels = base.process.levels(levels)
        self._plain: Grid | None = None

    @property
    def passes(self) -> int:
        """Rows through the denoiser that a measurement takes."""
        return len(self.levels) * sum(len(members) for members in self.members)

    def measure(self, trainer: Trainer) -> Losses:
        """Loss now, and the base's (computed once). Gates, training mode and random state are left as they were."""
        from trainer.preview.generate import as_before

        # An adapter that changes what the text encoders say is not measured with what they said before.
        theirs = trainer.batches.features
        self.batches.features = theirs if isinstance(theirs, LiveTexts) else self.features
        with as_before(self.base, trainer.bank), torch.no_grad():
            if self._plain is None:
                trainer.bank.close()
                self._plain = self._errors()
            trainer.bank.set_strengths({trainer.style: 1.0})
            return Losses(self._errors(), self._plain)

    def _errors(self) -> Grid:
        found = torch.zeros(len(self.levels), sum(len(members) for members in self.members), dtype=torch.float64)
        for level, timestep in enumerate(self.levels):
            for group, members in enumerate(self.members):
                batch = self.batches.compose(members, level * 1000 + group)
                batch = replace(batch, timesteps=torch.full_like(batch.timesteps, timestep))
                found[level, members] = self.base.errors(*batch.inputs).cpu().double()
        return tuple(tuple(level) for level in found.tolist())


def _by_shape(images: Sequence[TrainingImage], batch_size: int) -> list[list[int]]:
    shapes: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        shapes[tuple(image.mean.shape)].append(index)
    return [
        members[start : start + batch_size]
        for members in shapes.values()
        for start in range(0, len(members), batch_size)
    ]
