"""Short versions of what ``python -m benchmarks.reliability`` measures in full, see ``docs/reliability.md``.

What the studio's own processes withstand (kills, a full disk, clients at once) is in ``test_worker.py`` beside this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.reliability.__main__ import ROWS, measure
from benchmarks.reliability.faults import Faults, Plan, flipped, install
from benchmarks.reliability.tiny import bench_at
from trainer.errors import RunError
from trainer.training import checkpoint
from trainer.training.checkpoint import Checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One place for all rows, so that the tiny base is made once."""
    threads = torch.get_num_threads()
    yield tmp_path_factory.mktemp("rows")
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "count"),
    [("kill-cli", 2), ("sigterm", 1), ("disk-cli", 3), ("recover", 2), ("images", 150), ("adapters", 150)],
)
def test_a_row_holds(folder: Path, name: str, count: int) -> None:
    row = measure(name, count, folder)
    assert row.failures == []
    assert (row.good, row.done) == (count, count)


@pytest.mark.timeout(300)
def test_hostile_calls_are_answered_with_nothing_but_a_sentence(folder: Path) -> None:
    row = measure("calls", 60, folder)
    assert row.failures == []
    assert (row.good, row.figures["tracebacks"]) == (60, 0)


def test_the_command_names_every_row_and_prints_its_figures(repository: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.reliability"]
    rows = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in rows.splitlines()] == list(ROWS)
    images = subprocess.run([*command, "images", "--count", "3"], cwd=repository, capture_output=True, text=True)
    assert '"held": 3, "of": 3' in images.stdout, images.stderr
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert [name for name in ROWS if f"`{name}`" not in text] == []


# ---- the faults themselves: a fault that did not happen would prove anything


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"a": torch.full((50, 50), float(step))}, {"m": torch.zeros(3)})


def moments(tmp_path: Path) -> int:
    """How many moments the writing of one checkpoint has."""
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(Plan(str(tmp_path / "counted")))
        install(faults, patch.setattr)
        checkpoint.save(state(1), tmp_path / "counted", keep=2)
    return faults.moments


def saving_fails(parent: Path) -> bool:
    try:
        checkpoint.save(state(2), parent, keep=2)
    except RunError:
        return True
    return False


@pytest.mark.parametrize("kind", ["full", "io"])
def test_a_checkpoint_that_any_write_fails_leaves_the_one_before(tmp_path: Path, kind: str) -> None:
    count = moments(tmp_path)
    assert count > 10
    parent = tmp_path / "checkpoints"
    checkpoint.save(state(1), parent, keep=2)
    for at in range(1, count + 1):
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(Plan(str(parent), "", at, kind))  # type: ignore[arg-type]
            install(faults, patch.setattr)
            failed = saving_fails(parent)
        found, torn = checkpoint.newest(parent)
        assert found is not None
        assert torn == []
        # Even a folder that could not be synced is whole once it has its name.
        assert found.step in ((1, 2) if failed else (2,))
        assert found.adapter["a"][0, 0] == found.step
        assert failed or faults.moments >= at
        shutil.rmtree(parent / "step-000002", ignore_errors=True)
        assert not list(parent.glob(".*"))


def test_every_flipped_bit_of_a_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path: Path) -> None:
    checkpoint.save(state(1), tmp_path, keep=2)
    newest = checkpoint.save(state(2), tmp_path, keep=2)
    for file in sorted(newest.iterdir()):
        whole = file.read_bytes()
        for bit in range(0, 8 * len(whole), max(1, len(whole) // 3)):
            flipped(file, bit)
            found, torn = checkpoint.newest(tmp_path)
            # A bit of the manifest's white space says nothing of the state.
            assert found is not None
            assert found.step == 1 or found.adapter["a"][0, 0] == 2
            assert (found.step == 1) == bool(torn)
            file.write_bytes(whole)
    assert checkpoint.newest(tmp_path)[1] == []


def test_a_slow_disk_takes_longer_and_changes_nothing(folder: Path) -> None:
    bench = bench_at(folder)
    from trainer.styles.metadata import sshs_model_hash

    wanted = sshs_model_hash(bench.whole.adapter_file)
    run = bench.new_run("slow")
    assert bench.train(run, lambda: install(Faults(Plan(str(run.path), "checkpoints", 1, "slow")))) == 0
    assert sshs_model_hash(run.adapter_file) == wanted


def test_a_run_folder_that_becomes_read_only_is_a_sentence_and_the_run_goes_on_later(folder: Path) -> None:
    bench = bench_at(folder)
    run = bench.new_run("locked")
    log = run.path.with_suffix(".log")
    assert bench.train(run, lambda: install(Faults(Plan(str(run.path), "", 25, "readonly")))) == 2
    assert "Read-only file system" in log.read_text(encoding="utf-8")
    assert "Traceback" not in log.read_text(encoding="utf-8")
    assert bench.train(run) == 0
