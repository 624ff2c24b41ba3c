"""How long a picture takes on a card: the base, the bank at one strength, a sweep of 8 strengths, merged, and PEFT.

    python -m benchmarks.preview_gpu [--family sd1|sdxl] [--tiny]

Weights are random in the right shapes; the ways alternate in one process, medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from benchmarks.random_base import FAMILIES, random_base
from benchmarks.train_gpu import wait
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
                yield lambda: pipeline(PROMPT, num_inference_steps=steps, height=side, width=side, output_type="np")

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
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=20, help="denoising steps of a picture")
    options.add_argument("--device", default="auto")
    options.add_argument("--tiny", action="store_true", help="tiny models, to see that the benchmark works")
    asked = options.parse_args(arguments)
    device = pick_device(asked.device)
    with quiet_libraries():
        base = random_base(asked.family, device=device, dtype=pick_dtype(device, "auto"), tiny=asked.tiny)
        times: defaultdict[str, list[float]] = defaultdict(list)
        for round_ in range(asked.rounds + 1):
            for name, way in ways(base, asked.steps).items():
                with way() as draw:
                    wait(device)
                    before = time.perf_counter()
                    draw()
                    wait(device)
                    seconds = time.perf_counter() - before
                if round_:
                    times[name].append(seconds)
    print(f"\n{base.family.title}, {base.resolution} px, {asked.steps} steps\n\n| way | seconds |\n|---|---:|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.2f} |")
    single, together = (statistics.median(times[f"bank, 8 strengths {how}"]) for how in ("one by one", "in one batch"))
    print(f"\nA sweep in one batch is faster by {single / together:.2f} x than one by one.")


if __name__ == "__main__":
    main()
