"""What a draft would do, told before anything is loaded: steps, time, memory, file size.

Steps are exact. Time and memory are those of earlier runs of the same kind on this machine; without one they are
estimated from the base's size: a denoising step costs about half a FLOP for each weight and latent cell (Stable
Diffusion 1.5 at 512 pixels: 1.81 TFLOP for 860 M weights and 4,096 cells; SDXL at 1,024: 14.8 for 2.57 G and 16,384).
"""

from __future__ import annotations

import functools
import json
import math
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.adapters.methods import METHODS, told_by_layers
from trainer.adapters.targets import TARGETS, matching
from trainer.bases.describe import BaseInfo
from trainer.bases.families import FAMILIES
from trainer.bases.sources import BUNDLED_FOLDER
from trainer.bases.unet_layers import unet_layers_in
from trainer.bases.weight_files import choose_weights
from trainer.config import FileLayout, RunConfig
from trainer.errors import BaseError, ConfigError
from trainer.presets import resolve
from trainer.safetensors_file import read_header
from trainer.studio.database import Database
from trainer.studio.machine import Device, DeviceKind, cores
from trainer.styles.consumers import foreseen, losses

FLOP_PER_WEIGHT_AND_CELL = 0.4
ACTIVATION_BYTES_PER_PIXEL = 9_000
"""Of one sample in half precision without checkpointing; the CPU's fp32 takes twice that."""
PROCESS_BYTES = 600 * 2**20
"""A worker's libraries, before any model."""
_RATE: Mapping[DeviceKind, float] = {"cuda": 2.0e13, "mps": 2.0e12, "cpu": 2.5e10}
"""FLOP/s that training reaches as a rule; of one core on a CPU."""
_STEP_OVERHEAD: Mapping[DeviceKind, float] = {"cuda": 0.05, "mps": 0.1, "cpu": 0.06}
"""Seconds a step takes however small the model is."""
_START_SECONDS = 12.0
BYTES_A_WEIGHT: Mapping[str, float] = {"nf4": 4.13 / 8, "int8": 8.5 / 8}
"""Of a quantised denoiser, with its scales."""
COUNTED_RUNS = 7
BUSY_SHARE = 0.25
"""From here on a run's time says more about what else ran than about the run."""
_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        seconds: for the whole run, with pictures, writing and checking where it was measured.
        memory_bytes: held at its peak.
        measured: whether a run like it was measured here.
        busy: whether other programs held up the last one that was.
    """

    seconds: float
    memory_bytes: int
    measured: bool
    busy: bool = False


def resolved(config: RunConfig, info: BaseInfo, images: int) -> RunConfig:
    """The settings as the run will take them, for a base that was looked at and so many images."""
    family = FAMILIES[info.family or "bundled"]
    held = max(1, min(images - 1, round(config.data.validation_share * images))) if images > 1 else 0
    kept_out = held if config.data.validation_share > 0 else 0
    return resolve(config, family, resolution=info.resolution or family.default_side, images=max(1, images - kept_out))


def estimate(config: RunConfig, info: BaseInfo, device: Device, past: PastRuns) -> Estimate:
    """Time and memory of a run with resolved settings."""
    steps, batch = config.train.steps or 1, (config.optim.batch_size or 1)
    known = past.get(kind_of(config, device.kind))
    if known is not None:
        seconds = _START_SECONDS + known.seconds_per_step * steps
        return Estimate(seconds, known.memory_bytes, measured=True, busy=known.last_was_busy)
    weights = info.parameters.get("denoiser", 0)
    side = config.data.resolution or info.resolution
    cells = (side / 8) ** 2
    rate = _RATE[device.kind] * (cores() if device.kind == "cpu" else 1)
    batch = math.ceil(batch / config.train.gpus)
    samples = batch * config.optim.gradient_accumulation
    step = samples * FLOP_PER_WEIGHT_AND_CELL * weights * cells / rate + _STEP_OVERHEAD[device.kind]
    width = 4 if device.kind != "cuda" or config.train.precision == "fp32" else 2
    # A smaller denoiser holds less of each pixel; Stable Diffusion 1.5 has 860 M weights.
    held = ACTIVATION_BYTES_PER_PIXEL * side * side * batch * (width / 2) * min(1.0, weights / 860e6)
    spared = weights * (width - BYTES_A_WEIGHT.get(config.base.quantize, width))
    memory = int(sum(info.parameters.values()) * width - spared + held + PROCESS_BYTES)
    return Estimate(_START_SECONDS + step * steps, memory, measured=False)


def kind_of(config: RunConfig, device: str) -> str:
    """What decides how long a step takes, as a key."""
    facts = (
        device,
        config.base.source,
        config.data.resolution,
        config.optim.batch_size,
        config.optim.gradient_accumulation,
        config.adapter.targets,
        config.train.precision,
    )
    # Methods whose updates stack cost the same, and were measured before there were others; as was the base as it is.
    method, quantize, gpus = config.adapter.method, config.base.quantize, config.train.gpus
    more = (
        *(() if METHODS[method].stacks else (method,)),
        *(() if quantize == "off" else (quantize,)),
        *(() if gpus == 1 else (f"on {gpus}",)),
    )
    return json.dumps((*facts, *more))


def file_bytes(config: RunConfig, info: BaseInfo) -> int | None:
    """Size of the style file in fp32; None where only the loaded base can tell: for layers chosen by an expression, and
    methods without a rank."""
    targets = config.adapter.targets or ""
    pattern = TARGETS.get(targets)
    if pattern is None or info.family is None:
        return None
    if not METHODS[config.adapter.method].ranked:
        return None
    family = FAMILIES[info.family]
    values = family.values_per_rank.get(targets)
    if values is None:
        values = _values_in(_folder(info), family.root, pattern)
    # PiSSA's files hold what the adapter ends with and what it began with.
    rank = (config.adapter.rank or 0) * (2 if config.adapter.init == "pissa" else 1)
    return None if values is None else 4 * values * rank + _HEADER_BYTES


def foretold(config: RunConfig, info: BaseInfo) -> tuple[str, ...]:
    """What other programs will lose of the run's file, a sentence each; () where its layers are not known yet."""
    family = FAMILIES.get(info.family or "")
    if family is None:
        return ()
    method = METHODS[config.adapter.method]
    if not told_by_layers(method, config.export.format):
        return (f"{method.readers}.",)
    local = info.kind in ("bundled", "folder")
    folder = _folder(info) if local else BUNDLED_FOLDER.parent / "configs" / family.configs[info.prediction]
    dora = config.adapter.method == "dora"
    return _losses(folder / family.root, family.key, config.adapter.targets or "", config.export.format, dora=dora)


@functools.lru_cache(maxsize=32)
def _losses(folder: Path, family: str, targets: str, layout: FileLayout, *, dora: bool) -> tuple[str, ...]:
    try:
        layers = unet_layers_in(folder)
        chosen = {f"unet.{path}": layers[path] for path in matching(TARGETS.get(targets, targets), list(layers))}
    except (OSError, ValueError, ConfigError):
        # A base of another build, or an expression that is complained about elsewhere.
        return ()
    # As `trainer.training.export.foretold` does.
    own = replace(FAMILIES[family], text_width=None)
    return losses(foreseen(chosen, own, layout, dora=dora)) if chosen else ()


def _values_in(base: Path, denoiser: str, pattern: str) -> int | None:
    names = [f"{denoiser}/{path.name}" for path in (base / denoiser).glob("*")]
    try:
        files = choose_weights(names, denoiser, None, str(base)).files
        headers = [read_header(base / name, BaseError) for name in files]
    except BaseError:
        return None
    wanted = re.compile(rf"({pattern})\.weight")
    shapes = (entry for header in headers for entry in header.shapes.items())
    return sum(sum(shape) for name, shape in shapes if len(shape) == 2 and wanted.fullmatch(name))


def _folder(info: BaseInfo) -> Path:
    return BUNDLED_FOLDER if info.kind == "bundled" else Path(info.source)


@dataclass(frozen=True)
class Past:
    """What runs of a kind took here: seconds a step, bytes at the peak, and whether the last one was held up."""

    seconds_per_step: float
    memory_bytes: int
    last_was_busy: bool


class PastRuns:
    """What runs took on this machine, by `kind_of`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, kind: str) -> Past | None:
        """What to expect of the next one.

        It is the median of the last runs that had the machine to themselves. While there is none it is the quickest of
        the others, as whatever held them up may be gone by then.
        """
        rows = self._db.all("SELECT * FROM past_runs WHERE kind = ? ORDER BY at DESC LIMIT ?", (kind, COUNTED_RUNS))
        if not rows:
            return None
        quiet = [row["seconds_per_step"] for row in rows if row["busy"] < BUSY_SHARE]
        seconds = statistics.median_low(quiet) if quiet else min(row["seconds_per_step"] for row in rows)
        return Past(seconds, max(row["memory_bytes"] for row in rows), rows[0]["busy"] >= BUSY_SHARE)

    def note(self, run: str, kind: str, seconds_per_step: float, memory_bytes: int, busy: float = 0.0) -> None:
        """Remember what a run took; ``busy`` is the share of its own time that other programs took from it."""
        self._db.write(
            "INSERT OR REPLACE INTO past_runs (run, kind, seconds_per_step, memory_bytes, busy, at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (run, kind, seconds_per_step, memory_bytes, busy, time.time()),
        )


def side_multiple(info: BaseInfo) -> int:
    """Sides in pixels must be multiples of this on the base, see `trainer.bases.base.Base.side_multiple`."""
    folder, family = _folder(info), FAMILIES[info.family or "bundled"]
    try:
        vae, denoiser = (_levels(folder / part / "config.json") for part in ("vae", family.root))
    except (OSError, ValueError, KeyError, TypeError):
        return family.side_multiple
    return int(2 ** (vae - 1) * 2 ** (denoiser - 1))


def _levels(file: Path) -> int:
    config: dict[str, Any] = json.loads(file.read_bytes())
    return len(config["block_out_channels"])
