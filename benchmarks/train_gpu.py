"""Stable Diffusion 1.5 at 512 px and SDXL at 1024 px on a card: Patina's engine against a plain diffusers + PEFT loop.

    python -m benchmarks.train_gpu                          SD1.5 in batches of 4, SDXL in batches of 1
    python -m benchmarks.train_gpu --family sd1 --batch 1 4 one of them, in both
    python -m benchmarks.train_gpu --limit-gib 3.3          what the ladder chooses when told a limit, really training
    python -m benchmarks.train_gpu --quantize nf4           Patina's base in 4 bits a weight, the plain loop's as it is
    python -m benchmarks.train_gpu --device cpu --family sd1 --batch 1 --targets attention --cached
                                                            without a card, against a plain loop without its VAE
    python -m benchmarks.train_gpu --tiny                   the same with tiny models on a CPU, to see that it works

Weights are random in the right shapes. Each side is first looked at alone, which gives its peak memory and a line at
once; then the sides alternate in one process for at most --seconds, and the ratio is the median over rounds. What
fails on a side is said in its line, and the rest goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.random_base import FAMILIES, SIDES, TFLOP_PER_SAMPLE, random_base
from trainer.adapters.bank import Bank
from trainer.bases.base import Base, SizeFacts, TextFeatures
from trainer.bases.quantised import Quantize
from trainer.bases.quiet import quiet_libraries
from trainer.config import RunConfig, parse
from trainer.errors import DoesNotFit
from trainer.hardware import memory_in_use, physical_cores, pick_device, pick_dtype, set_up_threads
from trainer.presets import resolve
from trainer.training.batches import Batches, TrainingImage
from trainer.training.fitting import Fitted, fit
from trainer.training.loop import Trainer
from trainer.training.room import GIB

IMAGES = 8
RANK = 8
TARGETS = {"cross": r".*attn2\.(to_q|to_k|to_v|to_out\.0)", "attention": r".*attn[12]\.(to_q|to_k|to_v|to_out\.0)"}
"""What both sides train: Patina's name of it, and the plain loop's expression."""
SIDE_NAMES = ("Patina", "plain loop")
BATCHES = {"sd1": 4, "sdxl": 1}
"""Images a step that each family is measured with unless told otherwise."""
CAPTIONS = [f"a picture of thing number {index} on a table" for index in range(IMAGES)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: a family's random base, a batch size, a device."""

    key: str
    batch: int
    device: torch.device
    dtype: torch.dtype
    tiny: bool = False
    compile: str = "auto"
    limit_gib: float | None = None
    quantize: Quantize | None = None
    targets: str = "cross"
    cached: bool = False

    @property
    def side(self) -> int:
        return 64 if self.tiny else SIDES[self.key]

    def base(self, quantize: Quantize | None = None) -> Base:
        return random_base(self.key, device=self.device, dtype=self.dtype, tiny=self.tiny, quantize=quantize)


class Ours:
    """The engine's loop on random latents, with whatever fits this card best."""

    def __init__(self, case: Case) -> None:
        self.case, self.base = case, case.base(case.quantize)
        self.bank = Bank(self.base.roots)
        self.bank.add("style", case.targets, rank=RANK, seed=1)
        self.fitted: Fitted = fit(self._config(), self.base, self._trainer)
        self.trainer = self.fitted.trainer
        self.bank.set_strengths({"style": 1.0})

    def step(self, index: int) -> None:
        trainer = self.trainer
        for micro in trainer.passes:
            trainer.accumulate(trainer.batches.draw(index, micro), micro)
        trainer.update(trainer.rate_at(index))
        trainer.step += 1

    def _config(self) -> RunConfig:
        case = self.case
        given = {
            "optim": {"batch_size": case.batch},
            "train": {"steps": 1000, "compile": case.compile},
            "memory": {"limit_gib": case.limit_gib} if case.limit_gib else {},
        }
        family = self.base.family
        return resolve(parse(given), family, resolution=case.side, images=IMAGES)

    def _trainer(self, config: RunConfig) -> Trainer:
        cells = self.case.side // self.base.vae_factor
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.base.latent_channels, cells, cells)
        size = (self.case.side, self.case.side)
        images = [
            TrainingImage(
                mean=torch.randn(shape, generator=generator),
                std=torch.full(shape, 0.1),
                text=index,
                sizes=(SizeFacts(size, (0, 0), size),),
            )
            for index in range(IMAGES)
        ]
        batches = Batches(
            self.base,
            images,
            self.base.encode_texts(CAPTIONS),
            batch_size=config.optim.batch_size or 1,
            images_per_pass=config.images_per_pass,
        )
        return Trainer(self.base, self.bank, "style", batches, config)


class Plain:
    """The way diffusers' text-to-image LoRA examples train: PEFT's layers in fp32 under autocast, images and captions
    encoded in every step, the loss read in every step; the VAE in half precision where the family allows it.

    Where the case is ``cached``, images and captions are encoded once, which is what a careful user would add."""

    def __init__(self, case: Case) -> None:
        from diffusers import DDPMScheduler
        from diffusers.training_utils import cast_training_params
        from peft import LoraConfig

        self.case, self.base = case, case.base()
        self.unet = self.base.denoiser
        self.unet.add_adapter(
            LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS[case.targets])
        )
        cast_training_params(self.unet, dtype=torch.float32)
        self.parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-2)
        self.noise: Any = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.rand(IMAGES, 3, case.side, case.side, generator=generator) * 2 - 1
        self.unet.train()
        self.encoded = [self._encoded([index]) for index in range(IMAGES)] if case.cached else []
        if case.cached:
            self.base.vae, self.base.text_encoders = None, {}

    @torch.no_grad()
    def _encoded(self, chosen: list[int]) -> tuple[Tensor, TextFeatures]:
        """Latents and text features of images."""
        base = self.base
        pixels = self.pixels[chosen].to(self.case.device, base.vae.dtype)
        latents = base.vae.encode(pixels).latent_dist.sample() * base.vae.config.scaling_factor
        return latents.to(self.case.dtype), base.encode_texts([CAPTIONS[i] for i in chosen])

    def step(self, index: int) -> None:
        case, base = self.case, self.base
        chosen = [(index * case.batch + offset) % IMAGES for offset in range(case.batch)]
        if case.cached:
            found = [self.encoded[i] for i in chosen]
            latents, features = torch.cat([own for own, _ in found]), TextFeatures.cat([own for _, own in found])
        else:
            latents, features = self._encoded(chosen)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (case.batch,), device=case.device)
        noisy = self.noise.add_noise(latents, noise, timesteps)
        size = (case.side, case.side)
        conditioning = base.conditioning(features, [SizeFacts(size, (0, 0), size)] * case.batch)
        with torch.autocast(case.device.type, dtype=case.dtype, enabled=case.dtype != torch.float32):
            predicted = self.unet(noisy, timesteps, return_dict=False, **conditioning)[0]
        loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        float(loss.detach())


def alternate(ours: Ours, plain: Plain, rounds: int, steps: int, seconds: float) -> Iterator[tuple[float, float]]:
    """Seconds a step of Patina and of the plain loop, round for round, after one that is not counted.

    At least one round is counted, and none begins after ``seconds``.
    """
    device, began = ours.case.device, time.perf_counter()
    for round_ in range(rounds + 1):
        indices = range(round_ * steps, (round_ + 1) * steps)
        spent = tuple(timed(side.step, indices, device) / steps for side in (ours, plain))
        if round_:
            yield spent[0], spent[1]
            if time.perf_counter() - began > seconds:
                return


def timed(work: Callable[[int], object], indices: range, device: torch.device) -> float:
    """Seconds for all steps together, with the card waited for at both ends only."""
    wait(device)
    before = time.perf_counter()
    for index in indices:
        work(index)
    wait(device)
    return time.perf_counter() - before


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of several."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def product(_: int) -> None:
        _result: Tensor = left @ right

    timed(product, range(3), device)
    return 2 * side**3 / min(timed(product, range(1), device) for _ in range(10))


def profile_of(ours: Ours, steps: int = 3) -> list[tuple[str, float]]:
    """Shares of the device's time by kind of work, largest first; on a CPU of the processor's time."""
    from torch.profiler import ProfilerActivity, profile

    cuda = ours.case.device.type == "cuda"
    start = ours.trainer.step
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        timed(ours.step, range(start, start + steps), ours.case.device)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        spent[kind_of(event.key)] += event.self_device_time_total if cuda else event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    return sorted(((name, value / total) for name, value in spent.items()), key=lambda item: -item[1])


def kind_of(name: str) -> str:
    """The kind of work of an operator or kernel, by what its name says."""
    kinds = {
        "attention": ("scaled_dot_product", "flash", "fmha", "attention"),
        "convolutions": ("conv", "cudnn", "implicit"),
        "matrix products": ("mm", "gemm", "cublas", "matmul", "linear", "cutlass", "nvjet"),
        "normalisation": ("norm",),
        "optimizer": ("adam", "multi_tensor", "foreach"),
        "elementwise and copies": ("elementwise", "copy", "cat", "add", "mul", "memcpy", "memset", "triton", "reduce"),
    }
    low = name.lower()
    return next((kind for kind, parts in kinds.items() if any(part in low for part in parts)), "rest")


def peak_of(case: Case, side: str) -> dict[str, Any]:
    """The peak of memory of one side, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_gpu", "--family", case.key, "--batch", str(case.batch)]
    command += ["--device", str(case.device), "--compile", case.compile, "--memory-of", side]
    command += ["--precision", {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[case.dtype]]
    command += ["--tiny"] if case.tiny else []
    command += ["--limit-gib", str(case.limit_gib)] if case.limit_gib else []
    command += ["--quantize", case.quantize] if case.quantize else []
    command += ["--targets", case.targets, *(["--cached"] if case.cached else [])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def print_peak(case: Case, side: str, steps: int = 6) -> None:
    """What the child process of `peak_of` prints: the most memory of ``steps`` steps, and what was chosen."""
    notes: tuple[str, ...] = ()
    try:
        work: Ours | Plain = Ours(case) if side == "Patina" else Plain(case)
    except DoesNotFit as error:
        print(json.dumps({"gib": None, "notes": [str(error)]}))
        return
    if isinstance(work, Ours):
        notes = work.fitted.notes
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(case.device)
    for index in range(steps):
        work.step(index)
    print(json.dumps({"gib": memory_in_use(case.device) / GIB, "notes": notes}))


def report(case: Case, rounds: int, steps: int, rate: float, seconds: float) -> bool:
    """The tables of one case, each line as soon as it is known; whether nothing failed."""
    say(f"\n{FAMILIES[case.key].title}, {case.side} px, batch {case.batch}. Each side alone:\n")
    say("| | ms a step | samples/s | share of the matrix rate | peak memory, GiB | ready after, s |")
    say("|---|---:|---:|---:|---:|---:|")
    peaks: dict[str, str] = {}
    ours = alone(case, SIDE_NAMES[0], Ours, steps, rate, peaks)
    plain = alone(case, SIDE_NAMES[1], Plain, steps, rate, peaks)
    if ours is not None:
        bits = f" The weights of its base are in {case.quantize}." if case.quantize else ""
        say(f"\nPatina's blocks compiled: {ours.fitted.config.train.compile}.{bits}", *ours.fitted.notes)
    if ours is not None and plain is not None:
        times = []
        for pair in alternate(ours, plain, rounds, steps, seconds):
            times.append(pair)
            say(f"round {len(times)}: {1000 * pair[0]:.1f} and {1000 * pair[1]:.1f} ms, {pair[1] / pair[0]:.2f} x")
        say("\nIn turns:\n\n| | ms a step | samples/s | share of the matrix rate | peak memory, GiB |")
        say("|---|---:|---:|---:|---:|")
        for index, name in enumerate(SIDE_NAMES):
            speed = speed_of(case, statistics.median(pair[index] for pair in times), rate)
            say(f"| {name} | {speed} | {peaks[name]} |")
        ratio = statistics.median(theirs / own for own, theirs in times)
        say(f"\nPatina is faster by {ratio:.2f} x (median of {len(times)} rounds of {steps} steps).")
    if ours is not None:
        try:
            shares = profile_of(ours)
        except RuntimeError as error:
            say(f"\nNo profile: {error}")
        else:
            say("\nWhere Patina's time goes:\n\n| part | share |\n|---|---:|")
            say(*(f"| {kind} | {part:.0%} |" for kind, part in shares))
    return ours is not None and plain is not None


Side = TypeVar("Side", Ours, Plain)


def alone(
    case: Case, name: str, make: Callable[[Case], Side], steps: int, rate: float, peaks: dict[str, str]
) -> Side | None:
    """Make a side and print the line of some steps of it; None when it fails, which the line says.

    The peak of memory is what it adds to what lay on the card before; a CPU does not tell sides of one process apart.
    """
    cuda, began = case.device.type == "cuda", time.perf_counter()
    before = 0
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(case.device)
    try:
        side = make(case)
        timed(side.step, range(2), case.device)
        ready = time.perf_counter() - began
        if cuda:
            torch.cuda.reset_peak_memory_stats(case.device)
        seconds = timed(side.step, range(2, 2 + steps), case.device) / steps
    except Exception as error:  # a benchmark on a rented card goes on with what works
        say(f"| {name} | failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} |")
        traceback.print_exc()
        return None
    peaks[name] = f"{(memory_in_use(case.device) - before) / GIB:.2f}" if cuda else "-"
    say(f"| {name} | {speed_of(case, seconds, rate)} | {peaks[name]} | {ready:.0f} |")
    return side


def speed_of(case: Case, seconds: float, rate: float) -> str:
    """Three cells of a table: milliseconds a step, samples a second, share of the card's matrix rate."""
    share = case.batch * TFLOP_PER_SAMPLE[case.key] * 1e12 / seconds / rate
    return f"{1000 * seconds:.1f} | {case.batch / seconds:.2f} | {'-' if case.tiny else f'{share:.0%}'}"


def say(*lines: str) -> None:
    """Print at once, whoever reads: a run that is cut off has said what it knew."""
    for line in lines:
        print(line, flush=True)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--family", choices=sorted(FAMILIES), help="one family instead of both")
    options.add_argument("--batch", type=int, nargs="+", help="images a step; otherwise 4 for SD1.5 and 1 for SDXL")
    options.add_argument("--rounds", type=int, default=5, help="at most")
    options.add_argument("--seconds", type=float, default=45, help="after which no round of a case begins")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    options.add_argument("--steps", type=int, default=10, help="steps of each side in a round")
    options.add_argument("--device", default="auto")
    options.add_argument("--compile", choices=("auto", "off", "blocks"), default="auto")
    options.add_argument("--limit-gib", type=float, help="tell the ladder that the card has only so much")
    options.add_argument(
        "--quantize", choices=get_args(Quantize), help="keep the weights of Patina's base in fewer bits"
    )
    options.add_argument("--targets", choices=sorted(TARGETS), default="cross", help="which layers learn")
    options.add_argument(
        "--cached", action="store_true", help="let the plain loop encode images and captions once, too"
    )
    options.add_argument("--tiny", action="store_true", help="tiny models, to see that the benchmark works")
    options.add_argument("--memory-of", choices=SIDE_NAMES, help=argparse.SUPPRESS)
    asked = options.parse_args(arguments)
    device = pick_device(asked.device)
    dtype = pick_dtype(device, asked.precision)
    keys = [asked.family] if asked.family else sorted(FAMILIES)
    cases = [
        Case(
            key=key,
            batch=batch,
            device=device,
            dtype=dtype,
            tiny=asked.tiny,
            compile=asked.compile,
            limit_gib=asked.limit_gib,
            quantize=asked.quantize,
            targets=asked.targets,
            cached=asked.cached,
        )
        for key in keys
        for batch in asked.batch or [BATCHES[key]]
    ]
    fine = True
    if device.type == "cpu":
        set_up_threads(physical_cores())
    with quiet_libraries():
        if asked.memory_of:
            print_peak(cases[0], asked.memory_of)
            return
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        rate = matrix_rate(device, dtype)
        say(f"{name}, torch {torch.__version__}, {dtype}; a large matrix product reaches {rate / 1e12:.1f} TFLOP/s")
        for case in cases:
            if asked.limit_gib:
                found = peak_of(case, "Patina")
                peak = "does not fit" if found["gib"] is None else f"{found['gib']:.2f} GiB"
                say(f"\n{case.key}, batch {case.batch}, told {asked.limit_gib} GiB: {peak}", *found["notes"])
            else:
                fine &= report(case, asked.rounds, asked.steps, rate, asked.seconds)
    if not fine:
        sys.exit(1)


if __name__ == "__main__":
    main()
