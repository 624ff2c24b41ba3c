"""What a user does with runs: start, pause, resume, stop, cancel, delete; and runs that come from elsewhere."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.errors import PatinaError, StudioError
from trainer.studio.desk import Desk
from trainer.studio.home import Home
from trainer.studio.overview import Overview
from trainer.studio.store import RunRow, State, Store, Wish
from trainer.studio.supervisor import Supervisor
from trainer.training.run_folder import RunFolder

TRASH_SECONDS = 30 * 24 * 3600.0


class Conductor:
    """Changes of state that a user asks for; each is legal or refused with a sentence."""

    def __init__(self, home: Home, store: Store, desk: Desk, overview: Overview, supervisor: Supervisor) -> None:
        self._home, self._store, self._desk = home, store, desk
        self._overview, self._supervisor = overview, supervisor

    def enqueue(self, run_id: str) -> None:
        """Train a draft as soon as the worker is free.

        Raises:
            ConfigError, DatasetError, StudioError: it cannot start; nothing is changed then.
        """
        run = self._store.get(run_id)
        if run.state is not State.DRAFT:
            raise StudioError(f"{run.name} is {run.state} already.")
        config = self._desk.ready(run_id)
        with self._store.db.transaction():
            RunFolder(self._home.run(run_id)).write_config(config)
            self._store.enqueue(run_id)
        self._supervisor.look()

    def pause(self, run_id: str) -> None:
        """Save and wait; in the queue, step aside."""
        with self._store.db.transaction():
            run = self._store.get(run_id)
            if run.state is State.QUEUED:
                self._step_aside(run)
            else:
                self._wish(run, Wish.PAUSE, "paused")
        self._supervisor.steer(run_id)

    def resume(self, run_id: str) -> None:
        """Go on with a paused, failed or cancelled run; a run whose pause was only asked for goes straight on."""
        with self._store.db.transaction():
            run = self._store.get(run_id)
            if run.state is State.TRAINING:
                self._store.wish(run_id, Wish.NONE)
            else:
                self._home.require_space(0, "Going on")
                self._store.enqueue(run_id)
        self._supervisor.steer(run_id)
        self._supervisor.look()

    def stop_and_keep(self, run_id: str) -> None:
        """End a run now and export what it has learned.

        Raises:
            StudioError: it has not learned anything yet.
        """
        with self._store.db.transaction():
            run = self._store.get(run_id)
            if not self._overview.standing(run_id).step:
                raise StudioError(f"{run.name} has not learned anything yet that could be kept. Cancel it instead.")
            if run.state is State.PAUSED:
                self._store.enqueue(run_id, first=True, wish=Wish.STOP)
            elif run.state is State.QUEUED:
                self._store.wish(run_id, Wish.STOP)
            else:
                self._wish(run, Wish.STOP, "stopped")
        self._supervisor.steer(run_id)
        self._supervisor.look()

    def cancel(self, run_id: str) -> None:
        """End a run without a file; a queued draft becomes a draft again."""
        with self._store.db.transaction():
            run = self._store.get(run_id)
            if run.state is State.TRAINING:
                self._store.wish(run_id, Wish.CANCEL)
            elif run.state is State.QUEUED:
                self._step_aside(run)
            else:
                self._store.move_to(run_id, State.CANCELLED)
        self._supervisor.steer(run_id)

    def move(self, run_id: str, index: int) -> None:
        """Move a queued run to a place in the queue, 0 being the next."""
        self._store.reorder(run_id, index)

    def delete(self, run_id: str) -> None:
        """Put a run in the trash."""
        self._store.trash(run_id, deleted=True)
        self._move_folder(self._home.run(run_id), self._home.trash / run_id)
        self._overview.forget(run_id)

    def restore(self, run_id: str) -> None:
        """Take a run back from the trash."""
        self._move_folder(self._home.trash / run_id, self._home.run(run_id))
        self._store.trash(run_id, deleted=False)

    def empty_trash(self, before: float | None = None) -> None:
        """Remove for good what was deleted before a time; None is 30 days ago."""
        limit = time.time() - TRASH_SECONDS if before is None else before
        for run in self._store.all(trashed=True):
            if run.trashed is not None and run.trashed < limit:
                shutil.rmtree(self._home.trash / run.id, ignore_errors=True)
                self._store.forget(run.id)

    def adopt(self) -> None:
        """List runs that lie in the studio folder and were made by the command line, or whose list was lost."""
        known = self._store.known()
        for path in sorted(self._home.runs.iterdir()):
            folder = RunFolder(path)
            if path.name not in known and path.is_dir() and folder.exists() and not _is_locked(folder):
                self._adopt(folder)

    def _adopt(self, folder: RunFolder) -> None:
        try:
            config = folder.config()
        except PatinaError:
            return
        standing = self._overview.standing(folder.path.name)
        state = State.PAUSED
        if standing.finished is not None and folder.adapter_file.is_file():
            state = State.FINISHED
        elif standing.failed is not None:
            state = State.FAILED
        settings = config.model_dump(exclude_none=True)
        created = standing.first_at or folder.config_file.stat().st_mtime
        message = standing.failed.message if standing.failed is not None and state is State.FAILED else ""
        self._store.add(folder.path.name, config.name, settings, state, created, message)

    def _step_aside(self, run: RunRow) -> None:
        started = RunFolder(self._home.run(run.id)).events_file.is_file()
        self._store.move_to(run.id, State.PAUSED if started else State.DRAFT)

    def _wish(self, run: RunRow, wish: Wish, word: str) -> None:
        if run.state is not State.TRAINING:
            raise StudioError(f"{run.name} is {run.state} and cannot be {word}.")
        self._store.wish(run.id, wish)

    def _move_folder(self, source: Path, target: Path) -> None:
        if not source.exists():
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        except OSError as error:
            raise StudioError(f"{source} cannot be moved ({error.strerror or error}); is a file of it open?") from None


def _is_locked(folder: RunFolder) -> bool:
    """Whether some process trains this run at the moment."""
    try:
        with FileLock(folder.lock_file, timeout=0):
            return False
    except (Timeout, OSError):
        return True
