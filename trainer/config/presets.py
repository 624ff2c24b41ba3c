"""What is chosen for the user: learning rate, rank, batch and length, per family of bases, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config.sections import PresetName
from trainer.config.tree import RunConfig


@dataclass(frozen=True)
class Preset:
    """One row: ``steps = clamp(steps_per_image * images, least, most)``."""

    learning_rate: float
    rank: int
    batch_size: int
    steps_per_image: int
    least: int
    most: int
    reason: str

    def steps(self, images: int) -> int:
        """Number of optimizer steps for so many training images."""
        return max(self.least, min(self.most, self.steps_per_image * images))


_SMALL = "a small base needs a high learning rate to move, and a few hundred steps on a CPU"
_SD = (
    "1e-4 is what LoRA on Stable Diffusion 1 and 2 is commonly trained at; "
    "rank 8 holds a style (Hu et al. 2021: 1 to 8 is usually enough)"
)
_SDXL = "SDXL's wider layers react sooner, and a step costs eight times as much, so fewer and the same rate"

PRESETS: dict[str, dict[PresetName, Preset]] = {
    "bundled": {
        "quick": Preset(1e-3, 8, 4, 10, 120, 200, f"{_SMALL}; this one shows the idea"),
        "balanced": Preset(1e-3, 8, 4, 25, 300, 500, _SMALL),
        "thorough": Preset(8e-4, 16, 4, 50, 600, 1200, f"{_SMALL}; twice the rank and length for a closer likeness"),
    },
    "sd1": {
        "quick": Preset(2e-4, 8, 1, 40, 300, 800, f"{_SD}; twice the rate, for a first look"),
        "balanced": Preset(1e-4, 8, 1, 100, 800, 2500, _SD),
        "thorough": Preset(
            1e-4,
            16,
            2,
            120,
            1200,
            4000,
            f"{_SD}; twice the rank and two images a step for finer detail",
        ),
    },
    "sd2": {
        "quick": Preset(2e-4, 8, 1, 40, 300, 800, f"{_SD}; twice the rate, for a first look"),
        "balanced": Preset(1e-4, 8, 1, 100, 800, 2500, _SD),
        "thorough": Preset(
            1e-4,
            16,
            2,
            120,
            1200,
            4000,
            f"{_SD}; twice the rank and two images a step for finer detail",
        ),
    },
    "sdxl": {
        "quick": Preset(2e-4, 8, 1, 30, 250, 600, f"{_SDXL}; twice the rate, for a first look"),
        "balanced": Preset(1e-4, 8, 1, 75, 600, 1800, _SDXL),
        "thorough": Preset(1e-4, 16, 1, 120, 1000, 3000, f"{_SDXL}; twice the rank for finer detail"),
    },
}


def preset_for(family: str, name: PresetName) -> Preset:
    """The row for a family (`trainer.bases` names it) and a preset."""
    return PRESETS[family][name]


def resolve(config: RunConfig, *, family: str, resolution: int, guidance: float, images: int) -> RunConfig:
    """A copy of the tree in which nothing is left to choose.

    Args:
        family: key of the base's family, a key of `PRESETS`.
        resolution: the base's native side in pixels.
        guidance: the guidance scale that suits the base.
        images: number of images that are trained on (without held-out ones).
    """
    preset = preset_for(family, config.train.preset)
    chosen = config.model_copy(deep=True)
    adapter, optim, train, samples = chosen.adapter, chosen.optim, chosen.train, chosen.samples
    if chosen.data.resolution is None:
        chosen.data.resolution = resolution
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
    if samples.every is None:
        samples.every = max(1, train.steps // 4)
    if samples.guidance is None:
        samples.guidance = guidance
    return RunConfig.model_validate(chosen.model_dump())
