"""What was measured of runs before: one of the same shape on the same machine is not measured again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.atomic import write_file
from trainer.bases.base import Base, TextFeatures
from trainer.config import RunConfig
from trainer.hardware import machine
from trainer.training.batches import TrainingImage
from trainer.version import __version__

MOST = 200
"""Shapes that are remembered, those that were used last."""


@dataclass(frozen=True)
class Known:
    """What was chosen for runs of a shape, and what they take.

    Attributes:
        memory: fields of the config's ``memory`` section.
        compile: ``train.compile`` as it was settled.
        seconds_per_step, seconds_per_picture: as measured; of a step, in the training itself where there was one.
        memory_bytes: the most that was held.
        seconds_after: from the last step to the file, with judging, sheet and proof; None where no run came that far.
    """

    memory: dict[str, Any]
    compile: str
    seconds_per_step: float
    seconds_per_picture: float
    memory_bytes: int
    seconds_after: float | None = None


class PastFits:
    """Reads and writes ``measured.json``; a file that cannot be read or written only costs measuring again.

    Args:
        file: None is the user's own (`measured_file`).
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or measured_file()

    def get(self, shape: str) -> Known | None:
        """What is known of runs of a shape (`shape_of`)."""
        try:
            return Known(**self._rows()[shape]["known"])
        except (KeyError, TypeError):
            return None

    def note(self, shape: str, known: Known) -> None:
        """Remember what a run of a shape took."""
        rows = {**self._rows(), shape: {"at": time.time(), "known": asdict(known)}}
        newest = sorted(rows, key=lambda each: rows[each]["at"])[-MOST:]
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.file, json.dumps({each: rows[each] for each in newest}, indent=1).encode())

    def _rows(self) -> dict[str, Any]:
        try:
            rows = json.loads(self.file.read_bytes())
            return {key: row for key, row in rows.items() if isinstance(row["at"], float) and "known" in row}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}


def measured_file() -> Path:
    """``measured.json`` in ``PATINA_HOME``, or in the user's folder for what may be lost."""
    chosen = os.environ.get("PATINA_HOME", "").strip()
    if chosen:
        return Path(chosen).expanduser() / "measured.json"
    from platformdirs import user_cache_path

    return user_cache_path("patina", appauthor=False) / "measured.json"


def shape_of(
    config: RunConfig, base: Base, images: Sequence[TrainingImage], features: TextFeatures, processes: int = 1
) -> str:
    """All that time and memory of a resolved run depend on, as a hash: machine, base, what learns, and sizes."""
    has = machine(base.device)
    adapter, optim, train = config.adapter, config.optim, config.train
    facts = (
        __version__,
        torch.__version__,
        (str(base.device), has.name, has.total, train.threads, processes),
        (base.identity, base.vae_identity, str(base.dtype), config.base.quantize, base.resolution),
        adapter.model_dump(mode="json"),
        (optim.optimizer, optim.batch_size, optim.gradient_accumulation, bool(optim.ema_decay)),
        (train.preserve, train.steps, train.compile),
        config.memory.model_dump(mode="json"),
        config.samples.model_dump(mode="json", include={"steps", "guidance", "scheduler"}),
        (len(config.samples.prompts), config.judging.model_dump(mode="json")),
        sorted({tuple(image.mean.shape[1:]) for image in images}),
        (tuple(features.hidden.shape[1:]), any(image.mask is not None for image in images)),
    )
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
