"""Measured before it starts: how long the run takes and how much memory it needs on this very machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from trainer.training.device import memory_in_use
from trainer.training.loop import Trainer

MEASURED_STEPS = 2


@dataclass(frozen=True)
class Measured:
    """Seconds of one optimizer step, and the most bytes that training has held so far."""

    seconds_per_step: float
    memory_bytes: int


def measure(trainer: Trainer) -> Measured:
    """Forward and backward passes on the largest bucket, as in training; no weight moves and no gradient stays."""
    device = trainer.base.device
    batches = trainer.batches
    members = batches.plan.batch(batches.largest)
    trainer.bank.set_strengths({trainer.style: 1.0})
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seconds = []
        for _ in range(1 + MEASURED_STEPS):
            _wait(device)
            before = time.perf_counter()
            trainer.accumulate(batches.compose(members, 0))
            _wait(device)
            seconds.append(time.perf_counter() - before)
            trainer.optimizer.zero_grad(set_to_none=True)
    warm = min(seconds[1:])
    return Measured(warm * trainer.settings.accumulation, memory_in_use(device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
