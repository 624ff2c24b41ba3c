"""What is chosen for the user: learning rate, rank, batch and length, by the presets of the base's family."""

from __future__ import annotations

from trainer.bases.families import Family
from trainer.config import RunConfig


def resolve(config: RunConfig, family: Family, *, resolution: int, images: int) -> RunConfig:
    """A copy of the tree in which nothing is left to choose.

    Args:
        family: of the base; its presets and its guidance scale are chosen from.
        resolution: the base's native side in pixels.
        images: number of images that are trained on (without held-out ones).
    """
    preset = family.presets[config.train.preset]
    chosen = config.model_copy(deep=True)
    adapter, optim, train, samples = chosen.adapter, chosen.optim, chosen.train, chosen.samples
    if chosen.data.resolution is None:
        chosen.data.resolution = resolution
    if adapter.targets is None:
        adapter.targets = preset.targets
    if adapter.rank is None:
        adapter.rank = preset.rank
    if adapter.alpha is None:
        adapter.alpha = float(adapter.rank)
    if optim.learning_rate is None:
        optim.learning_rate = preset.learning_rate
    if optim.batch_size is None:
        optim.batch_size = preset.batch_size
    if train.steps is None:
        train.steps = preset.steps(images)
    if optim.warmup_steps is None:
        optim.warmup_steps = min(train.steps // 20, 100)
    if train.checkpoint_every is None:
        train.checkpoint_every = max(25, min(500, train.steps // 4))
    if train.stop_floor is None:
        train.stop_floor = family.presets["quick"].steps(images)
    if samples.every is None:
        samples.every = max(1, train.steps // 4)
    if samples.guidance is None:
        samples.guidance = family.guidance
    if samples.scheduler is None:
        samples.scheduler = family.scheduler
    if samples.steps is None:
        samples.steps = family.steps
    return RunConfig.model_validate(chosen.model_dump())
