"""One line a failed call on the terminal, the whole of it in a file: nonsense from a page must not fill a screen."""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
import traceback
from pathlib import Path

LOG_BYTES = 2**20


class ShortErrors:
    """Stands where Gradio looks for the ``traceback`` module, of which it uses `print_exc` alone."""

    def __init__(self, log: Path) -> None:
        handler = _Quiet(log, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._whole = logging.Logger("patina.app")
        self._whole.addHandler(handler)

    def print_exc(self) -> None:
        """Say the error at hand."""
        from trainer.printable import printable

        error = sys.exc_info()[1]
        self._whole.error("%s", traceback.format_exc().encode(errors="backslashreplace").decode())
        said = printable(f"{type(error).__name__}: {error}", 200)
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} a call failed: {said}\n")


class _Quiet(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """On a full disk the line on the terminal has to do."""


def install(log: Path) -> None:
    """Have Gradio's errors said short; ``log`` takes the whole of them, at most 2 MiB."""
    import gradio.queueing
    import gradio.route_utils
    import gradio.routes
    import gradio.utils

    short = ShortErrors(log)
    for module in (gradio.queueing, gradio.route_utils, gradio.routes, gradio.utils):
        # Gradio has no setting for this.
        module.traceback = short
