"""Signs of life: while something takes long, whoever waits is told every few seconds what it is and since when."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from trainer.events import Emit, Event, Phase, Progress

EVERY = 4.0
"""Seconds of silence after which the phase is said again."""


class SignsOfLife:
    """Passes events on, and says the phase once more with its ``seconds`` when none came for a while.

    It watches from a thread of its own while it is open, as the work it waits for may be a single call; never are two
    events passed on at once. What is said again is not part of a run's log.

    Args:
        show: told of all events.
        repeat: told of what is said again; None is ``show``.
        every: seconds of silence.
    """

    def __init__(self, show: Emit, repeat: Emit | None = None, *, every: float = EVERY) -> None:
        self._show, self._repeat, self._every = show, repeat or show, every
        self._phase: Phase | None = None
        self._since = self._heard = time.monotonic()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="signs of life", daemon=True)

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._heard = time.monotonic()
            if isinstance(event, Phase):
                if self._phase is None or self._phase.name != event.name:
                    self._since = self._heard
                self._phase = event
            elif isinstance(event, Progress):
                # Between two steps it is the step that takes its time.
                self._since = self._heard
                self._phase = Phase(name="training", done=event.step, total=event.steps)
            self._show(event)

    def __enter__(self) -> SignsOfLife:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # Its own thread may be the one that waits for this lock.
        self._thread.join(timeout=self._every)

    def _watch(self) -> None:
        while not self._over.wait(self._every / 4):
            with self._lock:
                now = time.monotonic()
                if self._phase is None or now - self._heard < self._every or self._over.is_set():
                    continue
                self._heard = now
                self._repeat(self._phase.model_copy(update={"seconds": now - self._since, "at": time.time()}))
