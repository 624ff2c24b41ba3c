"""What the benchmark of whole runs sees of a process from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import full_size
from benchmarks.full_size import Watched, case_of, kept, known, table, watched

CHILD = """
import json, time
def phase(name):
    print(json.dumps({"type": "phase", "name": name}), flush=True)
phase("loading")
time.sleep(0.2)
phase("training")
held = bytearray(64 * 2**20)
held[::4096] = b"x" * len(held[::4096])
time.sleep(0.4)
del held
phase("loading")
print(json.dumps({"type": "notice", "text": "almost there"}), flush=True)
time.sleep(0.2)
"""


def test_each_phase_has_its_seconds_and_its_own_peak(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = watched([sys.executable, "-c", CHILD], dict(os.environ))
    assert list(found.rows) == ["starting", "loading", "training"]
    loading, training = found.rows["loading"], found.rows["training"]
    assert training.bytes - loading.bytes > 32 * 2**20
    assert training.own_bytes <= training.bytes
    assert training.seconds > 0.3
    assert loading.seconds > 0.3
    assert found.silence > 0.3
    assert "almost there" in capsys.readouterr().out
    case, again = case_of(["sdxl", "--tiny", "--quantize", "nf4", "--home", str(tmp_path), "--threads", "1"])
    assert not again
    assert case.name == "sdxl-64-fp32-nf4-attention-1-threads-tiny"
    kept(case, {"run": found, "reopened": Watched({"drawing": training})})
    assert known(case)["run"] == found
    lines = list(table(known(case)))
    assert any(line.startswith("| reopened: drawing | ") for line in lines)
    assert f"{training.bytes / full_size.GIB:.2f} | |" in lines[-2]


def test_a_run_that_fails_is_not_a_result() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        watched([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))
