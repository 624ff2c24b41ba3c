"""The runs: what a user sees of them and does with them, and those that come from elsewhere.

What a view shows is the list's row and the run's own log together, kept until either changes.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from trainer import config as configs
from trainer.atomic import write_file
from trainer.config.sections import ChangedImages
from trainer.errors import PatinaError, RunError, StudioError
from trainer.events import Phase
from trainer.judging import votes as ballots
from trainer.judging.judgement import Judgement, from_json
from trainer.judging.votes import Vote, next_pair
from trainer.studio.compared import Compared, compared
from trainer.studio.drafts import Drafts
from trainer.studio.folder import StudioFolder
from trainer.studio.run_log import RunLog, Standing
from trainer.studio.store import RunRow, State, Store, Wish
from trainer.studio.views import RunSummary, RunView
from trainer.studio.worker.protocol import Judge
from trainer.studio.worker.supervisor import Supervisor
from trainer.training.run_folder import Origin, RunFolder

ADOPT_SECONDS = 10.0


class Runs:
    """Every change of state that a user asks for is legal or refused with a sentence.

    Args:
        first_image: a picture of a run before it has samples.
    """

    def __init__(
        self,
        home: StudioFolder,
        store: Store,
        drafts: Drafts,
        supervisor: Supervisor,
        first_image: Callable[[str], Path | None],
    ) -> None:
        self._home, self._store, self._drafts, self._supervisor = home, store, drafts, supervisor
        self._first_image = first_image
        self._lock = threading.Lock()
        self._logs: dict[str, RunLog] = {}
        self._shown: dict[str, tuple[object, RunView]] = {}
        self._rewriting: dict[str, Future[dict[str, Any]]] = {}
        self._adopted = 0.0

    # ---- looking

    def standing(self, run_id: str) -> Standing:
        """Where a run stands by its own log."""
        return self._log(run_id).read()[0]

    def all(self) -> list[RunSummary]:
        """All runs: in training, then the queue in order, then the others, newest first."""
        if time.monotonic() - self._adopted > ADOPT_SECONDS:
            self._adopted = time.monotonic()
            self.adopt()
        runs = self._store.all()
        queue = self._places()
        order = {State.TRAINING: 0, State.QUEUED: 1}
        runs.sort(key=lambda run: (order.get(run.state, 2), queue.get(run.id, 0)))
        return [self._summary(run, queue.get(run.id)) for run in runs]

    def in_training(self) -> list[RunSummary]:
        """The runs in training, for the chips on every tab; several where there are several cards."""
        return [self._summary(run, None) for run in self._store.in_state(State.TRAINING)]

    def starts_at_once(self, run_id: str) -> bool:
        """Whether a run that is queued begins as soon as its worker is there, and waits for no other in training."""
        return self._supervisor.starts_at_once(self._store.get(run_id))

    def view(self, run_id: str) -> RunView:
        """Everything about a run, cheap enough for a timer; the same object as before when nothing changed.

        Raises:
            StudioError: there is no such run.
        """
        run = self._store.get(run_id)
        standing, log_version = self._log(run_id).read()
        phase = None
        if run.state is State.TRAINING or self.is_rewritten(run_id):
            phase = self._supervisor.phase(run_id)
        if phase is None and self.is_rewritten(run_id):
            phase = Phase(name="loading")
        failed = run.message if run.state is State.FAILED else self._rewriting_failed(run_id)
        place = self._places().get(run_id) if run.state is State.QUEUED else None
        waits = self._waits(run)
        folder = RunFolder(self._home.run(run_id))
        votes = votes_of(folder) if run.state is State.FINISHED else ()
        inputs = (run, log_version, phase, place, waits, failed, votes)
        with self._lock:
            before = self._shown.get(run_id)
            if before is not None and before[0] == inputs:
                return before[1]
            count = before[1].version[1] + 1 if before is not None else 0
            judged = run.state is State.FINISHED and standing.finished is not None
            view = RunView.of(
                run,
                standing,
                folder,
                phase=phase,
                judgement=self._judgement(run_id, folder) if judged else None,
                place=place,
                waits=waits,
                votes=votes,
                failed=failed,
                version=(run.created, count),
            )
            self._shown[run_id] = (inputs, view)
            return view

    def origin(self, run_id: str) -> Origin | None:
        """The run that this one repeats, or None."""
        self._store.get(run_id)
        return RunFolder(self._home.run(run_id)).origin()

    def compared(self, first: str, second: str) -> Compared:
        """Two runs side by side.

        Raises:
            StudioError: one of them has not begun.
        """
        for run in (self._store.get(first), self._store.get(second)):
            if run.state in (State.DRAFT, State.QUEUED) and not self.standing(run.id).step:
                raise StudioError(f"{run.name} has not learned anything yet that could be compared.")
        titles = self._drafts.image_titles(first) | self._drafts.image_titles(second)
        names = {run.id: run.name for run in (self._store.get(first), self._store.get(second))}
        return compared(RunFolder(self._home.run(first)), RunFolder(self._home.run(second)), titles=titles, names=names)

    # ---- steering

    def enqueue(self, run_id: str) -> None:
        """Train a draft as soon as the worker is free.

        Raises:
            ConfigError, DatasetError, StudioError: it cannot start; nothing is changed then.
        """
        run = self._store.get(run_id)
        if run.state is not State.DRAFT:
            raise StudioError(f"{run.name} is {run.state} already.")
        config = self._drafts.ready(run_id)
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

    def resume(self, run_id: str, *, changed_images: ChangedImages | None = None) -> None:
        """Go on with a paused, failed or cancelled run; a run whose pause was only asked for goes straight on.

        Args:
            changed_images: from now on the run's ``data.changed_images``; None leaves it.
        """
        if changed_images is not None:
            folder = RunFolder(self._home.run(run_id))
            config = folder.config()
            config.data.changed_images = changed_images
            with folder.held():
                folder.write_config(config)
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
            if not self.standing(run_id).step:
                raise StudioError(f"{run.name} has not learned anything yet that could be kept. Cancel it instead.")
            if run.state is State.PAUSED:
                self._store.enqueue(run_id, first=True, wish=Wish.STOP)
            elif run.state is State.QUEUED:
                self._store.wish(run_id, Wish.STOP)
            else:
                self._wish(run, Wish.STOP, "stopped")
        self._supervisor.steer(run_id)
        self._supervisor.look()

    def judge(self, run_id: str, keep: tuple[int, float] | None = None) -> None:
        """Judge a finished run's kept states again; or let its file hold another of the judged than it does.

        It happens in the worker when that is free; the run's view tells how far it is, and of an error.

        Args:
            keep: step and strength; None judges anew.

        Raises:
            StudioError: the run is not finished, or that is going on already.
            RunError: that candidate was not judged.
        """
        run = self._store.get(run_id)
        if run.state is not State.FINISHED:
            raise StudioError(f"{run.name} is {run.state}; what it saved can be compared when it is finished.")
        self._refuse_while_rewritten(run)
        if keep is not None:
            judged = judgement_of(RunFolder(self._home.run(run_id)))
            if judged is None:
                raise StudioError(f"Nothing was compared for {run.name} yet.")
            judged.find(*keep)
        self._home.require_space(0, "Writing the file anew")
        self._rewriting[run_id] = self._supervisor.begin(Judge(ask=uuid.uuid4().hex, run=run_id, keep=keep))

    def vote(self, run_id: str, number: int, better: str) -> None:
        """Say which side of a blind pair is better; a pair that was decided already is left as it is.

        Args:
            number: of the votes before the pair (`trainer.judging.votes.Pair`).
            better: ``left``, ``right`` or ``same``.

        Raises:
            StudioError: the run was not judged.
            RunError: that is no vote, or it cannot be written.
        """
        run = self._store.get(run_id)
        folder = RunFolder(self._home.run(run_id))
        judged = judgement_of(folder)
        with self._lock:
            cast = votes_of(folder)
            pair = judged and next_pair(judged, cast)
            if not pair:
                raise StudioError(f"Nothing was compared for {run.name} yet.")
            vote = pair.decided(better)
            if pair.number != number:
                return
            try:
                write_file(folder.votes_file, ballots.written((*cast, vote)))
            except OSError as error:
                raise RunError(f"{folder.votes_file} cannot be written: {error.strerror or error}.") from None

    def is_rewritten(self, run_id: str) -> bool:
        """Whether `judge` goes on for a run."""
        future = self._rewriting.get(run_id)
        return future is not None and not future.done()

    def _refuse_while_rewritten(self, run: RunRow) -> None:
        if self.is_rewritten(run.id):
            raise StudioError(f"The file of {run.name} is being written anew; wait until that is done.")

    def _rewriting_failed(self, run_id: str) -> str:
        """Why the last `judge` of a run came to nothing; empty where none failed."""
        future = self._rewriting.get(run_id)
        error = future.exception() if future is not None and future.done() else None
        return str(error) if error is not None else ""

    def cancel(self, run_id: str) -> None:
        """End a run without a file; what it saved is kept until it is deleted. A queued draft becomes a draft again."""
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

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name, which is also that of its downloads."""
        checked = configs.parse({"name": name}).name
        if self._store.get(run_id).state is State.DRAFT:
            self._drafts.update(run_id, {"name": checked})
        else:
            self._store.rename(run_id, checked)

    def delete(self, run_id: str) -> None:
        """Put a run in the trash, from which `restore` takes it back; it is emptied after 30 days."""
        self._refuse_while_rewritten(self._store.get(run_id))
        self._store.trash(run_id, deleted=True)
        self._move_folder(self._home.run(run_id), self._home.trash / run_id)
        self._forget(run_id)

    def restore(self, run_id: str) -> None:
        """Take a deleted run back."""
        self._move_folder(self._home.trash / run_id, self._home.run(run_id))
        self._store.trash(run_id, deleted=False)

    def trashed(self) -> list[tuple[str, str, float]]:
        """(id, name, when it was deleted in Unix time) of what `restore` would take back."""
        return [(run.id, run.name, run.trashed) for run in self._store.all(trashed=True) if run.trashed is not None]

    def empty_trash(self, before: float) -> None:
        """Remove for good what was deleted before a time."""
        for run in self._store.all(trashed=True):
            if run.trashed is not None and run.trashed < before:
                shutil.rmtree(self._home.trash / run.id, ignore_errors=True)
                self._store.forget(run.id)

    def adopt(self) -> None:
        """List runs that lie in the studio folder and were made by the command line, or whose list was lost."""
        known = self._store.known()
        for path in sorted(self._home.runs.iterdir()):
            folder = RunFolder(path)
            if path.name not in known and path.is_dir() and folder.exists() and not folder.is_held():
                self._adopt(folder)

    def _adopt(self, folder: RunFolder) -> None:
        try:
            config = folder.config()
        except PatinaError:
            return
        standing = self.standing(folder.path.name)
        state = State.PAUSED
        if standing.finished is not None and folder.adapter_file.is_file():
            state = State.FINISHED
        elif standing.failed is not None:
            state = State.FAILED
        settings = config.model_dump(exclude_none=True)
        created = standing.first_at or folder.config_file.stat().st_mtime
        message = standing.failed.message if standing.failed is not None and state is State.FAILED else ""
        self._store.add(folder.path.name, config.name, settings, state, created, message)

    def _judgement(self, run_id: str, folder: RunFolder) -> Judgement | None:
        found = judgement_of(folder)
        return found and found.titled(self._drafts.image_titles(run_id))

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

    def _forget(self, run_id: str) -> None:
        """Let go of what is kept about a run."""
        with self._lock:
            self._logs.pop(run_id, None)
            self._shown.pop(run_id, None)
        self._rewriting.pop(run_id, None)

    def _log(self, run_id: str) -> RunLog:
        with self._lock:
            if run_id not in self._logs:
                self._logs[run_id] = RunLog(RunFolder(self._home.run(run_id)).events_file)
            return self._logs[run_id]

    def _places(self) -> dict[str, int]:
        return {run.id: place for place, run in enumerate(self._store.in_state(State.QUEUED), start=1)}

    def _waits(self, run: RunRow) -> str:
        if run.state not in (State.QUEUED, State.TRAINING) or not self._supervisor.disk_full:
            return ""
        return (
            f"The disk that holds {self._home.path} is full. What was learned is saved up to the last checkpoint; "
            "free some space, and this goes on by itself."
        )

    def _summary(self, run: RunRow, place: int | None) -> RunSummary:
        standing = self.standing(run.id)
        last = standing.sampled[-1].path if standing.sampled else None
        return RunSummary(
            id=run.id,
            name=run.name,
            trigger=str(run.settings.get("trigger", "")),
            state=run.state,
            wish=run.wish,
            step=standing.step,
            steps=standing.steps,
            queue_place=place,
            waits=self._waits(run),
            created=run.created,
            updated=max(run.updated, standing.last_at or 0.0),
            thumbnail=self._home.run(run.id) / last if last else self._first_image(run.id),
            message=run.message,
        )


def votes_of(folder: RunFolder) -> tuple[Vote, ...]:
    """The votes on a run's judged states; none where nobody voted, or what is written of it is damaged."""
    try:
        return ballots.read(folder.votes_file.read_bytes())
    except (OSError, PatinaError):
        return ()


def judgement_of(folder: RunFolder) -> Judgement | None:
    """What was said of a run's kept states; None where none was judged, or what is written of it is damaged."""
    try:
        return from_json(folder.judgement_file.read_bytes())
    except (OSError, PatinaError):
        return None
