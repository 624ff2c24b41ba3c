"""The worker's end of its conversation with the app: private pipes, and requests that are read beside the work."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainer.studio.worker.protocol import AnyRequest, CancelDraw, parse_request

if TYPE_CHECKING:
    from trainer.events import Message

LOG_BYTES = 4 * 2**20
PATIENCE_SECONDS = 60.0
"""How long the worker may go on after its app is gone: for a checkpoint of a large base on a slow disk."""


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


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)
