"""A run's folder: the only place where names of its files are written down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from trainer import config as configs
from trainer.atomic import remove_leftovers, write_file
from trainer.config import RunConfig
from trainer.errors import RunError
from trainer.events import AnyEvent, Event, Started, parse_event


class Origin(BaseModel):
    """The run that another one repeats with other settings or images.

    Attributes:
        run: the name of its folder.
        name: of its style, as it was then.
        without: what the user calls the image that was left out, if one was.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str
    name: str
    without: str = ""


@dataclass(frozen=True)
class RunFolder:
    """One training with everything it leaves behind; ``path`` need not exist yet."""

    path: Path

    @property
    def config_file(self) -> Path:
        """What was asked for, and after the first start what was chosen."""
        return self.path / "config.toml"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def dataset_file(self) -> Path:
        return self.path / "dataset.json"

    @property
    def images(self) -> Path:
        """The studio's own copies of the images; a run of the command line leaves them where they are."""
        return self.path / "images"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def adapter_file(self) -> Path:
        return self.path / "adapter.safetensors"

    @property
    def peft_folder(self) -> Path:
        """What PEFT opens of a method that has a form of its own there."""
        return self.path / "peft"

    @property
    def sheet_file(self) -> Path:
        """Base beside style, the run's last picture."""
        return self.path / "sheet.png"

    @property
    def judgement_file(self) -> Path:
        """What was said of the kept checkpoints; missing where nothing was judged."""
        return self.path / "judgement.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "run.lock"

    @property
    def recovery_file(self) -> Path:
        """What the run changed to survive; missing where nothing happened."""
        return self.path / "recovery.json"

    @property
    def race(self) -> Path:
        """Where learning rates raced before the training; missing where none did."""
        return self.path / "race"

    @property
    def votes_file(self) -> Path:
        """What was voted on its judged states; missing where nobody did."""
        return self.path / "votes.json"

    @property
    def looks_file(self) -> Path:
        """What early stopping saw on the way; missing where it is off."""
        return self.path / "looks.json"

    @property
    def origin_file(self) -> Path:
        """Which run this one repeats with other settings or images; missing where it began anew."""
        return self.path / "origin.json"

    @contextmanager
    def held(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the run: one process trains it. The system ends the hold with the process, however that ends.

        Within a thread one hold may be taken inside another.

        Args:
            patience: seconds to wait for whoever holds it.

        Raises:
            RunError: another process holds it.
        """
        lock = FileLock(self.lock_file, is_singleton=True)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise RunError(f"{self.path} is being trained by another process; wait for it or stop it first.") from None
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether some process trains this run at the moment."""
        if not self.lock_file.is_file():
            return False
        try:
            with FileLock(self.lock_file, timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def saved(self) -> list[tuple[int, Path]]:
        """The run's checkpoints as (step, folder), newest first."""
        return listed(self.checkpoints)

    def clear_scratch(self) -> None:
        """Remove what processes that were killed while they wrote left in the folder; only whoever holds it may."""
        for place in (self.path, self.samples, *self.cache.glob("*/"), self.cache):
            remove_leftovers(place)
        for half in self.checkpoints.glob(".step-*.tmp"):
            shutil.rmtree(half, ignore_errors=True)

    def discard(self) -> None:
        """Remove what a run wrote before it learned anything; what is not a run's is left where it is."""
        self.clear_scratch()
        for part in (self.cache, self.samples, self.checkpoints, self.race):
            shutil.rmtree(part, ignore_errors=True)
        notes = (self.dataset_file, self.events_file, self.recovery_file, self.looks_file, self.origin_file)
        for file in (self.config_file, *notes, self.lock_file):
            file.unlink(missing_ok=True)

    def exists(self) -> bool:
        return self.config_file.is_file()

    def config(self) -> RunConfig:
        """The run's settings.

        Raises:
            RunError: the folder is no run folder.
            ConfigError: its settings do not hold.
        """
        if not self.exists():
            raise RunError(f"{self.path} is no run folder: it has no config.toml.")
        return configs.load(self.config_file)

    def write_config(self, config: RunConfig) -> None:
        """Write the settings so that a crash leaves the old file or the new one, never half of one."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.config_file, config.to_toml().encode())

    def origin(self) -> Origin | None:
        """The run that this one repeats, or None; what cannot be read counts as none."""
        try:
            return Origin.model_validate_json(self.origin_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write_origin(self, origin: Origin) -> None:
        """Note which run this one repeats."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.origin_file, origin.model_dump_json(exclude_defaults=True).encode() + b"\n")

    def append(self, event: Event) -> None:
        """Add an event to the log; a torn last line of an earlier process is closed first."""
        torn = False
        if self.events_file.is_file() and self.events_file.stat().st_size:
            with self.events_file.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                torn = stream.read(1) != b"\n"
        with self.events_file.open("ab") as stream:
            stream.write(b"\n" * torn + event.line().encode() + b"\n")

    def events(self) -> Iterator[AnyEvent]:
        """The log as it stands: what an earlier attempt said of steps that were then done again is left out."""
        if not self.events_file.is_file():
            return
        read = [event for line in self.events_file.read_bytes().splitlines() if (event := parse_event(line))]
        kept: list[AnyEvent] = []
        for event in read:
            if isinstance(event, Started):
                kept = [old for old in kept if getattr(old, "step", 0) <= event.step and not _is_end(old)]
            kept.append(event)
        yield from kept


def checkpoint_name(step: int) -> str:
    """The name of the folder that holds the state after ``step`` steps."""
    return f"step-{step:06d}"


def listed(parent: Path) -> list[tuple[int, Path]]:
    """The checkpoint folders below ``parent`` as (step, folder), newest first; none when it does not exist."""
    found = ((path.name.removeprefix("step-"), path) for path in parent.glob("step-*") if path.is_dir())
    return sorted(((int(s), path) for s, path in found if s.isascii() and s.isdigit()), reverse=True)


def _is_end(event: AnyEvent) -> bool:
    return event.type in {"interrupted", "failed", "finished"}
