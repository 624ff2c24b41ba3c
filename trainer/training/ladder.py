"""The ladder: settings that trade speed for memory, as data, from the fastest rung to the one that needs least.

What a rung costs, by the arithmetic of a step (forward 1, activation gradients 1):
    encoders parked          nothing per step; sample pictures wait for the move
    smaller passes           nothing in arithmetic; a small pass fills a large card less well
    checkpointed levels      up to one more forward pass, so up to half as long again with all levels
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trainer.config import MemoryConfig, RunConfig

PreviewWay = Literal["whole", "sliced", "parked"]
PREVIEW_WAYS: tuple[PreviewWay, ...] = ("whole", "sliced", "parked")


@dataclass(frozen=True)
class Rung:
    """One way to train.

    Attributes:
        micro_batch: images in one pass.
        checkpoint_levels: UNet levels, from the outside, that compute twice instead of keeping results.
        park_encoders: whether VAE and text encoders stay in main memory between their uses.
    """

    micro_batch: int
    checkpoint_levels: int
    park_encoders: bool


def rungs(config: RunConfig, levels: int) -> list[Rung]:
    """The rungs to try, fastest first; a setting that the user forced is the same on all of them.

    Args:
        config: resolved.
        levels: how many levels the UNet has.
    """
    batch = config.optim.batch_size or 1
    free = [
        Rung(batch, 0, park_encoders=False),
        Rung(batch, 0, park_encoders=True),
        *(Rung(size, 0, park_encoders=True) for size in _divisors(batch) if size < batch),
        *(Rung(1, count, park_encoders=True) for count in range(1, levels + 1)),
    ]
    return list(dict.fromkeys(_forced(rung, config.memory, levels) for rung in free))


def preview_ways(config: RunConfig) -> tuple[PreviewWay, ...]:
    """The ways to draw to try, fastest first."""
    return PREVIEW_WAYS if config.memory.previews is None else (config.memory.previews,)


def with_rung(config: RunConfig, rung: Rung, previews: PreviewWay) -> RunConfig:
    """The config with a choice written into it, so that a resumed run repeats it."""
    chosen = config.model_copy(deep=True)
    chosen.memory = MemoryConfig(
        limit_gib=config.memory.limit_gib,
        micro_batch=rung.micro_batch,
        checkpoint_levels=rung.checkpoint_levels,
        park_encoders=rung.park_encoders,
        previews=previews,
    )
    return chosen


def explain(config: RunConfig, levels: int) -> list[str]:
    """What a config with a choice gives up for memory, in plain words; nothing when nothing is given up."""
    memory, batch = config.memory, config.optim.batch_size or 1
    sentences = []
    if memory.park_encoders:
        sentences.append("VAE and text encoders wait in main memory while the training runs.")
    if memory.micro_batch and memory.micro_batch < batch:
        passes = batch // memory.micro_batch
        sentences.append(f"Each batch of {batch} goes through in {passes} passes; the result is the same.")
    if memory.checkpoint_levels:
        sentences.append(
            f"{memory.checkpoint_levels} of the UNet's {levels} levels compute their intermediate results twice "
            "instead of keeping them, which makes steps slower."
        )
    if memory.previews == "sliced":
        sentences.append("Sample pictures are drawn one by one, and decoded in tiles.")
    elif memory.previews == "parked":
        sentences.append("Sample pictures are drawn one by one, and the UNet makes room while they are decoded.")
    return sentences


def _divisors(number: int) -> Iterable[int]:
    return (size for size in range(number, 0, -1) if number % size == 0)


def _forced(rung: Rung, memory: MemoryConfig, levels: int) -> Rung:
    return Rung(
        rung.micro_batch if memory.micro_batch is None else memory.micro_batch,
        rung.checkpoint_levels if memory.checkpoint_levels is None else min(memory.checkpoint_levels, levels),
        rung.park_encoders if memory.park_encoders is None else memory.park_encoders,
    )
