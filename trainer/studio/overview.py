"""Runs as the interface shows them: the list's row and the run's own log together, kept until either changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import config as configs
from trainer.errors import PatinaError
from trainer.events import Phase
from trainer.studio.fold import LogReader, Standing
from trainer.studio.home import Home
from trainer.studio.store import RunRow, State, Store
from trainer.studio.views import (
    CheckpointView,
    PhaseView,
    RunSummary,
    RunView,
    SampleView,
    ValidationPoint,
)
from trainer.training.run_folder import RunFolder


class Overview:
    """Reads where runs stand.

    Args:
        first_image: a picture of a run before it has samples.
        phase_of: short-lived progress that is not in the log, from the worker.
    """

    def __init__(
        self,
        home: Home,
        store: Store,
        first_image: Callable[[str], Path | None],
        phase_of: Callable[[str], Phase | None],
    ) -> None:
        self._home, self._store = home, store
        self._first_image, self._phase_of = first_image, phase_of
        self._lock = threading.Lock()
        self._readers: dict[str, LogReader] = {}
        self._shown: dict[str, tuple[object, RunView]] = {}

    def standing(self, run_id: str) -> Standing:
        """Where a run stands by its own log."""
        return self._reader(run_id).read()[0]

    def summaries(self) -> list[RunSummary]:
        """In training, then the queue in order, then the others, newest first."""
        runs = self._store.all()
        queue = self._places()
        order = {State.TRAINING: 0, State.QUEUED: 1}
        runs.sort(key=lambda run: (order.get(run.state, 2), queue.get(run.id, 0)))
        return [self._summary(run, queue.get(run.id)) for run in runs]

    def active(self) -> RunSummary | None:
        """The run in training."""
        runs = self._store.in_state(State.TRAINING)
        return self._summary(runs[0], None) if runs else None

    def view(self, run_id: str) -> RunView:
        """Everything about a run; the same object as before when nothing changed.

        Raises:
            StudioError: there is no such run.
        """
        run = self._store.get(run_id)
        standing, log_version = self._reader(run_id).read()
        phase = self._phase_of(run_id) if run.state is State.TRAINING else None
        place = self._places().get(run_id) if run.state is State.QUEUED else None
        inputs = (run, log_version, phase, place)
        with self._lock:
            before = self._shown.get(run_id)
            if before is not None and before[0] == inputs:
                return before[1]
            count = before[1].version[1] + 1 if before is not None else 0
            view = self._view(run, standing, phase, place, (run.created, count))
            self._shown[run_id] = (inputs, view)
            return view

    def forget(self, run_id: str) -> None:
        """Let go of what is kept about a run."""
        with self._lock:
            self._readers.pop(run_id, None)
            self._shown.pop(run_id, None)

    def _reader(self, run_id: str) -> LogReader:
        with self._lock:
            if run_id not in self._readers:
                self._readers[run_id] = LogReader(RunFolder(self._home.run(run_id)).events_file)
            return self._readers[run_id]

    def _places(self) -> dict[str, int]:
        return {run.id: place for place, run in enumerate(self._store.in_state(State.QUEUED), start=1)}

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
            created=run.created,
            updated=max(run.updated, standing.last_at or 0.0),
            thumbnail=self._home.run(run.id) / last if last else self._first_image(run.id),
            message=run.message,
        )

    def _view(
        self, run: RunRow, standing: Standing, phase: Phase | None, place: int | None, version: tuple[float, int]
    ) -> RunView:
        folder = RunFolder(self._home.run(run.id))
        # The worker's own word is newer, and tells of parts done; without one (another studio's run) the log's is left.
        doing = phase if phase is not None else standing.phase
        if run.state is not State.TRAINING or (doing is not None and doing.name == "training"):
            doing = None
        finished = standing.finished if run.state is State.FINISHED else None
        return RunView(
            id=run.id,
            name=run.name,
            trigger=str(run.settings.get("trigger", "")),
            state=run.state,
            wish=run.wish,
            version=version,
            settings=chosen_settings(folder, run),
            step=standing.step,
            steps=standing.steps,
            phase=None if doing is None else PhaseView(doing.name, doing.done, doing.total, doing.detail),
            loss_steps=tuple(standing.loss_steps),
            losses=tuple(standing.losses),
            learning_rate=standing.learning_rate,
            validation=tuple(ValidationPoint(each.step, each.loss, each.base_loss) for each in standing.validated),
            samples=tuple(
                SampleView(each.step, each.index, each.prompt, folder.path / each.path) for each in standing.sampled
            ),
            checkpoints=tuple(
                CheckpointView(each.step, folder.path / each.path)
                for each in standing.saved
                if (folder.path / each.path).is_dir()
            ),
            samples_per_second=standing.samples_per_second,
            seconds_left=standing.seconds_left if run.state is State.TRAINING else None,
            plan=standing.planned,
            notices=tuple(standing.notices),
            adapter=folder.adapter_file if finished is not None and folder.adapter_file.is_file() else None,
            sheet=folder.path / finished.sheet if finished is not None and finished.sheet else None,
            verified=finished.verified if finished is not None else (),
            seconds=finished.seconds if finished is not None else None,
            error=run.message if run.state is State.FAILED else "",
            queue_place=place,
            created=run.created,
            folder=folder.path,
        )


def chosen_settings(folder: RunFolder, run: RunRow) -> dict[str, Any]:
    """A run's settings: as the engine resolved them once it has started, before that as they were asked for."""
    if run.state is State.DRAFT:
        return run.settings
    try:
        return configs.read_toml(folder.config_file)
    except PatinaError:
        return run.settings
