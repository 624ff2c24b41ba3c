"""What studies and races share: the base and images that all arms are trained on, and an arm's trainer."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import RunConfig, overlay, parse
from trainer.data.dataset import Dataset
from trainer.events import Emit, Notice, Phase
from trainer.hardware import machine, physical_cores, set_up_threads
from trainer.presets import resolve
from trainer.styles.metadata import build
from trainer.styles.write import write_style
from trainer.training.batches import Batches
from trainer.training.export import provenance
from trainer.training.fitting import measure
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.processes import open_accelerator
from trainer.training.room import memory_limit
from trainer.training.run import add_style, open_base
from trainer.training.run_folder import RunFolder
from trainer.training.texts import learns_words

DRAWS = 4
"""Of noise for each held-out image and level; the grid of one draw is `trainer.training.validation.Validation`."""
SAVE_SECONDS = 60.0
TELL_SECONDS = 0.5
USUAL_SHARE = 0.25
"""Of the images that are held out where the settings do not say."""
MOST_TOGETHER = 8
SLOWER = 1.5
"""How much longer than LoRA's a step of any method takes: DoRA's 1.3, textual inversion's 1.2, and room for noise."""
_ROOM = 0.6
"""Share of the free memory that passes of several arms may fill."""


@dataclass(frozen=True)
class Pace:
    """Where a study or a race stands.

    Attributes:
        arms, seed: in training at the moment.
        done, total: steps of all arms and seeds, in a study those of earlier calls left out.
        seconds_left: by the speed so far; None before there is one.
    """

    arms: tuple[str, ...]
    seed: int
    done: int
    total: int
    seconds_left: float | None


class Teller:
    """Tells of the pace, every `TELL_SECONDS` at most and at the end."""

    def __init__(self, told: Callable[[Pace], None]) -> None:
        self.told = told
        self.began = self.said = time.monotonic()

    def tell(self, arms: tuple[str, ...], seed: int, done: int, total: int) -> None:
        """Say where it stands, unless that was said a moment ago; as in `Pace`."""
        now = time.monotonic()
        if now - self.said < TELL_SECONDS and done < total:
            return
        self.said = now
        left = max(0.0, (now - self.began) / done * (total - done)) if done else None
        self.told(Pace(arms, seed, done, total, left))


def with_held_out(config: RunConfig) -> RunConfig:
    """The settings, with `USUAL_SHARE` of the images held out where they hold out none."""
    if config.data.validation_share:
        return config
    config = config.model_copy(deep=True)
    config.data.validation_share = USUAL_SHARE
    return config


@contextmanager
def opened(config: RunConfig, folder: Path, emit: Emit, base: Base | None) -> Iterator[tuple[Base, Dataset, Prepared]]:
    """The base, the images, and what is encoded of them, in a folder that nobody else uses meanwhile.

    Args:
        folder: made when it is not there.
        base: that of ``config`` when it is loaded already.
    """
    place = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with place.held():
        place.clear_scratch()
        base = base or open_base(config, emit, open_accelerator())
        for warning in base.warnings:
            emit(Notice(text=warning, level="warning"))
        for note in base.notes:
            emit(Notice(text=note))
        set_up_threads(config.train.threads or physical_cores())
        emit(Phase(name="reading", detail=config.data.images))
        # Looked at anew each time, so that images that are others now are noticed; what is encoded stays.
        place.dataset_file.unlink(missing_ok=True)
        dataset = read_dataset(place, config, base)
        emit(Phase(name="caching"))
        yield base, dataset, prepare(dataset, config, base, place.cache)


def common_settings(config: RunConfig, base: Base, prepared: Prepared) -> dict[str, Any]:
    """What all arms share, with every choice made and without what belongs to the machine."""
    common = resolve(config, base.family, resolution=base.resolution, images=len(prepared.training))
    settings = common.model_dump(include={"trigger", "data", "adapter", "optim"})
    settings["data"].pop("images")
    settings["train"] = {"steps": common.train.steps}
    return settings


def fingerprint(dataset: Dataset) -> str:
    """What tells these images and captions from others."""
    known = [(example.name, example.sha256, example.caption) for example in dataset.examples]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def trainer_of_arm(
    bank: Bank,
    base: Base,
    prepared: Prepared,
    config: RunConfig,
    name: str,
    changes: Mapping[str, Any],
    *,
    images_per_pass: int | None,
) -> tuple[Trainer, RunConfig]:
    """A trainer at step 0 of settings with some changes, its adapter in the bank under ``name``; and those settings.

    Raises:
        ConfigError: it cannot be trained on this base.
    """
    values = config.model_dump()
    overlay(values, dict(changes))
    settings = resolve(parse(values), base.family, resolution=base.resolution, images=len(prepared.training))
    add_style(bank, base, settings, name)
    batches = Batches(
        base,
        prepared.training,
        prepared.told(base, anew=learns_words(bank, name)),
        batch_size=settings.optim.batch_size or 1,
        accumulation=settings.optim.gradient_accumulation,
        images_per_pass=images_per_pass,
        seed=settings.train.seed,
        caption_dropout=settings.data.caption_dropout,
    )
    return Trainer(base, bank, name, batches, settings), settings


def keep_style(trainer: Trainer, settings: RunConfig, dataset: Dataset, file: Path) -> None:
    """Write what an arm has learned as a style file."""
    facts = provenance(settings, dataset, trainer, started_at=time.time())
    write_style(file, trainer.bank.weights_of(trainer.style, trainer.weights_to_export()), metadata=build(facts))


def room_for(trainer: Trainer, config: RunConfig) -> tuple[int, float | None]:
    """How many arms like this one have room in one pass, by real passes, and the seconds a step of one takes alone.

    The seconds are None where not even one fits as it is.
    """
    device = trainer.base.device
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    seconds = None
    try:
        measured = measure(trainer)
        needs, seconds = max(1, measured.memory_bytes - before), measured.seconds_per_step
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needs = machine(device).total
    trainer.optimizer.zero_grad(set_to_none=True)
    limit = memory_limit(config, device)
    free = machine(device).available if limit is None else max(0, limit - before)
    return max(1, min(MOST_TOGETHER, int(_ROOM * free / needs))), seconds


def steps_within(seconds: float, asked: int, *, arms: int, step: float, measuring: float) -> int:
    """How many steps each of some arms may take, of those asked for, so that all are done within a time.

    Args:
        seconds: for all arms, their training and their measuring.
        step, measuring: seconds that one takes of an arm as quick as LoRA; others are counted as `SLOWER`.
    """
    left = seconds / max(1, arms) - measuring
    return max(1, min(asked, int(left / (SLOWER * step))))


def slug(name: str) -> str:
    """A name as a part of file names: ``lora+`` and ``lora`` stay apart, and so do patterns of targets."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", " plus")).strip("-")
    if re.fullmatch(r"[\w ,=.+-]*", name):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
