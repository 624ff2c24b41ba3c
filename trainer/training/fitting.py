"""What fits this very machine: settings tried from the fastest down, by real steps and a real picture, before a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.adapters.attention import GatedAttention
from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.compiling import can_compile, compile_blocks, uncompile
from trainer.bases.quantised import is_quantised, weight_bytes
from trainer.bases.swapping import swapped
from trainer.config import MemoryConfig, RunConfig
from trainer.errors import ConfigError, DeviceError, DoesNotFit
from trainer.hardware import memory_in_use
from trainer.optimizers import OPTIMIZERS
from trainer.preview.generate import generate
from trainer.preview.order import PreviewRow, PreviewSettings
from trainer.training.ladder import Rung, can_swap, explain, preview_ways, rungs, with_rung
from trainer.training.loop import Trainer
from trainer.training.measured import Known
from trainer.training.room import GIB, if_it_fits, memory_limit, settle

SLOW_PASS = 0.5
"""Seconds: where a pass takes longer, a second look at it would cost more than it tells."""
PICTURE_STEPS = 2
"""Denoising steps of the picture that is tried."""
PASSES_PER_SAMPLE = 2.9
"""A training sample takes as long as so many rows that are only drawn: forward, activation gradients, which take about
twice that, and the adapter's own. Measured with the bundled base, decoding and all: 3.0 on two quiet cores, between 3.5
and 4.5 on one busy one."""
COMPILE_PAYS_AFTER = 180
"""Seconds of training for each image shape from which on compiling is tried: it takes about 40 s and saves a fifth."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one optimizer step, and the most bytes that training has held so far."""

    seconds_per_step: float
    memory_bytes: int


@dataclass(frozen=True)
class Fitted:
    """A run that fits: its config with every choice written down, its trainer, and what was measured.

    Attributes:
        seconds_per_picture: of one sample picture.
        seconds_after: from the last step to the file, where a run of this shape came that far before.
        notes: what was given up for memory, as sentences.
    """

    config: RunConfig
    trainer: Trainer
    measured: Measured
    seconds_per_picture: float
    notes: tuple[str, ...]
    seconds_after: float | None = None

    @property
    def known(self) -> Known:
        """What the next run of this shape need not measure."""
        return Known(
            memory=self.config.memory.model_dump(mode="json"),
            compile=self.config.train.compile,
            seconds_per_step=self.measured.seconds_per_step,
            seconds_per_picture=self.seconds_per_picture,
            memory_bytes=self.measured.memory_bytes,
        )


def fit(
    config: RunConfig,
    base: Base,
    make_trainer: Callable[[RunConfig], Trainer],
    *,
    processes: int = 1,
    known: Known | None = None,
) -> Fitted:
    """Find the fastest settings that fit, by real steps on the largest bucket and a real picture.

    Where nothing limits memory and steps are slow, the picture is not tried but reckoned from the step.

    Args:
        config: resolved; what its ``memory`` section already says is not chosen again.
        make_trainer: a trainer on ``base`` for a config.
        processes: how many share a step's passes.
        known: what was measured of a run of the same shape before; where it still fits nothing is measured.

    Raises:
        ConfigError, DeviceError: compiling was asked for where it is not possible.
        DoesNotFit: even the last rung needs more memory than there is; says what would fit.
    """
    limit = memory_limit(config, base.device)
    levels = base.levels
    if known is not None and (limit is None or known.memory_bytes <= limit):
        return _as_before(config, base, make_trainer, known, limit)
    trainer, rung, measured = _climb(
        config, base, make_trainer, rungs(config, levels, processes, swaps=can_swap(base)), limit
    )
    config, measured = _compiled_if_faster(config, trainer, measured, limit)
    seconds: float | None
    for way in preview_ways(config):
        settle(base, with_rung(config, rung, way).memory)
        if limit is None and measured.seconds_per_step / len(trainer.passes) > SLOW_PASS:
            seconds, peak = _reckoned(trainer, config, measured), 0
        else:
            seconds, peak = _picture(base, trainer.bank, config, limit)
        if seconds is not None:
            chosen = with_rung(config, rung, way)
            measured = Measured(measured.seconds_per_step, max(measured.memory_bytes, peak))
            return Fitted(chosen, trainer, measured, seconds, _notes(chosen, base, levels, measured, limit))
    raise DoesNotFit(_does_not_fit("Drawing a sample picture", config, base, limit))


def _as_before(
    config: RunConfig, base: Base, make_trainer: Callable[[RunConfig], Trainer], known: Known, limit: int | None
) -> Fitted:
    """What was chosen for a run of the same shape, with what that took."""
    chosen = config.model_copy(deep=True)
    chosen.memory = MemoryConfig(**known.memory)
    chosen.train.compile = known.compile  # type: ignore[assignment]
    settle(base, chosen.memory)
    if known.compile == "blocks":
        compile_blocks(base.denoiser)
    measured = Measured(known.seconds_per_step, known.memory_bytes)
    notes = _notes(chosen, base, base.levels, measured, limit)
    return Fitted(chosen, make_trainer(chosen), measured, known.seconds_per_picture, notes, known.seconds_after)


def _reckoned(trainer: Trainer, config: RunConfig, measured: Measured) -> float:
    """Seconds of a picture by those of a step: its rows through the denoiser, and its decoding.

    Decoding takes about as long as a training sample does: in Stable Diffusion 1.5 at 512 pixels 2.5 and 1.8 TFLOP.
    """
    base, batches = trainer.base, trainer.batches
    sample = measured.seconds_per_step / (batches.batch_size * batches.accumulation)
    guidance = base.family.guidance if config.samples.guidance is None else config.samples.guidance
    rows = (config.samples.steps or base.family.steps) * (2 if guidance > 1 else 1)
    area = (base.resolution / (config.data.resolution or base.resolution)) ** 2
    return sample * area * (rows / PASSES_PER_SAMPLE + 1)


def measure(trainer: Trainer) -> Measured:
    """Forward and backward passes on the largest bucket, as in training; no weight moves and no gradient stays.

    Two passes, or three where they are quick.
    """
    device = trainer.base.device
    batches = trainer.batches
    trainer.bank.set_strengths({trainer.style: 1.0})
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) < 3 and seconds[0] < SLOW_PASS):
            number = len(seconds)
            # The first, whose time does not count, is what takes the most memory.
            batch = batches.compose(batches.largest, number) if number else batches.heaviest()
            _wait(device)
            before = time.perf_counter()
            trainer.accumulate(batch)
            _wait(device)
            seconds.append(time.perf_counter() - before)
            trainer.optimizer.zero_grad(set_to_none=True)
    trainer.bank.set_strengths({trainer.style: 1.0})
    warm = min(seconds[1:])
    return Measured(warm * len(trainer.passes), memory_in_use(device))


def _climb(
    config: RunConfig,
    base: Base,
    make_trainer: Callable[[RunConfig], Trainer],
    ladder: list[Rung],
    limit: int | None,
) -> tuple[Trainer, Rung, Measured]:
    """The first rung that fits, with its trainer."""
    for rung in ladder:
        candidate = with_rung(config, rung, "whole")

        def attempt(settings: RunConfig = candidate) -> tuple[Trainer, Measured]:
            settle(base, settings.memory)
            trainer = make_trainer(settings)
            return trainer, measure(trainer)

        found = if_it_fits(base, attempt)
        if found is not None and (limit is None or found[1].memory_bytes <= limit):
            return found[0], rung, found[1]
    raise DoesNotFit(_does_not_fit("Training", config, base, limit))


def _compiled_if_faster(
    config: RunConfig, trainer: Trainer, plain: Measured, limit: int | None
) -> tuple[RunConfig, Measured]:
    """Settle ``train.compile``: as told, or by trying it when the run is long enough to earn back the compilation."""
    wish, denoiser = config.train.compile, trainer.base.denoiser
    chosen = config.model_copy(deep=True)
    chosen.train.compile = "off"
    if wish == "off":
        return chosen, plain
    able = can_compile(trainer.base.device)
    hooked = any(isinstance(layer, GatedAttention) for layer in trainer.bank.layers.values())
    quantised = is_quantised(denoiser)
    if wish == "blocks" and quantised:
        raise ConfigError("train.compile is 'blocks', but a quantised base cannot be compiled: use 'auto'.")
    if wish == "blocks" and hooked:
        raise ConfigError("train.compile is 'blocks', but the method 'prefix' cannot be compiled: use 'auto'.")
    if wish == "blocks" and swapped(denoiser):
        raise ConfigError("train.compile is 'blocks', but weights that wait in main memory cannot be: use 'auto'.")
    able = able and not (quantised or hooked or swapped(denoiser))
    if wish == "blocks" and not able:
        raise DeviceError("train.compile is 'blocks', but compiling needs a card and the Triton package: use 'auto'.")
    earns = plain.seconds_per_step * trainer.settings.steps >= COMPILE_PAYS_AFTER * trainer.batches.buckets
    if wish == "auto" and not (able and earns):
        return chosen, plain
    compile_blocks(denoiser)
    try:
        found = if_it_fits(trainer.base, lambda: measure(trainer))
    except RuntimeError as error:
        # The same pass went through as written: it is the compiler that fails, for want of a C compiler for instance.
        uncompile(denoiser)
        if wish == "blocks":
            raise DeviceError(
                f"train.compile is 'blocks', but the compiler fails here ({str(error).strip().splitlines()[0]}): use "
                "'auto' or 'off'."
            ) from error
        found = None
    good = found is not None and (limit is None or found.memory_bytes <= limit)
    if found is not None and good and (wish == "blocks" or found.seconds_per_step < plain.seconds_per_step):
        chosen.train.compile = "blocks"
        return chosen, found
    uncompile(denoiser)
    trainer.optimizer.zero_grad(set_to_none=True)
    return chosen, plain


def _picture(base: Base, bank: Bank, config: RunConfig, limit: int | None) -> tuple[float | None, int]:
    """Seconds of a sample picture and the peak of memory while drawing one; None when it does not fit."""
    device = base.device
    settings = PreviewSettings(
        steps=PICTURE_STEPS,
        guidance=config.samples.guidance,
        scheduler=config.samples.scheduler or base.family.scheduler,
    )
    row = PreviewRow(prompt="a picture", strengths=(1.0,) * len(bank.names))
    ticks: list[float] = []

    def tick(done: int, total: int) -> bool:
        _wait(device)
        ticks.append(time.perf_counter())
        return True

    def attempt() -> tuple[float, int]:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        before = time.perf_counter()
        generate(base, bank, [row], settings, on_step=tick)
        whole = time.perf_counter() - before
        step = ticks[-1] - ticks[-2]
        more = (config.samples.steps or base.family.steps) - PICTURE_STEPS
        return whole + step * max(0, more), memory_in_use(device)

    found = if_it_fits(base, attempt)
    return found if found is not None and (limit is None or found[1] <= limit) else (None, 0)


def slow_types(config: RunConfig, base: Base) -> list[str]:
    """What is known against the number format that was asked for on this device."""
    if config.train.precision != "bf16" or base.device.type != "cpu":
        return []
    return [
        "On a processor bf16 takes half the memory of fp32, but is often slower: at the full size of Stable Diffusion "
        "1.5 a step took half as long again where it was measured (13.3 s and 9.0 s)."
    ]


def _notes(config: RunConfig, base: Base, levels: int, measured: Measured, limit: int | None) -> tuple[str, ...]:
    given_up, slow = explain(config, levels), slow_types(config, base)
    if not given_up or limit is None:
        return (*given_up, *slow)
    reason = f"To stay within {limit / GIB:.1f} GiB (measured: {measured.memory_bytes / GIB:.1f} GiB):"
    return (reason, *given_up, *slow)


def _does_not_fit(what: str, config: RunConfig, base: Base, limit: int | None) -> str:
    """The sentence with the way out: a smaller side when the weights alone fit, else a smaller base."""
    room = f"{limit / GIB:.1f} GiB" if limit is not None else "what is free"
    weights = weight_bytes(base.denoiser)
    side = config.data.resolution or base.resolution
    smaller = side * 3 // 4 // base.side_multiple * base.side_multiple
    if limit is not None and weights > 0.9 * limit:
        smaller_weights = "" if config.base.quantize == "nf4" else "set base.quantize to 'nf4', "
        way = (
            f"The base's weights alone take {weights / GIB:.1f} GiB: {smaller_weights}choose a smaller base, or "
            "train.device 'cpu'."
        )
    elif smaller >= base.side_multiple:
        way = f"Try data.resolution {smaller}, close other programs that use the card, or choose a smaller base."
    else:
        way = "Close other programs, or choose a smaller base."
    if config.adapter.method == "full" and not OPTIMIZERS[config.optim.optimizer].spares:
        way = f"Set optim.optimizer to 'adamw_8bit'. {way}"
    return f"{what} does not fit into {room} even with every saving. {way}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
