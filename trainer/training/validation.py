"""Does the style carry over to new pictures? Loss on held-out images with noise that never changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from trainer.bases.base import Base, TextFeatures
from trainer.randomness import permutation, stable_seed
from trainer.training.batches import Batches, TrainingImage
from trainer.training.loop import Trainer

LEVELS = 8


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
    """Mean squared error over the grid: with the adapter at strength 1, and with the base alone."""

    style: float
    base: float

    @property
    def gain(self) -> float:
        """Share of the base's loss that the style took away."""
        return 1 - self.style / self.base if self.base else 0.0


class Validation:
    """A fixed grid of (image, timestep, noise): every image at `LEVELS` evenly spread noise levels.

    Args:
        base: what is measured.
        images: the held-out images.
        features: text features as in `Batches`.
        seed: the run's seed; the grid depends on nothing else.
        batch_size: images in a forward pass.
    """

    def __init__(
        self, base: Base, images: Sequence[TrainingImage], features: TextFeatures, *, seed: int, batch_size: int = 8
    ) -> None:
        self.base = base
        self.batches = Batches(base, images, features, batch_size=1, seed=stable_seed(seed, "validation"))
        self.members = _by_shape(images, batch_size)
        self.levels = base.process.levels(LEVELS)
        self._base_loss: float | None = None

    def measure(self, trainer: Trainer) -> Losses:
        """Loss now, and the base's (computed once). Gates, training mode and random state are left as they were."""
        from trainer.preview.generate import as_before

        with as_before(self.base, trainer.bank), torch.no_grad():
            if self._base_loss is None:
                trainer.bank.close()
                self._base_loss = self._mean(trainer)
            trainer.bank.set_strengths({trainer.style: 1.0})
            return Losses(self._mean(trainer), self._base_loss)

    def _mean(self, trainer: Trainer) -> float:
        total, count = 0.0, 0
        for level, timestep in enumerate(self.levels):
            for group, members in enumerate(self.members):
                batch = self.batches.compose(members, level * 1000 + group)
                batch = replace(batch, timesteps=torch.full_like(batch.timesteps, timestep))
                total += float(self.base.errors(*batch.inputs).sum())
                count += len(members)
        return total / count


def _by_shape(images: Sequence[TrainingImage], batch_size: int) -> list[list[int]]:
    shapes: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        shapes[tuple(image.mean.shape)].append(index)
    return [
        members[start : start + batch_size]
        for members in shapes.values()
        for start in range(0, len(members), batch_size)
    ]
