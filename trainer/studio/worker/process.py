"""One worker process as the app sees it: its pipes, what it was asked, and what it said last."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable

from trainer import child
from trainer.studio.folder import StudioFolder
from trainer.studio.worker.protocol import AnyReply, AnyRequest, Hello, Status, parse_reply

CLOSE_SECONDS = 30.0


class WorkerProcess:
    """A worker, from its start to its end.

    Args:
        home: the studio folder.
        idle_seconds: after so long without work it frees its memory.
        on_reply: called with (this, reply) on a thread of this process's own.
        on_end: called on that thread when the worker has ended.

    Attributes:
        hello, status: what it said last, None before.
        training: the run it was told to train and has not reported on.
        leaving: it ends of its own accord and takes no more requests.
    """

    def __init__(
        self,
        home: StudioFolder,
        *,
        idle_seconds: float,
        on_reply: Callable[[WorkerProcess, AnyReply], None],
        on_end: Callable[[], None],
    ) -> None:
        self.hello: Hello | None = None
        self.status: Status | None = None
        self.training = ""
        self.leaving = False
        self._over = False
        self._sent: set[str] = set()
        self._on_reply, self._on_end = on_reply, on_end
        # Until the worker has opened its log by itself: a Python that cannot start says why there.
        with home.worker_log.open("ab") as log:
            self._process = child.start(
                "trainer.studio.worker.main",
                *("--home", str(home.path), "--idle-seconds", str(idle_seconds)),
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
        self._hang_up()
        self._replies.close()
        return code

    def end(self) -> None:
        """Let it save and end, for at most `CLOSE_SECONDS`."""
        self._hang_up()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()

    def _hang_up(self) -> None:
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
