"""One run in several processes on this machine, by torch's launcher, which ``accelerate launch`` starts, too."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence

MAIN = 0


def process_number() -> int | None:
    """Which of several launched processes this is, the main one being 0; None when it was started alone."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def follow() -> None:
    """Leave Ctrl-C to the main process, which saves and tells the others to end; for those others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_in_processes(arguments: Sequence[str], count: int) -> int:
    """Run ``patina`` with these arguments ``count`` times, as processes that know of each other.

    Ctrl-C, and the polite signal to end, are passed on to all of them.

    Returns:
        The exit status of the one that failed first, 0 when all ended well.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # Its reports repeat, with a traceback, what the process itself has said in a sentence.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    asked = ["--standalone", "--nproc-per-node", str(count), "--module", "trainer", *arguments]
    try:
        run(parse_args(asked))
    except SignalException:
        return 0
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 1
    return 0
