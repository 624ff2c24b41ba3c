"""Keeps workers at work: starts them on demand, hands them the queue, and picks up what one leaves when it dies.

The supervisor belongs to the app process and never imports torch. One thread decides (every second, and whenever
something happens), one reads each worker's replies. What must outlive both is in the store and the run folders.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer import errors
from trainer.errors import PatinaError, RunError, StudioError, means_full_disk
from trainer.events import Notice, Phase
from trainer.studio.folder import FullDisk, StudioFolder
from trainer.studio.jobs import Jobs
from trainer.studio.store import RunRow, State, Store
from trainer.studio.worker.pipe import WorkerProcess, end_all, ending, note, tail_of
from trainer.studio.worker.protocol import (
    Answer,
    AnyReply,
    AnyRequest,
    CancelDraw,
    Describe,
    Draw,
    DrawEnded,
    Drawing,
    Drawn,
    FileRequest,
    Hello,
    InPhase,
    Judge,
    Leaving,
    RunEnded,
    Status,
    Steer,
)
from trainer.studio.worker.starved import KILLED
from trainer.studio.worker.team import Team
from trainer.training.recovery import Change, Recovery
from trainer.training.run_folder import RunFolder

LOOK_SECONDS = 1.0


@dataclass
class DrawState:
    """A drawing's progress: denoising steps, and why it waits."""

    request: Draw
    keys: dict[int, str]
    begun: bool = False
    done: int = 0
    total: int = 0
    waits: str = ""


class Supervisor:
    """The workers' keeper.

    A full disk costs no work: the run in training goes back to the head of the queue with what it saved last, what
    could not be noted is noted later, and both happen by themselves when there is room again.

    Args:
        home, store, jobs: the studio's folder and lists.
        idle_seconds: after so long without work a worker frees its memory.
        cards: the NVIDIA cards to work on, as CUDA calls them; each has a worker where there are several.
    """

    def __init__(
        self, home: StudioFolder, store: Store, jobs: Jobs, *, idle_seconds: float, cards: Sequence[str] = ()
    ) -> None:
        self._home, self._store, self._jobs = home, store, jobs
        self._idle_seconds = idle_seconds
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = False
        self._team = Team(cards, self._started)
        self._not_before: dict[str, float] = {}
        self._drawings: dict[str, DrawState] = {}
        self._asks: dict[str, tuple[AnyRequest, Future[dict[str, Any]]]] = {}
        self._phases: dict[str, tuple[WorkerProcess, Phase]] = {}
        self._last_hello: Hello | None = None
        self._died_over: dict[str, bool] = {}
        """Run -> whether the worker that died over it was killed for want of memory."""
        self._disk = FullDisk(home)
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin; runs that were in training or queued go on."""
        self._thread.start()

    def close(self) -> None:
        """Let the workers save and end, for at most `pipe.CLOSE_SECONDS`; afterwards there is none."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join()
        workers = list(self._team)
        runs = [worker.training for worker in workers if worker.training]
        end_all(workers)
        for worker in workers:
            self._bury(worker)
        for run in runs:
            if not self._held(run):
                # It was asked to end before it came to a place where it could (a base that takes long to load).
                with contextlib.suppress(StudioError):
                    self._store.recover(run, 0, crashed=False)

    # ---- what the app asks

    def look(self) -> None:
        """Something in the store changed: see at once what is to be done."""
        with self._lock:
            self._team.try_again()
        self._wake.set()

    def steer(self, run_id: str) -> None:
        """Tell the worker that the wish for a run changed."""
        with self._lock:
            worker = self._team.trainer_of(run_id)
            if worker is not None:
                worker.send(Steer(run=run_id))

    def draw(self, request: Draw, keys: dict[int, str]) -> None:
        """Have pictures drawn; ``keys`` names them by index for `Jobs.made_before`."""
        with self._lock:
            self._drawings[request.job] = DrawState(request, keys)
        self.look()

    def cancel(self, job: str) -> None:
        """Stop a drawing."""
        with self._lock:
            state = self._drawings.get(job)
            if state is None:
                return
            worker = self._team.told(job)
            if worker is not None:
                worker.send(CancelDraw(job=job))
            if not state.begun:
                self._end(job, "cancelled")

    def ask(self, request: FileRequest, timeout: float = 120.0) -> dict[str, Any]:
        """Have the worker look into a file or convert it, and wait for the answer.

        Raises:
            PatinaError: of the kind that the worker met.
            StudioError: no answer within ``timeout`` seconds.
        """
        future = self.begin(request)
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            raise StudioError("The worker did not answer in time; it may be busy. Try again in a while.") from None
        finally:
            self.forget(request.ask)

    def begin(self, request: FileRequest | Judge | Describe) -> Future[dict[str, Any]]:
        """Ask without waiting; the answer, or the error that the worker met, is the future's."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            self._asks[request.ask] = (request, future)
        self.look()
        return future

    def forget(self, ask: str) -> None:
        """Wait for an answer no longer; a worker that was asked answers nobody."""
        with self._lock:
            self._asks.pop(ask, None)

    def drawing(self, job: str) -> DrawState | None:
        """A drawing that is not over."""
        with self._lock:
            return self._drawings.get(job)

    def phase(self, run_id: str) -> Phase | None:
        """The latest short-lived progress of a run in training."""
        with self._lock:
            said = self._phases.get(run_id)
            return None if said is None else said[1]

    def waits_for_training(self, ask: str) -> bool:
        """Whether the worker that was asked something trains at the moment."""
        with self._lock:
            worker = self._team.told(ask)
            return worker is not None and bool(worker.training)

    def starts_at_once(self, run: RunRow) -> bool:
        """Whether a run, if it is the next, need not wait for another one in training; it may have a worker already."""
        with self._lock:
            if self._team.trainer_of(run.id) is not None:
                return True
            return not self._others_train() and self._team.has_room(run.settings.get("train", {}).get("gpus", 1))

    def worker_state(
        self,
    ) -> tuple[Literal["off", "starting", "idle", "training", "drawing"], Hello | None, Status | None]:
        """What the busiest worker does, what one said of the machine (also an earlier one), and its last status."""
        with self._lock:
            worker = self._team.busiest
            if worker is None:
                return "off", self._last_hello, None
            if worker.status is None:
                return "starting" if worker.hello is None else "idle", self._last_hello, None
            return worker.status.doing, self._last_hello, worker.status

    @property
    def disk_full(self) -> bool:
        """Whether work waits for room on the disk."""
        return self._disk.is_full

    @property
    def pid(self) -> int | None:
        """The process id of a worker, while there is one."""
        with self._lock:
            return next((worker.pid for worker in self._team), None)

    # ---- the keeping

    def _keep(self) -> None:
        while True:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            with self._lock:
                if self._closing:
                    return
                try:
                    self._once()
                except Exception as error:
                    # Whatever it was (no room, no memory for a process), the next look may go well.
                    if means_full_disk(error):
                        self._disk.found()
                    else:
                        note(self._home.worker_log, traceback.format_exc())

    def _once(self) -> None:
        for worker in self._team:
            if worker.ended:
                self._bury(worker)
            else:
                worker.memory.look()
        self._disk.catch_up()
        runs: list[RunRow] = []
        if not self._disk.is_full:
            for run in self._store.in_state(State.TRAINING):
                if not self._held(run.id):
                    self._recover(run.id)
            runs = self._runs_to_begin()
        if not self._team.usable:
            self._give_up(runs)
        else:
            self._hand_out(runs)

    def _hand_out(self, runs: Sequence[RunRow]) -> None:
        """Give every free card a run, and what else is asked for to whom it is for."""
        for run in runs:
            asked = run.settings.get("train", {})
            worker = self._team.trainer_for(asked.get("device", "auto"), cards := asked.get("gpus", 1))
            if worker is not None:
                worker.train(run.id)
            elif cards > 1:
                # Whoever went first would take a card that it waits for.
                break
        requests: dict[str, AnyRequest] = {job: state.request for job, state in self._drawings.items()}
        requests |= {ask: request for ask, (request, _) in self._asks.items()}
        for name, request in requests.items():
            if self._team.told(name) is None and not (chosen := self._team.worker_for(request)).leaving:
                chosen.send_once(name, request)

    def _started(self, card: str) -> WorkerProcess:
        return WorkerProcess(
            self._home, card=card, idle_seconds=self._idle_seconds, on_reply=self._hear, on_end=self._wake.set
        )

    def _held(self, run_id: str) -> bool:
        """Whether a worker of ours was told to train a run, or some process does."""
        return self._team.trainer_of(run_id) is not None or RunFolder(self._home.run(run_id)).is_held()

    def _runs_to_begin(self) -> list[RunRow]:
        """The queue without what a worker was told already; nothing while another process than ours trains a run."""
        if self._others_train():
            return []
        now = time.monotonic()
        queue = (run for run in self._store.in_state(State.QUEUED) if self._team.trainer_of(run.id) is None)
        return [run for run in queue if self._not_before.get(run.id, 0.0) <= now]

    def _others_train(self) -> bool:
        return any(self._team.trainer_of(run.id) is None for run in self._store.in_state(State.TRAINING))

    def _hear(self, worker: WorkerProcess, reply: AnyReply) -> None:
        with self._lock:
            self._take(worker, reply)

    def _take(self, worker: WorkerProcess, reply: AnyReply) -> None:
        if isinstance(reply, Hello):
            self._last_hello = reply
            self._team.greet(worker, reply)
        elif isinstance(reply, Status):
            worker.status = reply
        elif isinstance(reply, InPhase):
            self._phases[reply.run] = worker, reply.phase
        elif isinstance(reply, RunEnded):
            worker.training = ""
            worker.leaving = worker.leaving or worker.of_one_run
            self._phases.pop(reply.run, None)
            if reply.disk_full:
                self._disk.found()
            elif not reply.taken:
                self._not_before[reply.run] = time.monotonic() + 5.0
            self._wake.set()
        elif isinstance(reply, Drawing | Drawn | DrawEnded):
            self._take_drawing(reply)
        elif isinstance(reply, Answer):
            asked = self._asks.pop(reply.ask, None)
            if asked is not None:
                request, future = asked
                if isinstance(request, Judge):
                    self._phases.pop(request.run, None)
                _settle(future, reply)
        elif isinstance(reply, Leaving):
            worker.leaving = True
            self._wake.set()

    def _take_drawing(self, reply: Drawing | Drawn | DrawEnded) -> None:
        state = self._drawings.get(reply.job)
        if state is None:
            return
        if isinstance(reply, Drawn):
            job, index, path, weights = reply.job, reply.index, Path(reply.path), reply.weights
            key = state.keys.get(index, "")
            self._disk.write_down(lambda: self._jobs.note_weights(job, weights))
            self._disk.write_down(lambda: self._jobs.add_picture(job, index, key, path))
        elif isinstance(reply, DrawEnded):
            self._end(reply.job, reply.state, reply.message)
        else:
            state.waits = reply.waits
            state.done, state.total = reply.done, max(state.total, reply.total)
            if not reply.waits and not state.begun:
                state.begun = True
                begun = reply.job
                self._disk.write_down(lambda: self._jobs.settle(begun, "working"))

    def _end(self, job: str, state: Literal["done", "failed", "cancelled"], message: str = "") -> None:
        self._drawings.pop(job, None)
        self._disk.write_down(lambda: self._jobs.settle(job, state, message))

    # ---- when a worker ends

    def _bury(self, worker: WorkerProcess) -> None:
        """Clear up after a worker that ended; what it did not come to is asked of the next one."""
        code = worker.bury()
        self._team.remove(worker, started=worker.hello is not None or code == 0)
        if worker.training and not self._closing:
            self._died_over[worker.training] = code == KILLED and worker.memory.ran_out()
        for job, state in list(self._drawings.items()):
            if state.begun and worker.was_sent(job):
                self._end(job, "failed", f"The worker ended while it made this ({ending(code)}). Make it again.")
        if code != 0:
            for name, (_, future) in list(self._asks.items()):
                if worker.was_sent(name):
                    self._asks.pop(name)
                    _fail(future, f"The worker ended meanwhile ({ending(code)}). Try again.")
        self._phases = {run: said for run, said in self._phases.items() if said[0] is not worker}

    def _recover(self, run_id: str) -> None:
        starved = self._died_over.get(run_id)
        folder = RunFolder(self._home.run(run_id))
        saved = folder.saved()
        tail = tail_of(self._home.worker_log)
        if starved is not None and tail and folder.path.is_dir():
            with contextlib.suppress(OSError):
                (folder.path / "crash.log").write_bytes(tail)
        if not (starved and self._starved(run_id, folder)):
            self._store.recover(run_id, saved[0][0] if saved else 0, crashed=starved is not None)
        self._died_over.pop(run_id, None)

    def _starved(self, run_id: str, folder: RunFolder) -> bool:
        """Have a run go on with less memory where the last worker was killed for want of it, or give up.

        Returns:
            Whether that is settled; not where nothing came of it the last time, which is a crash like any other.
        """
        try:
            recovery = Recovery(folder.recovery_file)
        except RunError:
            return False
        step = recovery.goes_on_from(folder.saved())
        if recovery.kill is not None or not folder.exists():
            return False
        if recovery.given_up(step):
            sentence = (
                f"Memory ran out at step {step}, and every saving is in use. Close other programs, or resume on a "
                "machine with more memory; what was learned until the last saved step is kept."
            )
            note(self._home.worker_log, sentence)
            self._store.move_to(run_id, State.FAILED, sentence)
            return True
        said = f"The system ended the worker because memory had run out: the run goes on from step {step}."
        note(self._home.worker_log, said)
        folder.append(Notice(level="warning", text=said))
        recovery.add(Change(step, said, killed=True))
        self._store.recover(run_id, step, crashed=False)
        return True

    def _give_up(self, runs: Sequence[RunRow]) -> None:
        sentence = (
            f"The worker does not start; the end of {self._home.worker_log} says why. "
            "Run 'patina.sh' again to repair the installation, then try again."
        )
        for job in list(self._drawings):
            self._end(job, "failed", sentence)
        for _, future in self._asks.values():
            _fail(future, sentence)
        self._asks.clear()
        for run in runs[:1]:
            self._store.move_to(run.id, State.FAILED, sentence)


def _fail(future: Future[dict[str, Any]], sentence: str) -> None:
    if not future.done():
        future.set_exception(StudioError(sentence))


def _settle(future: Future[dict[str, Any]], answer: Answer) -> None:
    if future.done():
        return
    if not answer.message:
        future.set_result(answer.data)
        return
    kind = getattr(errors, answer.error, StudioError)
    future.set_exception(kind(answer.message) if issubclass(kind, PatinaError) else StudioError(answer.message))
