"""The studio's worker: the one process that holds a base, trains the queue's runs and draws previews.

``python -m trainer.studio.worker.main --home DIR`` reads requests from standard input and answers on a private
duplicate of standard output (`trainer.studio.worker.protocol`); its own output goes to a log file before any library
of models is loaded. It lives no longer than its input: when that closes, the run in training is saved and goes on in
the next worker.

Threads: the main one trains and draws; one reads requests; one says every few seconds that all is well.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

from trainer.studio.folder import StudioFolder
from trainer.studio.worker.pipe import Inbox, Pipe, bound_log, private_stdin, private_stdout
from trainer.studio.worker.protocol import Hello
from trainer.studio.worker.serve import Server

STATUS_SECONDS = 3.0


def say_hello(pipe: Pipe) -> None:
    """Tell which device there is; this loads torch."""
    from trainer.hardware import machine, pick_device

    device = pick_device("auto")
    has = machine(device)
    said = {"pid": os.getpid(), "device": device.type, "device_name": has.name, "memory_total": has.total}
    pipe.send(Hello.model_validate(said))


def main() -> int:
    """Set the process up, in the order in which things can go wrong, and serve."""
    options = argparse.ArgumentParser(
        prog="python -m trainer.studio.worker.main", description="The studio's worker process."
    )
    options.add_argument("--home", type=Path, required=True, help="the studio folder")
    options.add_argument("--idle-seconds", type=float, default=300.0, help="free memory after so long without work")
    options.add_argument("--own-card", action="store_true", help="it sees one card of several, its own")
    chosen = options.parse_args()
    home = StudioFolder(chosen.home)
    requests = private_stdin()
    pipe = Pipe(private_stdout(home.worker_log))
    faulthandler.enable()
    inbox = Inbox()
    # The terminal's Ctrl-C is the app's to answer: it closes the pipe. A request to end is the same as that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: inbox.close())
    threading.Thread(target=inbox.read, args=(requests,), daemon=True, name="requests").start()
    server = Server(home, pipe, inbox, idle_seconds=chosen.idle_seconds, own_card=chosen.own_card)
    say_hello(pipe)
    _give_way()
    threading.Thread(target=_keep_saying, args=(server,), daemon=True, name="status").start()
    server.run()
    return 0


def _give_way() -> None:
    """Let the app go first when the processor is busy.

    Each step of niceness is worth a quarter of processor time: at 5 the app gets three times the worker's share when
    both want it, and a training beside other programs goes on; at 10 those would all but stop it.
    """
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)


def _keep_saying(server: Server) -> None:
    while True:
        time.sleep(STATUS_SECONDS)
        server.beat()
        bound_log(server.home.worker_log)


if __name__ == "__main__":
    sys.exit(main())
