"""The ladder of ways to train that trade speed for memory: its rungs, and what a step down gives up.

What a rung costs, by the arithmetic of a step (forward 1, activation gradients 1):
    encoders parked          nothing per step; sample pictures wait for the move
    smaller passes           nothing in arithmetic; a small pass fills a large card less well
    checkpointed levels      up to one more forward pass, so up to half as long again with all levels
    swapped weights          nothing in arithmetic; each weight comes over the bus three times a pass, which takes
                             longer than the pass itself unless that is large (SDXL in half precision: 5 GB each time)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from trainer.adapters.methods import METHODS
from trainer.bases.base import Base
from trainer.bases.quantised import is_quantised
from trainer.config import MemoryConfig, RunConfig
from trainer.errors import ConfigError
from trainer.optimizers import OPTIMIZERS

PreviewWay = Literal["whole", "sliced", "parked"]
PREVIEW_WAYS: tuple[PreviewWay, ...] = ("whole", "sliced", "parked")
PREVIEWS_SAID: Mapping[PreviewWay, str] = {
    "sliced": "Sample pictures are drawn one by one, and decoded in tiles.",
    "parked": "Sample pictures are drawn one by one, and the model makes room while they are decoded.",
}
SWAPPED = (50, 100)
"""Percent of the weights on the last rungs."""


@dataclass(frozen=True)
class Rung:
    """One way to train.

    Attributes:
        micro_batch: images in one pass.
        checkpoint_levels: levels of the denoiser, from the outside, that compute twice instead of keeping results.
        park_encoders: whether VAE and text encoders stay in main memory between their uses.
        block_swap: percent of the denoiser's weights that stay there and come for their use alone.
    """

    micro_batch: int
    checkpoint_levels: int
    park_encoders: bool
    block_swap: int = 0


def can_swap(base: Base) -> bool:
    """Whether weights that wait in main memory make room: not where that is all there is, nor where they are small."""
    return base.device.type == "cuda" and not is_quantised(base.denoiser)


def rungs(config: RunConfig, levels: int, processes: int = 1, *, swaps: bool = False) -> list[Rung]:
    """The rungs to try, fastest first; a setting that the user forced is the same on all of them.

    Args:
        config: resolved.
        levels: how many levels the denoiser has.
        processes: how many share a step's passes.
        swaps: whether weights may wait in main memory (`can_swap`).
    """
    sizes = pass_sizes(config, processes)
    free = [
        Rung(sizes[0], 0, park_encoders=False),
        *(Rung(size, 0, park_encoders=True) for size in sizes),
        *(Rung(1, count, park_encoders=True) for count in range(1, levels + 1)),
        *(Rung(1, levels, park_encoders=True, block_swap=percent) for percent in SWAPPED if swaps),
    ]
    return list(dict.fromkeys(_forced(rung, config.memory, levels) for rung in free))


def pass_sizes(config: RunConfig, processes: int = 1) -> list[int]:
    """How many images a pass may hold so that batches and processes come out even, the largest first; maybe none."""
    batch = config.optim.batch_size or 1
    passes = {size: config.optim.gradient_accumulation * (batch // size) for size in _divisors(batch)}
    return [size for size, count in passes.items() if count % processes == 0]


def shared_out(config: RunConfig, processes: int, *, free: bool) -> RunConfig:
    """A resolved config whose steps come out even among processes.

    Args:
        free: whether the batch size was chosen for the user and may grow to the next that comes out even.

    Raises:
        ConfigError: the batch size was asked for and does not come out even.
    """
    if processes == 1:
        return config
    even = config.model_copy(deep=True)
    optim, memory = even.optim, even.memory
    batch, batches = optim.batch_size or 1, optim.gradient_accumulation
    if batch * batches % processes:
        if not free:
            raise ConfigError(
                f"optim.batch_size is {batch}"
                + (f" in {batches} batches a step" if batches > 1 else "")
                + f", which {processes} processes cannot share equally: use a multiple of {processes}."
            )
        optim.batch_size = next(size for size in range(batch, batch + processes + 1) if size * batches % processes == 0)
    if memory.micro_batch is not None:
        # Never more than was asked for, and the result is the same.
        memory.micro_batch = next(size for size in pass_sizes(even, processes) if size <= memory.micro_batch)
    return even


def step_down(config: RunConfig, levels: int, processes: int = 1, *, swaps: bool = False) -> Rung | None:
    """The next way to train after one that ran out of memory, whatever was asked for; None when there is none."""
    memory = config.memory
    now = Rung(
        config.images_per_pass, memory.checkpoint_levels or 0, bool(memory.park_encoders), memory.block_swap or 0
    )
    free = config.model_copy(update={"memory": MemoryConfig()})
    lower = (
        rung
        for rung in rungs(free, levels, processes, swaps=swaps)
        if rung != now
        and rung.micro_batch <= now.micro_batch
        and rung.checkpoint_levels >= now.checkpoint_levels
        and rung.park_encoders >= now.park_encoders
        and rung.block_swap >= now.block_swap
    )
    return next(lower, None)


def spares_main_memory(config: RunConfig, base: Base, processes: int = 1) -> Rung | None:
    """The next way to train that holds less main memory; None where there is none, as on a card, which has its own."""
    if base.device.type == "cuda":
        return None
    # What is parked lies in main memory as before.
    parked = config.model_copy(update={"memory": config.memory.model_copy(update={"park_encoders": True})})
    lower = step_down(parked, base.levels, processes)
    return None if lower is None else replace(lower, park_encoders=bool(config.memory.park_encoders))


def gives_up(config: RunConfig, lower: Rung) -> str:
    """What a step down to a rung gives up, as the rest of a sentence that ends with what it costs."""
    memory = config.memory
    parts = []
    if lower.micro_batch < config.images_per_pass:
        parts.append(f"{lower.micro_batch} {'image goes' if lower.micro_batch == 1 else 'images go'} through at once")
    if lower.checkpoint_levels > (memory.checkpoint_levels or 0):
        parts.append(f"{lower.checkpoint_levels} levels compute their results twice")
    if lower.block_swap > (memory.block_swap or 0):
        parts.append(f"{lower.block_swap}% of the weights come from main memory one by one")
    slower = bool(parts)
    if lower.park_encoders > bool(memory.park_encoders):
        parts.append("VAE and text encoders wait in main memory")
    return ", ".join(parts) + f". The result is the same{', the steps are slower' if slower else ''}"


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
        block_swap=rung.block_swap,
        previews=previews,
    )
    return chosen


def explain(config: RunConfig, levels: int) -> list[str]:
    """What a config with a choice gives up for memory, in plain words; nothing when nothing is given up."""
    memory, batch = config.memory, config.optim.batch_size or 1
    spared = OPTIMIZERS[config.optim.optimizer].spares
    sentences = [spared] if spared else []
    if memory.park_encoders and METHODS[config.adapter.method].site == "words":
        sentences.append("The VAE waits in main memory while the training runs.")
    elif memory.park_encoders:
        sentences.append("VAE and text encoders wait in main memory while the training runs.")
    if memory.micro_batch and memory.micro_batch < batch:
        passes = batch // memory.micro_batch
        sentences.append(f"Each batch of {batch} goes through in {passes} passes; the result is the same.")
    if memory.checkpoint_levels:
        sentences.append(
            f"{memory.checkpoint_levels} of the model's {levels} levels compute their intermediate results twice "
            "instead of keeping them, which makes steps slower."
        )
    if memory.block_swap:
        sentences.append(
            f"{memory.block_swap}% of the model's weights wait in main memory and come to the card one layer at a "
            "time, which makes steps and pictures much slower."
        )
    if memory.previews is not None and memory.previews in PREVIEWS_SAID:
        sentences.append(PREVIEWS_SAID[memory.previews])
    return sentences


def _forced(rung: Rung, memory: MemoryConfig, levels: int) -> Rung:
    return Rung(
        rung.micro_batch if memory.micro_batch is None else memory.micro_batch,
        rung.checkpoint_levels if memory.checkpoint_levels is None else min(memory.checkpoint_levels, levels),
        rung.park_encoders if memory.park_encoders is None else memory.park_encoders,
        rung.block_swap if memory.block_swap is None else memory.block_swap,
    )


def _divisors(number: int) -> Iterable[int]:
    return (size for size in range(number, 0, -1) if number % size == 0)
