"""The processes beside the worker, with stand-ins that are lost; real ones train in ``tests/e2e/test_worker.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")

SCRIPT = """
import pathlib, sys, threading, time
from trainer.errors import ConfigError
from trainer.studio.worker import followers
from trainer.training.run_folder import RunFolder
folder, followers.PATIENCE_SECONDS = pathlib.Path(sys.argv[1]), float(sys.argv[2])
sys.executable = str(folder / "stand-in")
try:
    with followers.following(RunFolder(folder), 3):
        while not (folder / "told").is_file() or (folder / "told").read_text().count("\\n") < 2:
            time.sleep(0.01)
        exec(sys.argv[3])
except ConfigError:
    sys.exit(0)
"""


def led(tmp_path: Path, other: str, block: str, patience: float = 0.0) -> int:
    """The exit code of a process that does something when the two it leads, which are shell scripts, have begun."""
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(
        f'#!/bin/sh\necho "$$ $RANK of $WORLD_SIZE at $MASTER_ADDR $MASTER_PORT" >> {tmp_path}/told\n{other}\n'
    )
    stand_in.chmod(0o755)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(patience), block]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=170, check=False).returncode


@pytest.mark.parametrize(("other", "code"), [("exit 3", 3), ("kill -9 $$", -9)])
@pytest.mark.parametrize("block", ["threading.Event().wait()", "raise RuntimeError('Connection closed by peer')"])
def test_a_worker_ends_as_a_process_did_that_it_lost(tmp_path: Path, other: str, code: int, block: str) -> None:
    # It would wait for ever; or it fails over the loss, which says nothing about the run.
    assert led(tmp_path, other, block) == code


def test_a_sentence_of_the_worker_s_own_comes_first(tmp_path: Path) -> None:
    assert led(tmp_path, "exit 3", "time.sleep(1); raise ConfigError('x')", patience=100) == 0


def test_the_others_know_each_other_and_are_gone_afterwards(tmp_path: Path) -> None:
    assert led(tmp_path, "exec sleep 100", "") == 0
    told = [line.split(" ", 1) for line in (tmp_path / "told").read_text().splitlines()]
    port = told[0][1].rpartition(" ")[2]
    assert sorted(said for _, said in told) == [f"{rank} of 3 at 127.0.0.1 {port}" for rank in (1, 2)]
    assert not any(psutil.pid_exists(int(pid)) for pid, _ in told)
