"""A run's event log folded into where it stands, read on from where the last reading ended."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainer.events import (
    AnyEvent,
    Failed,
    Finished,
    Interrupted,
    Notice,
    Phase,
    Planned,
    Progress,
    Sampled,
    Saved,
    Started,
    Validated,
    parse_event,
)

MAX_NOTICES = 50


@dataclass
class Standing:
    """Where a run stands, by its own log; paths are relative to the run folder, times Unix seconds.

    Attributes:
        picture_seconds: how long the last round of sample pictures took, all prompts together.
        took: how long the run took to its end; writing its file anew later, to keep another state, does not count.
    """

    step: int = 0
    steps: int = 0
    phase: Phase | None = None
    loss_steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    learning_rate: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    picture_seconds: float | None = None
    validated: list[Validated] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    planned: Planned | None = None
    finished: Finished | None = None
    took: float | None = None
    failed: Failed | None = None
    interrupted: Interrupted | None = None
    first_at: float | None = None
    last_at: float | None = None

    def take(self, event: AnyEvent) -> None:
        """Fold one event in."""
        self.first_at = event.at if self.first_at is None else self.first_at
        if isinstance(event, Sampled) and self.last_at is not None and event.index == 0:
            # A round is told of when all its pictures are drawn; what came before it was said when it began.
            self.picture_seconds = max(0.0, event.at - self.last_at)
        self.last_at = event.at
        if isinstance(event, Started):
            self._start_over(event)
        elif isinstance(event, Phase):
            self.phase = None if event.name == "training" else event
            self.finished = self.failed = self.interrupted = None
        elif isinstance(event, Planned):
            self.planned = event
            self.steps = event.steps
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Validated):
            self.validated.append(event)
        elif isinstance(event, Sampled):
            self.sampled.append(event)
        elif isinstance(event, Saved):
            self.saved = [each for each in self.saved if each.step != event.step] + [event]
        elif isinstance(event, Notice):
            if event.text not in {each.text for each in self.notices}:
                self.notices = [*self.notices, event][-MAX_NOTICES:]
        elif isinstance(event, Finished | Failed | Interrupted):
            self._end(event)

    def time_left(self, settings: Mapping[str, Any]) -> float | None:
        """Seconds until the file is there, from what this run itself took so far; None before the first step.

        The pictures still to come are those of the settings' ``samples.every`` and one more round for the sheet.
        Writing and checking the file are not in it: no run has measured them before its end.
        """
        if self.seconds_left is None:
            return None
        every = int((settings.get("samples") or {}).get("every") or 0)
        ahead = range(self.step + 1, self.steps + 1)
        rounds = sum(1 for step in ahead if step == self.steps or (every and step % every == 0))
        return self.seconds_left + (rounds + 1) * (self.picture_seconds or 0.0)

    def copy(self) -> Standing:
        """A copy that later events do not change."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        lists: dict[str, Any] = {name: list(value) for name, value in values.items() if isinstance(value, list)}
        return replace(self, **lists)

    def _start_over(self, event: Started) -> None:
        """What an earlier attempt said of steps that are done again is void."""
        at = event.step
        keep = bisect_right(self.loss_steps, at)
        del self.loss_steps[keep:], self.losses[keep:]
        self.validated = [each for each in self.validated if each.step <= at]
        # The pictures of step 0 are drawn after the start, those of a checkpoint's step before it.
        self.sampled = [each for each in self.sampled if each.step <= at and at > 0]
        self.saved = [each for each in self.saved if each.step <= at]
        self.step, self.steps = at, event.steps
        self.finished = self.failed = self.interrupted = None
        self.took = self.samples_per_second = self.seconds_left = None

    def _progress(self, event: Progress) -> None:
        first = event.step - len(event.losses) + 1
        self.loss_steps.extend(range(first, event.step + 1))
        self.losses.extend(event.losses)
        self.step, self.steps = event.step, event.steps
        self.learning_rate = event.learning_rate
        self.samples_per_second, self.seconds_left = event.samples_per_second, event.seconds_left
        self.phase = None

    def _end(self, event: Finished | Failed | Interrupted) -> None:
        self.phase = None
        self.seconds_left = None
        self.step = max(self.step, event.step)
        self.finished = event if isinstance(event, Finished) else None
        if self.took is None and self.finished is not None:
            self.took = self.finished.seconds
        self.failed = event if isinstance(event, Failed) else None
        self.interrupted = event if isinstance(event, Interrupted) else None


class RunLog:
    """Reads one run's ``events.jsonl`` as it grows; safe between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._standing = Standing()
        self._version = 0
        self._shown = (Standing(), 0)

    def read(self) -> tuple[Standing, int]:
        """The standing, and a number that changes when it does."""
        with self._lock:
            try:
                with self.path.open("rb") as stream:
                    status = os.fstat(stream.fileno())
                    identity = (status.st_dev, status.st_ino)
                    if identity != self._identity or status.st_size < self._offset:
                        self._identity, self._offset, self._standing = identity, 0, Standing()
                        self._version += 1
                    if status.st_size > self._offset:
                        stream.seek(self._offset)
                        self._take(stream.read())
            except FileNotFoundError:
                if self._identity is not None:
                    self._identity, self._offset, self._standing = None, 0, Standing()
                    self._version += 1
            if self._shown[1] != self._version:
                self._shown = (self._standing.copy(), self._version)
            return self._shown

    def _take(self, fresh: bytes) -> None:
        # The last line may be half-written at this moment: it is read when it is whole.
        whole = fresh.rfind(b"\n") + 1
        self._offset += whole
        for line in fresh[:whole].splitlines():
            event = parse_event(line)
            if event is not None:
                self._standing.take(event)
                self._version += 1
