"""The bundled base on a CPU: Patina's engine against a plain diffusers + PEFT loop, alternating in one run.

    python -m benchmarks.train_cpu                 speed, memory, and where a step's time goes
    python -m benchmarks.train_cpu --quality       what both learn in the same number of steps

The same base, images, rank, batch size and threads; ratios are medians over rounds, so that whatever else the machine
does meanwhile touches all sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.plain import PlainLoop
from trainer.adapters.bank import Bank
from trainer.bases.open import load_base
from trainer.bases.quiet import quiet_libraries
from trainer.config import RunConfig, parse
from trainer.hardware import peak_resident_bytes, physical_cores, set_up_threads
from trainer.presets import resolve
from trainer.styles.file import StyleFile
from trainer.styles.fit import attach
from trainer.training.batches import Batches
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder
from trainer.training.validation import Validation, held_out

STYLES = Path(__file__).parents[1] / "sample_data"
Step = Callable[[int], object]


class Ours:
    """The engine's own loop, taken apart only so far that its steps can be timed one by one."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        run = RunFolder(folder)
        run.path.mkdir(parents=True, exist_ok=True)
        self.base = load_base(config.base, device=torch.device("cpu"), dtype=torch.float32)
        self.dataset = read_dataset(run, config, self.base)
        self.config = resolve(
            config, self.base.family, resolution=self.base.resolution, images=len(self.dataset.examples)
        )
        self.materials: Prepared = prepare(self.dataset, self.config, self.base, run.cache)
        self.bank = Bank(self.base.roots)
        assert self.config.optim.batch_size is not None
        self.bank.add("style", "cross", rank=self.config.adapter.rank or 8, seed=42)
        batches = Batches(
            self.base,
            self.materials.training,
            self.materials.features,
            batch_size=self.config.optim.batch_size,
            seed=42,
            caption_dropout=self.config.data.caption_dropout,
        )
        self.trainer = Trainer(self.base, self.bank, "style", batches, self.config)
        self.bank.set_strengths({"style": 1.0})

    def step(self, index: int) -> object:
        loss = self.trainer.accumulate(self.trainer.batches.draw(index))
        self.trainer.update(self.trainer.rate_at(index))
        self.trainer.step += 1
        return loss


def settings(style: str, *, validation: float = 0.0) -> RunConfig:
    images = STYLES / style
    return parse(
        {
            "name": style,
            "trigger": f"{style.replace('_', ' ')} style",
            "data": {"images": str(images), "validation_share": validation},
            # What the plain loop trains, at a rate that suits it.
            "adapter": {"targets": "cross"},
            "optim": {"learning_rate": 1e-3},
        }
    )


def plain(ours: Ours, *, cached: bool) -> PlainLoop:
    config = ours.config
    kept_out = set(held_out(len(ours.dataset.examples), config.data.validation_share, config.train.seed))
    examples = [e for i, e in enumerate(ours.dataset.examples) if i not in kept_out]
    return PlainLoop(
        examples,
        rank=config.adapter.rank or 8,
        rate=config.optim.learning_rate or 1e-3,
        steps=config.train.steps or 400,
        batch_size=config.optim.batch_size or 4,
        cached=cached,
    )


def speed(style: str, rounds: int, steps: int) -> None:
    """Milliseconds of a step on each side, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(settings(style), Path(folder))
        sides: dict[str, Step] = {
            "Patina": ours.step,
            "plain loop": plain(ours, cached=False).step,
            "plain loop with caches": plain(ours, cached=True).step,
        }
        done = dict.fromkeys(sides, 0)
        times: defaultdict[str, list[float]] = defaultdict(list)
        for round_ in range(rounds + 1):
            for name, step in sides.items():
                seconds = []
                for _ in range(steps):
                    before = time.perf_counter()
                    step(done[name])
                    seconds.append(time.perf_counter() - before)
                    done[name] += 1
                if round_:
                    times[name].append(statistics.median(seconds))
        batch = ours.trainer.batches.batch_size
        print(f"| {'':22} | ms a step | images/s | Patina is faster by | peak memory, MiB |")
        print("|---|---:|---:|---:|---:|")
        for name, values in times.items():
            ratio = statistics.median(b / a for a, b in zip(times["Patina"], values, strict=True))
            memory = peak_memory(style, name)
            middle = statistics.median(values)
            print(f"| {name:22} | {1000 * middle:.1f} | {batch / middle:.1f} | {ratio:.2f} x | {memory:.0f} |")
        shares(ours, statistics.median(times["Patina"]))


def peak_memory(style: str, side: str) -> float:
    """MiB that a process of its own holds at most while it trains 20 steps."""
    command = [sys.executable, "-m", "benchmarks.train_cpu", "--style", style, "--memory-of", side]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["mib"])


def memory_of(style: str, side: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = settings(style)
        if side == "Patina":
            step: Step = Ours(config, Path(folder)).step
        else:
            base = load_base(config.base, device=torch.device("cpu"), dtype=torch.float32)
            dataset = read_dataset(RunFolder(Path(folder)), config, base)
            del base
            step = PlainLoop(
                dataset.examples, rank=8, rate=1e-3, steps=400, batch_size=4, cached=side.endswith("caches")
            ).step
        for index in range(20):
            step(index)
    print(json.dumps({"mib": peak_resident_bytes() / 2**20}))


def shares(ours: Ours, step_seconds: float) -> None:
    """Where a step's time goes, and how far it is from what this machine's convolutions and products reach."""
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    start = ours.trainer.step
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for index in range(start, start + 5):
            ours.step(index)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    print("\n| part of a step | share | ms |\n|---|---:|---:|")
    for name, value in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {name} | {value / total:.0%} | {1000 * step_seconds * value / total:.1f} |")
    with FlopCounterMode(display=False) as counted:
        ours.step(start + 5)
    flops = counted.get_total_flops()
    convolution, product = rates()
    reached = flops / step_seconds
    print(
        f"\nA step is {flops / 1e9:.1f} GFLOP, so the engine runs at {reached / 1e9:.0f} GFLOP/s; alone, a large "
        f"convolution reaches {convolution / 1e9:.0f} and a large matrix product {product / 1e9:.0f} here "
        f"({reached / convolution:.0%} and {reached / product:.0%})."
    )


def kind_of(operator: str) -> str:
    kinds = {
        "convolutions": ("convolution", "conv2d"),
        "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
        "attention": ("scaled_dot_product",),
        "normalisation": ("norm",),
        "optimizer": ("_fused_adamw", "foreach", "optimizer"),
        "activations": ("silu", "gelu"),
        "elementwise and copies": (
            "add",
            "mul",
            "div",
            "copy",
            "cat",
            "fill",
            "sub",
            "index",
            "upsample",
            "sum",
            "mean",
        ),
    }
    return next((kind for kind, parts in kinds.items() if any(part in operator for part in parts)), "overhead and rest")


def rates() -> tuple[float, float]:
    """FLOP/s of one large convolution and one large matrix product in fp32, the best of several."""
    image, kernel = torch.randn(8, 256, 64, 64), torch.randn(256, 256, 3, 3)
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)

    def best(work: Callable[[], object], flops: float) -> float:
        seconds = []
        for _ in range(6):
            before = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - before)
        return flops / min(seconds)

    convolution = best(lambda: torch.conv2d(image, kernel, padding=1), 2 * image.numel() * 256 * 9)
    return convolution, best(lambda: left @ right, 2 * 2048**3)


def quality(style: str) -> None:
    """Loss on held-out images of the style with fixed noise, after the same number of steps on each side."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(settings(style, validation=0.25), Path(folder))
        judge = Validation(ours.base, ours.materials.validation, ours.materials.features, seed=42)
        steps = ours.config.train.steps or 400
        for index in range(steps):
            ours.step(index)
        learned = judge.measure(ours.trainer)
        other = plain(ours, cached=True)
        for index in range(steps):
            other.step(index)
        file = StyleFile(Path("plain"), "kohya", other.weights(), {}, ())
        ours.bank.remove("style")
        attach(ours.bank, "style", file)
        theirs = judge.measure(ours.trainer)
    print(f"| {style}, {steps} steps | loss on held-out images | below the base |\n|---|---:|---:|")
    print(f"| base | {learned.base:.4f} | |")
    print(f"| Patina | {learned.style:.4f} | {learned.gain:.1%} |")
    print(f"| plain loop | {theirs.style:.4f} | {theirs.gain:.1%} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--style", default="high_contrast", help="a folder of sample_data")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--steps", type=int, default=12, help="steps of each side in a round")
    options.add_argument("--quality", action="store_true", help="compare what is learned instead of speed")
    options.add_argument("--memory-of", help=argparse.SUPPRESS)
    asked = options.parse_args()
    set_up_threads(physical_cores())
    with quiet_libraries():
        if asked.memory_of:
            memory_of(asked.style, asked.memory_of)
            return
        print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} processors\n")
        if asked.quality:
            quality(asked.style)
        else:
            speed(asked.style, asked.rounds, asked.steps)


if __name__ == "__main__":
    main()
