"""One run in two processes on the CPU: the same training, written once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from trainer.bases.base import Base
from trainer.config import parse
from trainer.errors import ConfigError
from trainer.events import Progress
from trainer.training.checkpoint import newest
from trainer.training.ladder import pass_sizes, shared_out
from trainer.training.pausing import Uncontrolled
from trainer.training.processes import open_accelerator, own_passes
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder


def losses_of(folder: RunFolder) -> list[float]:
    return [loss for event in folder.events() if isinstance(event, Progress) for loss in event.losses]


def kinds_of(folder: RunFolder) -> Counter[str]:
    """How often each kind of event was written; progress comes by the clock, and only one of the runs loads a base."""
    found = Counter(getattr(event, "name", event.type) for event in folder.events())
    return Counter({kind: count for kind, count in found.items() if kind not in ("progress", "loading")})


def in_two_processes(folder: RunFolder, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", "train", "--resume", str(folder.path), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=170)


@pytest.mark.slow
def test_two_processes_train_what_one_trains_with_the_whole_batch(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["optim"]["batch_size"] = 4
    settings["train"]["device"] = "cpu"
    # Adam divides by the size of a gradient: where that is mere rounding, it would make a whole step of it.
    settings["optim"]["epsilon"] = 1e-3
    settings["samples"]["every"] = 2
    alone = create(parse(settings), tmp_path / "alone")
    train(alone, emit=lambda event: None, control=Uncontrolled(), base=base)
    shared = create(parse(settings), tmp_path / "shared")
    ended = in_two_processes(shared, "--json", "--gpus", "2")
    assert ended.returncode == 0, ended.stderr

    assert torch.tensor(losses_of(shared)).sub(torch.tensor(losses_of(alone))).abs().max() < 1e-5
    one, _ = newest(alone.checkpoints)
    two, _ = newest(shared.checkpoints)
    assert one is not None
    assert two is not None
    for name, value in one.adapter.items():
        torch.testing.assert_close(two.adapter[name], value, rtol=1e-3, atol=1e-5)

    assert kinds_of(shared) == kinds_of(alone), "events are written once, by the main process"
    assert [step for step, _ in shared.saved()] == [step for step, _ in alone.saved()]
    assert shared.config().memory.micro_batch == 2
    assert ended.stdout.count('"finished"') == 1


@pytest.mark.slow
def test_what_fails_in_several_processes_is_said_once_and_without_a_traceback(settings: dict, tmp_path: Path) -> None:
    settings["train"] |= {"gpus": 2, "device": "cpu"}
    settings["optim"]["batch_size"] = 3
    folder = create(parse(settings), tmp_path / "run")
    ended = in_two_processes(folder)
    assert ended.returncode == 2
    assert ended.stderr.count("optim.batch_size is 3, which 2 processes cannot share equally") == 1
    assert "Traceback" not in ended.stderr


class Two:
    """The facts of two processes, seen from the second."""

    num_processes, process_index = 2, 1


def test_each_process_takes_its_own_passes() -> None:
    assert list(own_passes(open_accelerator(), 3)) == [0, 1, 2]
    assert list(own_passes(Two(), 4)) == [2, 3]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be shared"):
        own_passes(Two(), 3)  # type: ignore[arg-type]


def test_passes_come_out_even_among_processes() -> None:
    assert pass_sizes(parse({"optim": {"batch_size": 6}}), 1) == [6, 3, 2, 1]
    assert pass_sizes(parse({"optim": {"batch_size": 6}}), 2) == [3, 1]
    assert pass_sizes(parse({"optim": {"batch_size": 6, "gradient_accumulation": 2}}), 2) == [6, 3, 2, 1]


def test_a_batch_that_was_chosen_grows_to_be_shared_and_one_that_was_asked_for_is_refused() -> None:
    config = parse({"optim": {"batch_size": 3}, "memory": {"micro_batch": 3}})
    grown = shared_out(config, 2, free=True)
    assert (grown.optim.batch_size, grown.memory.micro_batch) == (4, 2)
    with pytest.raises(ConfigError, match="use a multiple of 2"):
        shared_out(config, 2, free=False)
    assert shared_out(config, 1, free=False) == config
