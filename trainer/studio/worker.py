"""The studio's worker: the one process that holds a base, trains the queue's runs and draws previews.

``python -m trainer.studio.worker --home DIR`` reads requests from standard input and answers on a private duplicate of
standard output (`trainer.studio.protocol`); file descriptors 1 and 2 go to a log file before anything else happens.
It lives no longer than its input: when that closes, the run in training is saved and goes on in the next worker.

Threads: the main one trains and draws; one reads requests; one says every few seconds that all is well.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import psutil

from trainer.errors import PatinaError
from trainer.events import Event, Failed, Phase, sentence_of
from trainer.studio.database import Database
from trainer.studio.home import Home
from trainer.studio.lease import HEARTBEAT_SECONDS, this_process
from trainer.studio.protocol import (
    Answer,
    AnyRequest,
    CancelDraw,
    Convert,
    Draw,
    DrawEnded,
    Drawing,
    Drawn,
    Hello,
    InPhase,
    Inspect,
    Leaving,
    RunEnded,
    Status,
    Steer,
    Train,
    parse_request,
)
from trainer.studio.store import State, Store, Wish
from trainer.training.control import Signal
from trainer.training.folder import RunFolder

if TYPE_CHECKING:
    from trainer.events import Message
    from trainer.studio.easel import Easel
    from trainer.training.control import Session

STATUS_SECONDS = 3.0
LOG_BYTES = 4 * 2**20
PATIENCE_SECONDS = 60.0
"""How long the worker may go on after its app is gone: for a checkpoint of a large base on a slow disk."""


class _Leave(BaseException):
    """Ends a training that has not come to its steps yet (a download, a cache of a thousand images)."""


class Pipe:
    """The worker's end of the conversation; may be written to from any thread."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a reply; when nobody listens any more it is dropped, as the closing input is noticed elsewhere."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._out.write(message.line().encode() + b"\n")
            self._out.flush()


class Inbox:
    """Requests as they arrive; reading them never blocks the thread that trains."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        self.cancelled: set[str] = set()
        self._arrived: queue.SimpleQueue[AnyRequest | None] = queue.SimpleQueue()

    def read(self, descriptor: int) -> None:
        """Read until the pipe closes; runs on a thread of its own."""
        rest = b""
        # Not a buffered stream: its lock, held by this thread while it waits, is fatal when the interpreter ends.
        with contextlib.suppress(OSError):
            while chunk := os.read(descriptor, 1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(parse_request(line))
        self.close()

    def _take(self, request: AnyRequest | None) -> None:
        if isinstance(request, CancelDraw):
            # At once, whatever the main thread is at: it looks here after every denoising step.
            self.cancelled.add(request.job)
        elif request is not None:
            self._arrived.put(request)

    def close(self) -> None:
        """Ask for the end."""
        self.closing.set()
        self._arrived.put(None)
        # What cannot be interrupted (a download that hangs) must not outlive the app.
        threading.Thread(target=_end_after, args=(PATIENCE_SECONDS,), daemon=True).start()

    def next(self, timeout: float) -> AnyRequest | None:
        """The next request; None when there is none within the time, or at the end."""
        with contextlib.suppress(queue.Empty):
            return self._arrived.get(timeout=timeout) if timeout > 0 else self._arrived.get_nowait()
        return None


class Worker:
    """The main thread's work."""

    def __init__(self, home: Home, pipe: Pipe, inbox: Inbox, *, idle_seconds: float) -> None:
        self.home, self.pipe, self.inbox = home, pipe, inbox
        self.idle_seconds = idle_seconds
        self.store = Store(Database(home.database))
        self.owner = this_process()
        self.waiting: deque[AnyRequest] = deque()
        self.status = Status(doing="idle")
        self._easel: Easel | None = None

    @property
    def easel(self) -> Easel:
        """Torch and the libraries of models are loaded when they are first needed."""
        if self._easel is None:
            from trainer.studio.easel import Easel

            self._easel = Easel(self.home.runs)
        return self._easel

    def run(self) -> None:
        """Serve until the input closes or nothing is asked for long."""
        last = time.monotonic()
        while not self.inbox.closing.is_set():
            request = self.waiting.popleft() if self.waiting else self.inbox.next(timeout=1.0)
            if request is not None:
                self.serve(request)
                last = time.monotonic()
                continue
            idle = time.monotonic() - last
            if idle > self.idle_seconds and self._easel is not None and self._easel.base is not None:
                self._easel.free()
                self.say("idle")
            if idle > 3 * self.idle_seconds:
                # Only the end of the process gives back what the libraries and the driver hold.
                self.pipe.send(Leaving())
                return

    def serve(self, request: AnyRequest, session: Session | None = None) -> None:
        """Answer a request; with ``session`` between two steps of a training."""
        if isinstance(request, Train):
            self.train(request.run)
        elif isinstance(request, Draw):
            self.draw(request, session)
        elif isinstance(request, Inspect | Convert):
            self.answer(request)

    def say(self, doing: Literal["idle", "training", "drawing"], run: str = "") -> None:
        """Tell what the worker does, now and every few seconds."""
        base = self._easel.base if self._easel is not None else None
        self.status = Status(doing=doing, run=run, base=base.source if base is not None else "")
        self.beat()

    def beat(self) -> None:
        """Send the status with the memory in use."""
        self.pipe.send(self.status.model_copy(update={"memory_used": memory_used()}))

    # ---- training

    def train(self, run_id: str) -> None:
        """Train a run if it is ours to train, and note how it ended."""
        if not self.store.claim(run_id, self.owner):
            self.pipe.send(RunEnded(run=run_id, taken=False))
            return
        self.say("training", run_id)
        folder = RunFolder(self.home.run(run_id))
        steering = Steering(self, run_id)
        state, message = State.FAILED, ""
        try:
            state = self._train(folder, steering)
        except _Leave:
            state = steering.resting_state()
        except Exception as error:
            traceback.print_exc()
            message = sentence_of(error)
            if not isinstance(error, PatinaError):
                # Memory may have run out, or the device be in an unknown state: nothing of it is kept.
                self.easel.free()
        self.store.hand_back(run_id, self.owner, state, message)
        self.pipe.send(RunEnded(run=run_id))
        self.say("idle")

    def _train(self, folder: RunFolder, steering: Steering) -> State:
        config = folder.config()
        steering.base = config.base
        steering.emit(Phase(name="loading", detail=config.base.source))
        try:
            base = self.easel.base_for_training(config)
        except Exception as error:
            folder.append(Failed(step=0, message=sentence_of(error)))
            raise
        from trainer.training.run import train

        outcome = train(folder, emit=steering.emit, control=steering, base=base)
        return State.FINISHED if outcome.state == "finished" else steering.resting_state()

    # ---- drawing

    def draw(self, request: Draw, session: Session | None) -> None:
        """Draw a job's pictures; what goes wrong is the job's end, not the worker's."""
        from trainer.preview.generate import Cancelled

        before = self.status
        self.say("drawing", before.run)
        self.pipe.send(Drawing(job=request.job))

        def on_step(done: int, total: int) -> bool:
            self.pipe.send(Drawing(job=request.job, done=done, total=total))
            return request.job not in self.inbox.cancelled and not self.inbox.closing.is_set()

        def on_picture(index: int, path: Path) -> None:
            self.pipe.send(Drawn(job=request.job, index=index, path=str(path)))

        ended = DrawEnded(job=request.job, state="done")
        try:
            if not on_step(0, 0):
                raise Cancelled
            self.easel.draw(request, on_step, on_picture, session)
        except Cancelled:
            ended = DrawEnded(job=request.job, state="cancelled")
        except Exception as error:
            if not isinstance(error, PatinaError):
                traceback.print_exc()
            if session is None:
                self.easel.clear()
            ended = DrawEnded(job=request.job, state="failed", message=sentence_of(error))
        self.inbox.cancelled.discard(request.job)
        self.pipe.send(ended)
        self.say(before.doing, before.run)

    # ---- files

    def answer(self, request: Inspect | Convert) -> None:
        """Look into an adapter file or write it anew."""
        from trainer.studio import files

        try:
            if isinstance(request, Inspect):
                data = files.inspect(Path(request.path))
            else:
                data = files.convert(Path(request.source), Path(request.target), request.layout, request.name)
            self.pipe.send(Answer(ask=request.ask, data=data))
        except Exception as error:
            if not isinstance(error, PatinaError):
                traceback.print_exc()
            self.pipe.send(Answer(ask=request.ask, error=type(error).__name__, message=sentence_of(error)))


class Steering:
    """What a training asks between its steps: answers requests, and says whether to go on."""

    def __init__(self, worker: Worker, run_id: str) -> None:
        self.worker, self.run_id = worker, run_id
        self.wish = worker.store.get(run_id).wish
        self.base: object = None

    def between_steps(self, session: Session) -> Signal:
        self._serve(session)
        if self.wish is Wish.STOP:
            return Signal.STOP
        if self.worker.inbox.closing.is_set() or self.wish in (Wish.PAUSE, Wish.CANCEL):
            return Signal.PAUSE
        return Signal.GO

    def emit(self, event: Event) -> None:
        """Pass on what is not written down, and leave before the first step when that is wished."""
        if not isinstance(event, Phase):
            return
        self.worker.pipe.send(InPhase(run=self.run_id, phase=event))
        self._note_wishes()
        early = event.name in ("loading", "reading", "caching", "measuring")
        if self.worker.inbox.closing.is_set() or (early and self.wish in (Wish.PAUSE, Wish.CANCEL)):
            raise _Leave

    def resting_state(self) -> State:
        """The state of a run that was saved before its end."""
        if self.wish is Wish.CANCEL:
            return State.CANCELLED
        return State.PAUSED if self.wish is Wish.PAUSE else State.QUEUED

    def _serve(self, session: Session) -> None:
        self._note_wishes()
        for request in list(self.worker.waiting):
            if isinstance(request, Train) or self.worker.inbox.closing.is_set():
                continue
            if isinstance(request, Draw) and request.base != self.base:
                # It may not fit beside the one in training.
                continue
            self.worker.waiting.remove(request)
            self.worker.serve(request, session)
            self._note_wishes()

    def _note_wishes(self) -> None:
        """Sort what has arrived: wishes count at once, the rest waits for the next gap between steps."""
        while (request := self.worker.inbox.next(timeout=0)) is not None:
            if isinstance(request, Steer):
                self.wish = self.worker.store.get(self.run_id).wish
                continue
            self.worker.waiting.append(request)
            if isinstance(request, Draw) and self.base is not None and request.base != self.base:
                reason = "The run in training uses another base; this is drawn when it pauses or ends."
                self.worker.pipe.send(Drawing(job=request.job, waits=reason))


def memory_used() -> int:
    """Bytes held on the accelerator, or of main memory without one; never wakes up a device that sleeps."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available() and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        return int(total - free)
    return int(psutil.Process().memory_info().rss)


def say_hello(pipe: Pipe) -> None:
    """Tell which device there is; this loads torch."""
    from trainer.training.device import machine, pick_device

    device = pick_device("auto")
    has = machine(device)
    said = {"pid": os.getpid(), "device": device.type, "device_name": has.name, "memory_total": has.total}
    pipe.send(Hello.model_validate(said))


def main() -> int:
    """Set the process up, in the order in which things can go wrong, and serve."""
    options = argparse.ArgumentParser(
        prog="python -m trainer.studio.worker", description="The studio's worker process."
    )
    options.add_argument("--home", type=Path, required=True, help="the studio folder")
    options.add_argument("--idle-seconds", type=float, default=300.0, help="free memory after so long without work")
    chosen = options.parse_args()
    home = Home(chosen.home)
    requests = _private_stdin()
    pipe = Pipe(_private_stdout(home.worker_log))
    faulthandler.enable()
    _give_way()
    inbox = Inbox()
    # The terminal's Ctrl-C is the app's to answer: it closes the pipe. A request to end is the same as that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: inbox.close())
    threading.Thread(target=inbox.read, args=(requests,), daemon=True, name="requests").start()
    worker = Worker(home, pipe, inbox, idle_seconds=chosen.idle_seconds)
    say_hello(pipe)
    threading.Thread(target=_keep_saying, args=(worker,), daemon=True, name="status").start()
    worker.run()
    return 0


def _private_stdin() -> int:
    """The pipe from the app for us alone: a library that asks a question gets no answer."""
    private = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return private


def _private_stdout(log: Path) -> IO[bytes]:
    """The pipe to the app for us alone; everything that any library prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    private = os.fdopen(os.dup(1), "wb")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
    print(f"--- worker {os.getpid()} starts {time.strftime('%Y-%m-%d %H:%M:%S')}", file=sys.stderr)  # noqa: T201
    return private


def _give_way() -> None:
    """Let the app and the rest of the machine go first when the processor is busy."""
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 10)


def _keep_saying(worker: Worker) -> None:
    beaten = 0.0
    while True:
        time.sleep(STATUS_SECONDS)
        worker.beat()
        if time.monotonic() - beaten > HEARTBEAT_SECONDS:
            worker.store.leases.beat(worker.owner)
            beaten = time.monotonic()


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
