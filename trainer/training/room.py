"""Making room on a device: a run's choices for memory put into effect and undone, and what ran out of it let go of."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from trainer.bases.base import Base
from trainer.bases.compiling import uncompile
from trainer.bases.placement import is_out_of_memory
from trainer.bases.swapping import swap
from trainer.config import MemoryConfig, RunConfig
from trainer.errors import DoesNotFit
from trainer.hardware import machine

T = TypeVar("T")
GIB = 2**30
# A card that is filled to the last byte fails at the first fragment that does not fit.
_USABLE = 0.95


def settle(base: Base, memory: MemoryConfig) -> None:
    """Put a config's choices into effect on a base; the defaults undo them all."""
    # Out before in: the model may come to the device with what is left of it.
    swap(base.denoiser, memory.block_swap or 0, base.device)
    base.placement.park(("vae", "text") if memory.park_encoders else ())
    base.previews = memory.previews or "whole"
    base.checkpoint_levels(memory.checkpoint_levels or 0)


@contextmanager
def as_found(base: Base) -> Iterator[None]:
    """Undo what `fit` chose for a base when the block ends, so that the next run chooses for itself."""
    parked, previews = base.placement.parked, base.previews
    try:
        yield
    finally:
        uncompile(base.denoiser)
        base.checkpoint_levels(0)
        base.previews = previews
        swap(base.denoiser, 0, base.device)
        base.placement.park(parked)


def tidy(device: torch.device) -> None:
    """Give back what a failed attempt held; called where its error is no longer handled."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def if_it_fits(base: Base, work: Callable[[], T]) -> T | None:
    """What ``work`` gives, which is never None, or None when memory ran out; the device is tidy then."""
    try:
        return work()
    except DoesNotFit:
        pass
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here, not in the handler: the error holds on to the frames and tensors of what failed.
    tidy(base.device)
    return None


def memory_limit(config: RunConfig, device: torch.device) -> int | None:
    """Most bytes that may be held: the config's limit, on a card also what is free; None where nothing limits."""
    told = None if config.memory.limit_gib is None else int(config.memory.limit_gib * GIB)
    if device.type != "cuda":
        return told
    here = int(_USABLE * (machine(device).available + torch.cuda.memory_reserved(device)))
    return here if told is None else min(told, here)
