"""The pipe between the app and its worker, an end each: `WorkerProcess` is the app's, the rest the worker's.

The worker's end is private, so that nothing a library prints or asks gets into the conversation; its requests are read
beside the work.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from trainer import child
from trainer.events import Message
from trainer.studio.folder import StudioFolder
from trainer.studio.worker.protocol import (
    AnyReply,
    AnyRequest,
    CancelDraw,
    Hello,
    Leave,
    Status,
    Train,
    parse_reply,
    parse_request,
)
from trainer.studio.worker.starved import MemoryWatch

CLOSE_SECONDS = 30.0
LOG_BYTES = 4 * 2**20
LOG_TAIL_BYTES = 16 * 1024
PATIENCE_SECONDS = 60.0
"""How long the worker may go on after its app is gone: for a checkpoint of a large base on a slow disk."""


class WorkerProcess:
    """A worker, from its start to its end.

    Args:
        home: the studio folder.
        card: the one that it sees, as CUDA calls it, or several with commas; empty leaves the choice of a device to it.
        idle_seconds: after so long without work it frees its memory.
        on_reply: called with (this, reply) on a thread of this process's own.
        on_end: called on that thread when the worker has ended.

    Attributes:
        hello, status: what it said last, None before.
        training: the run it was told to train and has not reported on.
        leaving: it ends of its own accord and takes no more requests.
        of_one_run: it leaves after the run that it trains.
        memory: what was seen of the machine's memory while it lived.
    """

    def __init__(
        self,
        home: StudioFolder,
        *,
        card: str = "",
        idle_seconds: float,
        on_reply: Callable[[WorkerProcess, AnyReply], None],
        on_end: Callable[[], None],
    ) -> None:
        self.hello: Hello | None = None
        self.status: Status | None = None
        self.training = ""
        self.leaving = False
        self.of_one_run = False
        self.memory = MemoryWatch()
        self._over = False
        self._sent: set[str] = set()
        self._on_reply, self._on_end = on_reply, on_end
        sees = {"CUDA_VISIBLE_DEVICES": card} if card else {}
        # Until the worker has opened its log by itself: a Python that cannot start says why there.
        with home.worker_log.open("ab") as log:
            self._process = child.start(
                "trainer.studio.worker.main",
                *("--home", str(home.path), "--idle-seconds", str(idle_seconds), *(["--own-card"] if card else [])),
                env={**child.environment(), **sees},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Closing the terminal must reach the app alone; the worker then saves.
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._listen, name="worker-replies", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone and everything it said was taken."""
        return self._over

    def send(self, request: AnyRequest) -> None:
        """Send a request; a worker that is gone is noticed by its end, and what it missed is sent to the next."""
        with contextlib.suppress(OSError, ValueError):
            self._requests.write(request.line().encode() + b"\n")
            self._requests.flush()

    def train(self, run_id: str) -> None:
        """Have it train a run."""
        self.training = run_id
        self.send(Train(run=run_id))

    def leave(self) -> None:
        """Have it end after what it was sent before; it takes no more."""
        if not self.leaving:
            self.leaving = True
            self.send(Leave())

    def send_once(self, name: str, request: AnyRequest) -> None:
        """Send a request unless one of that name was sent before."""
        if name not in self._sent:
            self._sent.add(name)
            self.send(request)

    def was_sent(self, name: str) -> bool:
        """Whether a request of that name was sent."""
        return name in self._sent

    def bury(self) -> int:
        """Close the pipes of a worker that ended; returns its exit code, negative for a signal."""
        code = self._process.wait()
        self._reader.join()
        self.hang_up()
        self._replies.close()
        return code

    def end(self, seconds: float) -> None:
        """Let it save and end, for at most so long."""
        self.hang_up()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()

    def hang_up(self) -> None:
        """Ask it to save and end."""
        with contextlib.suppress(OSError):
            self._requests.close()

    def _listen(self) -> None:
        """Take replies until the worker's end of the pipe closes, which is when the process ends."""
        try:
            for line in self._replies:
                reply = parse_reply(line)
                if reply is not None:
                    self._on_reply(self, reply)
        except BaseException:
            # A worker that nobody listens to must not go on by itself.
            self._process.kill()
            raise
        finally:
            self._over = True
            self._on_end()


def end_all(workers: Sequence[WorkerProcess]) -> None:
    """Let workers save and end, all at once, for at most `CLOSE_SECONDS`."""
    by = time.monotonic() + CLOSE_SECONDS
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.end(max(0.0, by - time.monotonic()))


def ending(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        return f"signal {-code}; often memory runs out"
    return f"exit code {code}"


def note(log: Path, text: str) -> None:
    """Add to the worker's log, if there is room for it."""
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
        stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def tail_of(log: Path) -> bytes:
    """The end of the worker's log; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - LOG_TAIL_BYTES))
            return stream.read()
    except OSError:
        return b""


class Log(io.TextIOWrapper):
    """A text stream onto a descriptor that loses what there is no room for, instead of failing whoever writes."""

    def __init__(self, descriptor: int) -> None:
        raw = os.fdopen(descriptor, "wb", buffering=0, closefd=False)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class Pipe:
    """The worker's end of the conversation; may be written to from any thread."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a reply; when nobody listens any more it is dropped, as the closing input is noticed elsewhere.

        Raises:
            ValueError: the message holds what cannot be written as JSON or UTF-8; nothing was sent then.
        """
        line = message.line().encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._out.write(line)
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


def private_stdin() -> int:
    """The pipe from the app for us alone: a library that asks a question gets no answer."""
    private = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return private


def private_stdout(log: Path) -> IO[bytes]:
    """The pipe to the app for us alone; everything that any library prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    private = os.fdopen(os.dup(1), "wb")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout, sys.stderr = Log(1), Log(2)
    print(f"--- worker {os.getpid()} starts {time.strftime('%Y-%m-%d %H:%M:%S')}", file=sys.stderr)  # noqa: T201
    return private


def bound_log(log: Path) -> None:
    """Keep the log that this process writes within `LOG_BYTES`, and as much again of what came before.

    A worker may live for months; the descriptors stay those of the same file, since a library may hold them.
    """
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > LOG_BYTES and os.path.samestat(os.fstat(2), log.stat()):
            shutil.copyfile(log, log.with_suffix(".old.log"))
            os.ftruncate(2, 0)


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)
