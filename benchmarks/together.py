"""Several methods trained in shared passes of one base against as many runs one after the other.

    python -m benchmarks.together                              four methods on the bundled base
    python -m benchmarks.together --methods lora,lora,lora,lora

Both sides take the same steps on the same images with the same noise, in turns within one process; the ratio is the
median over rounds, so that whatever else the machine does meanwhile touches both alike. Processor seconds are printed
beside the clock's, because they hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.train_cpu import settings
from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.open import load_base
from trainer.bases.quiet import quiet_libraries
from trainer.config import RunConfig
from trainer.hardware import physical_cores, set_up_threads
from trainer.presets import resolve
from trainer.training.batches import Batches
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder
from trainer.training.together import train_together

Timed = tuple[float, float]
"""Seconds of a step of every adapter: by the clock, and of the processors."""


class Side:
    """Adapters that learn in shared passes of a base of their own."""

    def __init__(self, base: Base, prepared: Prepared, config: RunConfig, methods: Sequence[str]) -> None:
        bank = Bank(base.roots)
        self.trainers = []
        for number, method in enumerate(methods):
            name = f"{number} {method}"
            bank.add(name, config.adapter.targets or "cross", rank=config.adapter.rank or 8, method=method, seed=42)
            batches = Batches(
                base,
                prepared.training,
                prepared.features,
                batch_size=config.optim.batch_size or 1,
                seed=42,
                caption_dropout=config.data.caption_dropout,
            )
            self.trainers.append(Trainer(base, bank, name, batches, config))

    def train(self, steps: int) -> None:
        goal = self.trainers[0].step + steps
        train_together(self.trainers, go_on=lambda: self.trainers[0].step < goal)


def compare(style: str, methods: list[str], rounds: int, steps: int) -> None:
    """Print what a step of all adapters takes on each side, and the ratio of the two."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        config = settings(style)

        def opened() -> Base:
            return load_base(config.base, device=torch.device("cpu"), dtype=torch.float32)

        base = opened()
        dataset = read_dataset(run, config, base)
        config = resolve(config, base.family, resolution=base.resolution, images=len(dataset.examples))
        prepared = prepare(dataset, config, base, run.cache)
        together = Side(base, prepared, config, methods)
        alone = [Side(opened(), prepared, config, [method]) for method in methods]
        times: dict[str, list[Timed]] = {"one after the other": [], "in one pass": []}
        for round_ in range(rounds + 1):
            found = {
                "one after the other": _sum(_timed(side, steps) for side in alone),
                "in one pass": _timed(together, steps),
            }
            if round_:
                for name, timed in found.items():
                    times[name].append(timed)
    print(f"{', '.join(methods)}; {style}, {config.optim.batch_size} images a step, {rounds} rounds of {steps} steps\n")
    print(f"| {'':20} | ms a step of all | processor ms |\n|---|---:|---:|")
    for name, values in times.items():
        clock, processor = (1000 * statistics.median(each) for each in zip(*values, strict=True))
        print(f"| {name:20} | {clock:.0f} | {processor:.0f} |")
    pairs = list(zip(times["in one pass"], times["one after the other"], strict=True))
    for index, what in enumerate(("clock", "processor time")):
        ratios = sorted(one[index] / four[index] for one, four in pairs)
        print(f"\nRatio by {what}: {statistics.median(ratios):.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})")


def _timed(side: Side, steps: int) -> Timed:
    clock, processor = time.perf_counter(), time.process_time()
    side.train(steps)
    return (time.perf_counter() - clock) / steps, (time.process_time() - processor) / steps


def _sum(times: Iterable[Timed]) -> Timed:
    clocks, processors = zip(*times, strict=True)
    return sum(clocks), sum(processors)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--style", default="high_contrast", help="a folder of sample_data")
    options.add_argument("--methods", default="lora,rslora,lora-fa,vera", help="names, separated by commas")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=5, help="steps of each adapter in a round")
    options.add_argument("--threads", type=int, default=physical_cores())
    asked = options.parse_args()
    set_up_threads(asked.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {asked.threads} of {os.cpu_count()} processors\n")
    with quiet_libraries():
        compare(asked.style, asked.methods.split(","), asked.rounds, asked.steps)


if __name__ == "__main__":
    main()
