"""Gates in processes of the studio and the command line: what passes by stands still until a test has seen it.

How long a training or a reading takes is the machine's affair. A test that wants to see one in the middle closes a gate
first, does what it wants while the process waits there, and opens it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "PATINA_TEST_GATES"
EVERY = "every"
"""Stands for whatever run is trained."""
SITE = f"""
import os, sys, time

gates = os.environ.get("{FOLDER}", "")
if gates and "trainer.data.decoder_child" in sys.orig_argv:
    while os.path.exists(os.path.join(gates, "reading")):
        time.sleep(0.01)

def closed_at(run):
    for gate in (run, "{EVERY}"):
        try:
            with open(os.path.join(gates, f"step-{{gate}}")) as file:
                return int(file.read())
        except FileNotFoundError:
            pass
    return float("inf")

def gated(go_on, run_of, is_ending):
    def between_steps(self, session):
        run = run_of(self)
        if closed_at(run) < float("inf"):
            # Who stands at a gate has told of every step before.
            sys.modules["trainer.training.loop"].REPORT_SECONDS = 0.0
        # Whoever is asked to end does so, behind a closed gate too.
        while session.step >= closed_at(run) and not is_ending(self):
            open(os.path.join(gates, f"there-{{run}}-{{session.step}}"), "w").close()
            time.sleep(0.01)
        return go_on(self, session)
    return between_steps

if gates and "trainer.studio.worker.main" in sys.orig_argv:
    from trainer.studio.worker.serve import Steering

    run, is_ending = (lambda self: self.run_id), (lambda self: self.server.inbox.closing.is_set())
    Steering.between_steps = gated(Steering.between_steps, run, is_ending)

if gates and "trainer" in sys.orig_argv and "train" in sys.orig_argv:
    from trainer.cli.train import _StopKey

    run, is_ending = (lambda self: "{EVERY}"), (lambda self: self.asked)
    _StopKey.between_steps = gated(_StopKey.between_steps, run, is_ending)
"""
"""Runs first in every Python that finds it, and minds its own business in all but three."""


class Gates:
    """The gates of the processes that are started with `environment`.

    Args:
        folder: an empty or new folder of the test's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What the studio's process has to be started with, or this one to have, for its children to mind the gates."""
        paths = (str(self._folder / "site"), os.environ.get("PYTHONPATH", ""))
        return {FOLDER: str(self._folder), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    @contextmanager
    def reading_held(self) -> Iterator[None]:
        """No uploaded image is opened until the block ends, for at most `trainer.data.decoder.START_SECONDS`."""
        gate = self._folder / "reading"
        gate.touch()
        try:
            yield
        finally:
            gate.unlink()

    def close(self, step: int, run: str = EVERY) -> None:
        """Let a training go no further than ``step``; further on when it was closed before."""
        gate = self._folder / f"step-{run}"
        new = gate.with_suffix(".new")
        new.write_text(str(step), encoding="utf-8")
        new.replace(gate)

    def open(self, run: str = EVERY) -> None:
        """Let a training go on."""
        (self._folder / f"step-{run}").unlink()

    def arrived(self, step: int, run: str = EVERY, seconds: float = 300.0) -> None:
        """Wait until a training stands at its gate."""
        there = self._folder / f"there-{run}-{step}"
        end = time.monotonic() + seconds
        while not there.exists():
            assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for step {step}"
            time.sleep(0.01)
