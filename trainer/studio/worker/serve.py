"""What the worker does on its main thread: trains the runs it is given, and draws and looks into files meanwhile."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from trainer.errors import DiskFull, PatinaError, means_full_disk
from trainer.events import Event, Failed, Phase, Planned, Progress, sentence_of
from trainer.signs import SignsOfLife
from trainer.studio.database import Database
from trainer.studio.estimate import PastRuns, kind_of
from trainer.studio.folder import StudioFolder
from trainer.studio.store import State, Store, Wish
from trainer.studio.worker.followers import following
from trainer.studio.worker.pipe import Inbox, Pipe
from trainer.studio.worker.protocol import (
    Answer,
    AnyRequest,
    Compare,
    Describe,
    Dissect,
    Draw,
    DrawEnded,
    Drawing,
    Drawn,
    FileRequest,
    InPhase,
    Inspect,
    Judge,
    Leave,
    Leaving,
    Rework,
    RunEnded,
    Status,
    Steer,
    Train,
)
from trainer.training.pausing import Signal
from trainer.training.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.captioning.model import CaptionModel
    from trainer.config import BaseConfig
    from trainer.studio.worker.draw import WarmBase
    from trainer.training.pausing import Session


HOLD_SECONDS = 2.0
"""The app looks now and then whether somebody holds a run, which takes a moment."""
FEW_STEPS = 5


class _Leave(BaseException):
    """Ends a training that has not come to its steps yet (a download, a cache of a thousand images)."""


class Server:
    """Serves requests one after the other; a training serves others between its steps.

    Args:
        idle_seconds: after so long without a request the base is let go, and after three times that the process ends.
        own_card: of several cards it sees one alone (`trainer.studio.worker.team`).
    """

    def __init__(
        self, home: StudioFolder, pipe: Pipe, inbox: Inbox, *, idle_seconds: float, own_card: bool = False
    ) -> None:
        self.home, self.pipe, self.inbox = home, pipe, inbox
        self.idle_seconds, self.own_card = idle_seconds, own_card
        self.store = Store(Database(home.database))
        self.waiting: deque[AnyRequest] = deque()
        self.status = Status(doing="idle")
        self._led = False
        """Whether other processes took part in a run: this one is bound to them, and of no use for anything else."""
        self._warm: WarmBase | None = None
        self.captioner: CaptionModel | None = None
        """Opened when captions are asked for, and let go when a base is."""

    @property
    def warm(self) -> WarmBase:
        """Torch and the libraries of models are loaded when they are first needed."""
        if self._warm is None:
            from trainer.studio.worker.draw import WarmBase

            self._warm = WarmBase(self.home.runs, own_card=self.own_card)
        return self._warm

    def run(self) -> None:
        """Serve until the input closes, the end is asked for, a run of several cards is over, or nothing is asked."""
        last = time.monotonic()
        while not self.inbox.closing.is_set():
            request = self.waiting.popleft() if self.waiting else self.inbox.next(timeout=1.0)
            if request is not None:
                self.serve(request)
                if isinstance(request, Leave) or self._led:
                    self.pipe.send(Leaving())
                    return
                last = time.monotonic()
                continue
            idle = time.monotonic() - last
            if idle > self.idle_seconds:
                self._let_go()
            if idle > 3 * self.idle_seconds:
                # Only the end of the process gives back what the libraries and the driver hold.
                self.pipe.send(Leaving())
                return

    def _let_go(self) -> None:
        """Let go of the models that are held, if any."""
        self.captioner = None
        if self._warm is not None and self._warm.base is not None:
            self._warm.free()
            self.say("idle")

    def serve(self, request: AnyRequest, session: Session | None = None) -> None:
        """Answer a request; with ``session`` between two steps of a training."""
        if isinstance(request, Train):
            self.train(request.run)
        elif isinstance(request, Draw):
            self.draw(request, session)
        elif isinstance(request, FileRequest | Judge | Describe):
            self.answer(request)

    def say(self, doing: Literal["idle", "training", "drawing"], run: str = "") -> None:
        """Tell what the worker does, now and every few seconds."""
        base = self._warm.base if self._warm is not None else None
        self.status = Status(doing=doing, run=run, base=base.source if base is not None else "")
        self.beat()

    def beat(self) -> None:
        """Send the status with the memory in use."""
        self.pipe.send(self.status.model_copy(update={"memory_used": memory_used()}))

    # ---- training

    def train(self, run_id: str) -> None:
        """Train a run if it is ours to train, and note how it ended."""
        folder = RunFolder(self.home.run(run_id))
        taken = full = False
        self.captioner = None
        try:
            with folder.held(HOLD_SECONDS):
                taken = self.store.claim(run_id)
                if taken:
                    self.say("training", run_id)
                    full = self._train_and_hand_back(run_id, folder)
        except (PatinaError, OSError) as error:
            # Whoever holds the run trains it; or its end could not be noted, which the app does when there is room.
            note_error()
            full = means_full_disk(error)
        self.pipe.send(RunEnded(run=run_id, taken=taken, disk_full=full))
        self.say("idle")

    def _train_and_hand_back(self, run_id: str, folder: RunFolder) -> bool:
        """Returns whether a full disk ended it; what was saved before is kept, and the run goes on from there."""
        steering = Steering(self, run_id)
        state, message, full = State.FAILED, "", False
        try:
            with steering.signs:
                state = self._train(folder, steering)
        except _Leave:
            state = State.QUEUED
        except Exception as error:
            note_error()
            message, full = sentence_of(error), means_full_disk(error)
            if not isinstance(error, PatinaError):
                # Memory may have run out, or the device be in an unknown state: nothing of it is kept.
                self.warm.free()
        self.store.hand_back(run_id, State.QUEUED if full else state, "" if full else message)
        return full

    def _train(self, folder: RunFolder, steering: Steering) -> State:
        config = folder.config()
        steering.base = config.base
        steering.emit(Phase(name="loading", detail=config.base.source))
        from trainer.study.finding import train
        from trainer.training.processes import require_cards

        self._led = config.train.gpus > 1
        with contextlib.ExitStack() as beside:
            try:
                require_cards(config.train.gpus, config.train.device)
                beside.enter_context(following(folder, config.train.gpus))
                base = self.warm.base_for_training(config)
            except Exception as error:
                folder.append(Failed(step=0, message=sentence_of(error)))
                raise
            outcome = train(folder, emit=steering.emit, control=steering, base=base)
        self._remember(folder, steering, outcome.step)
        return State.FINISHED if outcome.state == "finished" else State.QUEUED

    def _remember(self, folder: RunFolder, steering: Steering, step: int) -> None:
        """Note what a step took here, so that the next run of the kind can be told its time."""
        base, took = self.warm.base, steering.took(step)
        if base is None or took is None or steering.planned is None:
            return
        kind = kind_of(folder.config(), base.device.type)
        busy = took.busy if base.device.type == "cpu" else 0.0
        with contextlib.suppress(DiskFull):
            past = PastRuns(self.store.db)
            past.note(steering.run_id, kind, took.seconds_per_step, steering.planned.memory_bytes, busy)

    # ---- drawing

    def draw(self, request: Draw, session: Session | None) -> None:
        """Draw a job's pictures; what goes wrong is the job's end, not the worker's."""
        from trainer.preview.generate import Cancelled

        before = self.status
        self.captioner = None
        self.say("drawing", before.run)
        self.pipe.send(Drawing(job=request.job))

        def on_step(done: int, total: int) -> bool:
            self.pipe.send(Drawing(job=request.job, done=done, total=total))
            return request.job not in self.inbox.cancelled and not self.inbox.closing.is_set()

        def on_picture(index: int, path: Path, weights: Sequence[str]) -> None:
            self.pipe.send(Drawn(job=request.job, index=index, path=str(path), weights=tuple(weights)))

        ended = DrawEnded(job=request.job, state="done")
        try:
            if not on_step(0, 0):
                raise Cancelled
            self.warm.draw(request, on_step, on_picture, session, live=before.run)
        except Cancelled:
            ended = DrawEnded(job=request.job, state="cancelled")
        except Exception as error:
            if not isinstance(error, PatinaError):
                note_error()
            if session is None:
                self.warm.clear()
            ended = DrawEnded(job=request.job, state="failed", message=sentence_of(error))
        self.inbox.cancelled.discard(request.job)
        self.pipe.send(ended)
        self.say(before.doing, before.run)

    # ---- files

    def answer(self, request: FileRequest | Judge | Describe) -> None:
        """Look into style files or images, make new files of them, or write a finished run's anew."""
        from trainer.studio.worker.rework import compared, dissected, reworked
        from trainer.styles.inspect import inspect_file
        from trainer.styles.read import read_style
        from trainer.styles.write import write_again

        data: dict[str, Any] = {}
        try:
            if isinstance(request, Inspect):
                # An inspection reports what a reading refuses.
                read_style(Path(request.path))
                data = inspect_file(Path(request.path)).to_dict()
            elif isinstance(request, Judge):
                self._judge(request)
            elif isinstance(request, Describe):
                data = {"said": self._describe(request)}
            elif isinstance(request, Rework):
                data = {"notes": list(reworked(request))}
            elif isinstance(request, Compare):
                data = compared(request)
            elif isinstance(request, Dissect):
                data = dissected(request)
            else:
                write_again(Path(request.source), Path(request.target), request.layout, request.name, half=request.half)
            self.pipe.send(Answer(ask=request.ask, data=data))
        except Exception as error:
            if not isinstance(error, PatinaError):
                note_error()
            message = sentence_of(error).encode(errors="replace").decode()
            self.pipe.send(Answer(ask=request.ask, error=type(error).__name__, message=message))

    def _judge(self, request: Judge) -> None:
        from trainer.training.rejudging import judge_again

        def tell(event: Event) -> None:
            if isinstance(event, Phase):
                self.pipe.send(InPhase(run=request.run, phase=event))

        folder = RunFolder(self.home.run(request.run))
        self.captioner = None
        self.say("drawing")
        try:
            with SignsOfLife(tell) as told:
                judge_again(folder, emit=told, keep=request.keep, base=self.warm.base_for_training(folder.config()))
        finally:
            self.say("idle")

    def _describe(self, request: Describe) -> str:
        """What an image shows; the model stays until a base wants its place."""
        from trainer.captioning.folder import SIDE
        from trainer.captioning.model import CaptionModel
        from trainer.data.decoder import Decoder, Source
        from trainer.hardware import pick_device

        folder = Path(request.folder)
        if self.captioner is None or self.captioner.folder != folder:
            self.captioner = None
            device = pick_device("auto")
            if device.type != "cpu" and self._warm is not None:
                self._warm.free()
            self.captioner = CaptionModel(folder, device)
        with Decoder() as decoder:
            picture, _ = decoder.copy(Source.read(Path(request.image)), max_side=SIDE)
        return self.captioner.describe(picture, request.length)


@dataclass(frozen=True)
class Took:
    """What a training took: wall time by step with everything that comes with it (pictures, saving, checking).

    Attributes:
        busy: share of that time in which this thread did not get the processor.
    """

    seconds_per_step: float
    busy: float


class Steering:
    """What a training asks between its steps: answers requests, and says whether to go on."""

    def __init__(self, server: Server, run_id: str) -> None:
        self.server, self.run_id = server, run_id
        self.wish = server.store.get(run_id).wish
        self.base: BaseConfig | None = None
        self.planned: Planned | None = None
        self._began: tuple[int, float, float] | None = None
        self._served = 0.0
        self.signs = SignsOfLife(lambda event: None, self._tell)
        self._told_again = False

    def between_steps(self, session: Session) -> Signal:
        now = time.monotonic()
        if self._began is None:
            self._began = session.step, now, time.thread_time()
        self._serve(session)
        self._served += time.monotonic() - now
        if self.wish is Wish.STOP:
            return Signal.STOP
        if self.server.inbox.closing.is_set() or self.wish in (Wish.PAUSE, Wish.CANCEL):
            return Signal.PAUSE
        return Signal.GO

    def took(self, step: int) -> Took | None:
        """What it took up to now, at ``step``; None after too few steps to tell."""
        if self._began is None or step - self._began[0] < FEW_STEPS:
            return None
        first, since, worked_since = self._began
        seconds = max(1e-9, time.monotonic() - since - self._served)
        worked = time.thread_time() - worked_since
        return Took(seconds / (step - first), min(1.0, max(0.0, 1.0 - worked / seconds)))

    def emit(self, event: Event) -> None:
        """Pass on what is not written down, and leave before the first step when that is wished."""
        self.signs(event)
        if isinstance(event, Planned):
            self.planned = event
        if isinstance(event, Progress) and self._told_again:
            # The step that took long is done.
            self._tell(Phase(name="training"))
        if not isinstance(event, Phase):
            return
        self._tell(event)
        self._note_wishes()
        early = event.name in ("loading", "reading", "caching", "measuring", "racing")
        if self.server.inbox.closing.is_set() or (early and self.wish in (Wish.PAUSE, Wish.CANCEL)):
            raise _Leave

    def _tell(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._told_again = bool(event.seconds)
            self.server.pipe.send(InPhase(run=self.run_id, phase=event))

    def _serve(self, session: Session) -> None:
        self._note_wishes()
        for request in list(self.server.waiting):
            if isinstance(request, Train | Judge | Describe) or self.server.inbox.closing.is_set():
                # They want the device for themselves.
                continue
            if isinstance(request, Draw) and request.base != self.base:
                # It may not fit beside the one in training.
                continue
            self.server.waiting.remove(request)
            self.server.serve(request, session)
            self._note_wishes()

    def _note_wishes(self) -> None:
        """Sort what has arrived: wishes count at once, the rest waits for the next gap between steps."""
        while (request := self.server.inbox.next(timeout=0)) is not None:
            if isinstance(request, Steer):
                self.wish = self.server.store.get(self.run_id).wish
                continue
            self.server.waiting.append(request)
            if isinstance(request, Draw) and self.base is not None and request.base != self.base:
                reason = "The run in training uses another base; this is drawn when it pauses or ends."
                self.server.pipe.send(Drawing(job=request.job, waits=reason))


def note_error() -> None:
    """Write the error at hand to the log, if there is room for it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def memory_used() -> int:
    """Bytes held on the accelerator, or of main memory without one; never wakes up a device that sleeps."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available() and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        return int(total - free)
    return int(psutil.Process().memory_info().rss)
