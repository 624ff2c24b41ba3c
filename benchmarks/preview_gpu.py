"""How long a picture takes on a card: the base, the bank at one strength, a sweep of 8 strengths, merged, and PEFT.

    python -m benchmarks.preview_gpu [--family sd1|sdxl] [--seconds 100] [--tiny]

Weights are random in the right shapes; the ways alternate in one process for at most --seconds, medians over rounds.
Every picture is said when it is made. A way that fails is said and left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from benchmarks.random_base import FAMILIES, random_base
from benchmarks.train_gpu import say, timed
from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge, unmerge
from trainer.bases.base import Base
from trainer.bases.quiet import quiet_libraries
from trainer.hardware import pick_device, pick_dtype
from trainer.preview.generate import generate
from trainer.preview.order import PreviewRow, PreviewSettings

SWEEP = tuple(index / 4 for index in range(8))
PROMPT = "a house beside a lake"


def row(strength: float | None) -> PreviewRow:
    return PreviewRow(prompt=PROMPT, seed=1, strengths=() if strength is None else (strength,))


Draw = Callable[[], object]
Way = Callable[[], AbstractContextManager[Draw]]


@contextmanager
def bank_on(base: Base) -> Iterator[Bank]:
    """A bank whose update is not zero, so that merging and fusing have something to do."""
    bank = Bank(base.roots)
    bank.add("style", "cross", rank=8, seed=1)
    with torch.no_grad():
        for _, parameter in bank.parameters_of("style"):
            parameter.add_(0.01)
    try:
        yield bank
    finally:
        bank.detach()


@contextmanager
def peft_on(base: Base, *, fused: bool) -> Iterator[Any]:
    """diffusers' own pipeline on the same base with a PEFT adapter of the same shape."""
    from peft import LoraConfig

    pipeline = base.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    targets = r".*attn2\.(to_q|to_k|to_v|to_out\.0)"
    pipeline.unet.add_adapter(
        LoraConfig(r=8, lora_alpha=8, init_lora_weights=False, target_modules=targets), adapter_name="style"
    )
    pipeline.set_adapters(["style"], [0.8])
    if fused:
        pipeline.unet.fuse_lora()
    try:
        yield pipeline
    finally:
        if fused:
            pipeline.unet.unfuse_lora()
        pipeline.unet.unload_lora()


def ways(base: Base, steps: int) -> dict[str, Way]:
    """Each way to draw: a block that sets it up, around what is timed."""
    settings = PreviewSettings(steps=steps)

    @contextmanager
    def bare() -> Iterator[Draw]:
        # A bank of nothing leaves the weights as they are.
        yield lambda: generate(base, Bank({}), [row(None)], settings)

    def gated(strengths: tuple[float, ...], at_once: int) -> Way:
        @contextmanager
        def way() -> Iterator[Draw]:
            rows = [row(strength) for strength in strengths]
            with bank_on(base) as bank:
                yield lambda: generate(base, bank, rows, settings, max_batch=at_once)

        return way

    @contextmanager
    def merged() -> Iterator[Draw]:
        with bank_on(base) as bank:
            merge(bank, {"style": 1.0})
            try:
                yield lambda: generate(base, Bank({}), [row(None)], settings)
            finally:
                unmerge(bank)

    def peft(*, fused: bool) -> Way:
        @contextmanager
        def way() -> Iterator[Draw]:
            side = base.resolution
            with peft_on(base, fused=fused) as pipeline:

                def draw() -> object:
                    # SDXL's pipeline would give its latents in half precision to a VAE in full precision.
                    latents = pipeline(
                        PROMPT, num_inference_steps=steps, height=side, width=side, output_type="latent"
                    ).images
                    return base.decode(latents)

                yield draw

        return way

    return {
        "base": bare,
        "bank, one strength": gated((1.0,), 1),
        "bank, 8 strengths in one batch": gated(SWEEP, 8),
        "bank, 8 strengths one by one": gated(SWEEP, 1),
        "merged": merged,
        "PEFT, set_adapters": peft(fused=False),
        "PEFT, fused": peft(fused=True),
    }


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--family", choices=sorted(FAMILIES), default="sd1")
    options.add_argument("--rounds", type=int, default=3, help="at most")
    options.add_argument("--seconds", type=float, default=100, help="after which no further picture begins")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    options.add_argument("--steps", type=int, default=20, help="denoising steps of a picture")
    options.add_argument("--device", default="auto")
    options.add_argument("--tiny", action="store_true", help="tiny models, to see that the benchmark works")
    asked = options.parse_args(arguments)
    device = pick_device(asked.device)
    with quiet_libraries():
        base = random_base(asked.family, device=device, dtype=pick_dtype(device, asked.precision), tiny=asked.tiny)
        say(f"{base.family.title}, {base.resolution} px, {asked.steps} steps, {base.dtype}, torch {torch.__version__}")
        times = measured(base, asked.steps, asked.rounds, asked.seconds)
    say("\n| way | seconds | rounds |\n|---|---:|---:|")
    say(*(f"| {name} | {statistics.median(values):.2f} | {len(values)} |" for name, values in times.items()))
    together = times.get("bank, 8 strengths in one batch")
    single = times.get("bank, 8 strengths one by one")
    if single and together:
        ratio = statistics.median(single) / statistics.median(together)
        say(f"\nA sweep in one batch is faster by {ratio:.2f} x than one by one.")
    if len(times) < len(ways(base, asked.steps)):
        sys.exit(1)


def measured(base: Base, steps: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each way by its name, round for round, after one that is not counted unless time is up by then."""
    began = time.perf_counter()
    times: defaultdict[str, list[float]] = defaultdict(list)
    first: dict[str, float] = {}
    broken: set[str] = set()
    for round_ in range(rounds + 1):
        for name, way in ways(base, steps).items():
            if name in broken or (round_ and time.perf_counter() - began > seconds):
                continue
            try:
                with way() as draw:
                    taken = timed(lambda _: draw(), range(1), base.device)
            except Exception:  # a benchmark on a rented card goes on with what works
                broken.add(name)
                say(f"round {round_}, {name}: failed")
                traceback.print_exc()
                continue
            say(f"round {round_}, {name}: {taken:.2f} s")
            if round_:
                times[name].append(taken)
            else:
                first[name] = taken
    return {name: times.get(name) or [value] for name, value in first.items() if name not in broken}


if __name__ == "__main__":
    main()
