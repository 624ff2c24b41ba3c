"""How long OpenMP's threads spin while they wait for each other: what it costs alone, what it loses beside other work.

    python -m benchmarks.spinning                      each way alone, then beside a busy core
    python -m benchmarks.spinning --busy 2 --rounds 5

A training step on two threads meets at a barrier hundreds of times. A thread that waits there by spinning answers at
once on a machine of its own; where another program has the other core, it burns a whole slice of the time in which
the thread it waits for could have run. Each way is a process of its own with its own environment, because libgomp
reads it when it is loaded; the ways take turns, and figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WAYS = {
    "as libgomp does": {},
    "never spins": {"OMP_WAIT_POLICY": "passive"},
    "spins 100 times": {"GOMP_SPINCOUNT": "100"},
    "spins 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "spins 10,000 times": {"GOMP_SPINCOUNT": "10000"},
    "spins 100,000 times": {"GOMP_SPINCOUNT": "100000"},
    "one thread": {"PATINA_BENCH_THREADS": "1"},
}
"""What each process is told."""
BUSY = "while True: pass"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spinning", description=__doc__)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of one measurement")
    parser.add_argument("--steps-for", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.steps_for:
        print(steps_per_second(options.steps_for))
        return 0
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for beside in (False, True):
            for way, told in WAYS.items():
                with others(options.busy if beside else 0):
                    found[way, beside].append(measured(told, options.seconds))
    best = statistics.median(found["as libgomp does", False])
    print(f"{'':22}{'alone':>16}{f'beside {options.busy} busy':>20}   loses")
    for way in WAYS:
        alone, beside_others = (statistics.median(found[way, beside]) for beside in (False, True))
        print(
            f"{way:22}{alone:8.2f} ({alone / best:4.0%}){beside_others:14.2f} steps/s{1 - beside_others / alone:8.0%}"
        )
    return 0


def measured(told: dict[str, str], seconds: float) -> float:
    """Steps per second of a process with that environment."""
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.spinning", "--steps-for", str(seconds)]
    done = subprocess.run(command, env={**plain, **told}, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def steps_per_second(seconds: float) -> float:
    """Training steps of the bundled base's denoiser, eight latents each, on the threads that a training takes."""
    import torch

    from trainer.bases.open import load_base
    from trainer.bases.quiet import quiet_libraries
    from trainer.config import BaseConfig
    from trainer.hardware import physical_cores, set_up_threads

    quiet_libraries()
    base = load_base(BaseConfig(source="bundled"), device=torch.device("cpu"), dtype=torch.float32)
    set_up_threads(int(os.environ.get("PATINA_BENCH_THREADS", 0)) or physical_cores())
    side = base.resolution // base.vae_factor
    latents = torch.randn(8, base.latent_channels, side, side)
    texts = base.encode_texts(["a boat"] * 8)
    from trainer.bases.base import SizeFacts

    told = base.conditioning(texts, [SizeFacts.whole(base.resolution, base.resolution)] * 8)
    base.denoiser.requires_grad_(True)

    def step() -> None:
        base.predict(latents, torch.full((8,), 500), told).square().mean().backward()
        base.denoiser.zero_grad(set_to_none=True)

    step()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps / (time.perf_counter() - began)


@contextmanager
def others(count: int) -> Iterator[None]:
    """That many processes that compute meanwhile."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
