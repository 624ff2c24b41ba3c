"""The studio's list of runs: their states and the queue.

    draft -> queued -> training -> finished | failed | cancelled | paused -> queued ...

The list says what *should* be with a run; what *was* done lies in its folder (`trainer.training.run_folder`). A change
of state that is not in `TRANSITIONS` is refused, whoever asks, so two browser tabs cannot talk a run into nonsense.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trainer.errors import StudioError
from trainer.studio.database import Database

MAX_CRASHES = 3


class State(StrEnum):
    """What can be said of a run."""

    DRAFT = "draft"
    QUEUED = "queued"
    TRAINING = "training"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Wish(StrEnum):
    """What the user asked of a run in training; kept here so that it outlives a crash between asking and doing."""

    NONE = ""
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.DRAFT: frozenset({State.QUEUED}),
    # Back to draft or paused when it is taken out of the queue: paused where it had been trained before.
    State.QUEUED: frozenset({State.TRAINING, State.DRAFT, State.PAUSED, State.CANCELLED, State.FAILED}),
    # Back to queued when its worker died or the studio closed: it goes on by itself.
    State.TRAINING: frozenset({State.PAUSED, State.FINISHED, State.FAILED, State.CANCELLED, State.QUEUED}),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
    State.FINISHED: frozenset(),
    State.FAILED: frozenset({State.QUEUED, State.CANCELLED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}


@dataclass(frozen=True)
class RunRow:
    """A run as the list knows it; times are Unix seconds."""

    id: str
    name: str
    state: State
    settings: dict[str, Any]
    created: float
    updated: float
    position: float | None
    wish: Wish
    crashes: int
    message: str
    trashed: float | None


class Store:
    """Runs, their states and their queue; safe between threads and between processes."""

    def __init__(self, database: Database) -> None:
        self.db = database

    def add(
        self,
        run_id: str,
        name: str,
        settings: Mapping[str, Any],
        state: State = State.DRAFT,
        created: float | None = None,
        message: str = "",
    ) -> RunRow:
        """A new run; any state but ``queued`` and ``training``, as a run found in the folder may be long finished."""
        assert state not in (State.QUEUED, State.TRAINING)
        now = time.time()
        self.db.write(
            "INSERT INTO runs (id, name, state, settings, created, updated, message) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run_id, name, state, json.dumps(settings), created or now, now, message),
        )
        return self.get(run_id)

    def get(self, run_id: str) -> RunRow:
        """One run.

        Raises:
            StudioError: there is none of that id.
        """
        row = self.db.one("SELECT * FROM runs WHERE id = ?", (run_id,))
        if row is None:
            raise StudioError(f"There is no run {run_id!r} in this studio; it may have been deleted. Reload the page.")
        return _run(row)

    def all(self, *, trashed: bool = False) -> list[RunRow]:
        """All runs, newest first; with ``trashed`` the deleted ones instead."""
        condition = "IS NOT NULL" if trashed else "IS NULL"
        return [
            _run(row)
            for row in self.db.all(f"SELECT * FROM runs WHERE trashed {condition} ORDER BY created DESC, id DESC")
        ]

    def in_state(self, state: State) -> list[RunRow]:
        """Runs in a state, in the order of the queue, then oldest first."""
        rows = self.db.all(
            "SELECT * FROM runs WHERE state = ? AND trashed IS NULL ORDER BY position, created, id", (state,)
        )
        return [_run(row) for row in rows]

    def known(self) -> set[str]:
        """Ids of all runs, deleted ones too."""
        return {row["id"] for row in self.db.all("SELECT id FROM runs")}

    def rename(self, run_id: str, name: str) -> None:
        """Give the run another name."""
        self._change(run_id, name=name)

    def set_settings(self, run_id: str, settings: Mapping[str, Any]) -> None:
        """Replace a draft's settings; its name follows ``settings["name"]``.

        Raises:
            StudioError: the run is no draft any more.
        """
        with self.db.transaction():
            run = self.get(run_id)
            if run.state is not State.DRAFT:
                raise StudioError(
                    f"{run.name} is {run.state} and keeps the settings it started with. "
                    "Duplicate it to train with other settings."
                )
            self._change(run_id, settings=json.dumps(settings), name=str(settings.get("name", run.name)))

    # ---- states

    def move_to(self, run_id: str, state: State, message: str = "") -> RunRow:
        """Change a run's state.

        Raises:
            StudioError: the state cannot follow the run's present one.
        """
        with self.db.transaction():
            run = self.get(run_id)
            if state not in TRANSITIONS[run.state]:
                raise StudioError(
                    f"{run.name} is {run.state} and cannot become {state}. Reload the page to see its state."
                )
            self._change(run_id, state=state, message=message, position=None)
            return self.get(run_id)

    def enqueue(self, run_id: str, *, first: bool = False, wish: Wish = Wish.NONE) -> RunRow:
        """Put a run at the end, or with ``first`` at the head of the queue, as new: crashes are forgotten."""
        with self.db.transaction():
            self.move_to(run_id, State.QUEUED)
            self._change(run_id, position=self._end(first=first), wish=wish, crashes=0, crash_step=-1)
            return self.get(run_id)

    def reorder(self, run_id: str, index: int) -> None:
        """Move a queued run to a place in the queue, 0 being the next to train.

        Raises:
            StudioError: the run does not wait in the queue.
        """
        with self.db.transaction():
            queue = [run.id for run in self.in_state(State.QUEUED)]
            if run_id not in queue:
                raise StudioError(f"{self.get(run_id).name} does not wait in the queue any more.")
            queue.remove(run_id)
            queue.insert(max(0, index), run_id)
            for position, each in enumerate(queue):
                self.db.write("UPDATE runs SET position = ? WHERE id = ?", (float(position), each))

    def wish(self, run_id: str, wish: Wish) -> None:
        """Note what the user wants of a run in training."""
        self._change(run_id, wish=wish)

    def trash(self, run_id: str, deleted: bool) -> None:
        """Mark a run as deleted, or take that back.

        Raises:
            StudioError: it is in training.
        """
        with self.db.transaction():
            run = self.get(run_id)
            if deleted and run.state is State.TRAINING:
                raise StudioError(f"{run.name} is in training. Pause or cancel it first, then delete it.")
            if deleted and run.state is State.QUEUED:
                self.move_to(run_id, State.CANCELLED)
            self._change(run_id, trashed=time.time() if deleted else None)

    def forget(self, run_id: str) -> None:
        """Strike a run from the list for good."""
        self.db.write("DELETE FROM runs WHERE id = ?", (run_id,))

    # ---- work

    def claim(self, run_id: str) -> bool:
        """Begin a queued run, which the caller holds (`RunFolder.held`); False when it is not queued."""
        with self.db.transaction():
            row = self.db.one("SELECT state, trashed FROM runs WHERE id = ?", (run_id,))
            if row is None or row["state"] != State.QUEUED or row["trashed"] is not None:
                return False
            self.move_to(run_id, State.TRAINING)
            return True

    def hand_back(self, run_id: str, state: State, message: str = "") -> None:
        """End the work on a claimed run, which the caller still holds.

        Args:
            state: ``finished``, ``failed``, or ``queued`` for a run that was saved before its end: the user's wish
                then decides whether it rests (paused, cancelled) or goes on as the next.

        Raises:
            StudioError: the run is not in training.
        """
        with self.db.transaction():
            if state is State.QUEUED:
                self._requeue(run_id)
            else:
                self.move_to(run_id, state, message)
                self._change(run_id, wish=Wish.NONE, crashes=0, crash_step=-1)

    def recover(self, run_id: str, step: int, *, crashed: bool) -> RunRow:
        """Put a run that nobody holds any more back at the head of the queue.

        Args:
            step: how far its saved states reach.
            crashed: its worker died over it; a run that keeps dying without getting further fails.
        """
        with self.db.transaction():
            row = self.db.one("SELECT crashes, crash_step FROM runs WHERE id = ?", (run_id,))
            if self.get(run_id).state is not State.TRAINING:
                return self.get(run_id)
            if not crashed:
                self._requeue(run_id)
                return self.get(run_id)
            crashes = 1 if step > row["crash_step"] else row["crashes"] + 1
            if crashes >= MAX_CRASHES:
                self.move_to(
                    run_id,
                    State.FAILED,
                    f"The worker died {crashes} times without getting further than step {step}. Often memory "
                    "runs out: try a smaller batch or resolution. The end of its log is crash.log in the run's folder.",
                )
            else:
                self._requeue(run_id)
            self._change(run_id, crashes=crashes, crash_step=step)
            return self.get(run_id)

    def _requeue(self, run_id: str) -> None:
        wish = self.get(run_id).wish
        self.move_to(run_id, State.QUEUED)
        self._change(run_id, position=self._end(first=True))
        # The user asked for it before the worker died; a dead run needs no worker to be paused or cancelled.
        if wish in (Wish.PAUSE, Wish.CANCEL):
            self.move_to(run_id, State.PAUSED if wish is Wish.PAUSE else State.CANCELLED)
            self._change(run_id, wish=Wish.NONE)

    def _end(self, *, first: bool) -> float:
        low, high = self.db.one("SELECT min(position), max(position) FROM runs WHERE state = 'queued'")
        if first:
            return 0.0 if low is None else low - 1.0
        return 0.0 if high is None else high + 1.0

    def _change(self, run_id: str, **values: Any) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        changed = self.db.write(
            f"UPDATE runs SET {columns}, updated = ? WHERE id = ?", (*values.values(), time.time(), run_id)
        )
        if not changed:
            self.get(run_id)


def _run(row: sqlite3.Row) -> RunRow:
    return RunRow(
        id=row["id"],
        name=row["name"],
        state=State(row["state"]),
        settings=json.loads(row["settings"]),
        created=row["created"],
        updated=row["updated"],
        position=row["position"],
        wish=Wish(row["wish"]),
        crashes=row["crashes"],
        message=row["message"],
        trashed=row["trashed"],
    )
