"""The other processes of a run on several cards: the worker is the main one, starts them, and has them gone afterwards.

``python -m trainer.studio.worker.followers RUN`` is one of them. Each takes part in every step; only the worker writes,
draws and reports (`trainer.training.processes`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer import child
from trainer.errors import PatinaError
from trainer.training.run_folder import RunFolder

LOOK_SECONDS = 0.5
LOSS_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
"""How long the worker may take to end with a sentence of its own after another process was lost."""


@contextmanager
def following(folder: RunFolder, count: int) -> Iterator[None]:
    """Have ``count - 1`` other processes take part in the training of a run in the block; once in a process's life.

    Where one of them is lost, this process ends as it did: the others would wait for it forever. Whoever watches over
    this one starts all anew from the last saved step.
    """
    if count == 1:
        yield
        return
    os.environ.update(_meeting_place(), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), RANK="0", LOCAL_RANK="0")
    others = [_started(folder, rank) for rank in range(1, count)]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), name="followers", daemon=True).start()
    try:
        yield
    except Exception as error:
        if not isinstance(error, PatinaError):
            # It may be what the loss of another process looks like from here, which may not be quite gone.
            by = time.monotonic() + LOSS_SECONDS
            while not (code := _lost(others)) and time.monotonic() < by:
                time.sleep(0.05)
            _end_as(code)
        raise
    finally:
        over.set()
        for other in others:
            other.kill()
            other.communicate()


def _meeting_place() -> dict[str, str]:
    """Where the processes find each other: a port of this machine that nobody uses at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def _started(folder: RunFolder, rank: int) -> subprocess.Popen[bytes]:
    variables = {**child.environment(), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    return child.start("trainer.studio.worker.followers", str(folder.path), stdin=subprocess.PIPE, env=variables)


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        if (code := _lost(others)) and not over.wait(PATIENCE_SECONDS):
            _end_as(code)


def _lost(others: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit code of a process that failed, 0 where none has: those that did their part end before the worker."""
    return next((code for other in others if (code := other.poll())), 0)


def _end_as(code: int) -> None:
    """End at once with an exit code, or by a signal where that is negative; 0 goes on."""
    if code < 0:
        os.kill(os.getpid(), -code)
    if code:
        os._exit(code)


def main() -> int:
    """Take part in the training of the run whose folder is named, until that or the worker ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    from trainer.training.pausing import Uncontrolled
    from trainer.training.run import train

    try:
        train(RunFolder(Path(sys.argv[1])), emit=lambda event: None, control=Uncontrolled())
    except PatinaError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _end_with_the_worker() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
