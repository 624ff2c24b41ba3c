"""``patina studio``: the app as a process of its own, which this one waits for."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import typer

from trainer import child

if TYPE_CHECKING:
    import subprocess
    from types import FrameType

# Everything after the command's name is the app's: its options, its --help and what it says of mistakes.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def studio(context: typer.Context) -> None:
    """Open the studio in the browser; Ctrl-C ends it, and what is in training is saved."""
    # This process outlives the app, which may take a while to save; so a signal is handed on instead of obeyed. The
    # app ignores one that it gets twice, from a terminal and from here. On Windows the console tells it by itself.
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process is not None and os.name != "nt":
            process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = child.start("app", *context.args)
        if received:
            hand_on(received[-1], None)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Ended by a signal before the app could listen for it: as a shell says it.
    raise typer.Exit(code if code >= 0 else 128 - code)
