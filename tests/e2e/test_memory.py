"""A run on a small card: what was chosen is said, written down and repeated; what cannot fit is said at the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from trainer.bases.base import Base
from trainer.bases.open import load_base
from trainer.config import BaseConfig, load, overlay, parse
from trainer.errors import DoesNotFit, RunError
from trainer.events import Event, Planned, Saved, Started
from trainer.styles.read import read_style
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder

SAVINGS = {
    "memory.micro_batch": 1,
    "memory.checkpoint_levels": 3,
    "memory.park_encoders": True,
    "memory.previews": "parked",
}


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(BaseConfig(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(4):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((8, 8 + 5 * index, 50, 50), outline="black", width=4)
        picture.save(folder / f"shape-{index}.png")
        (folder / f"shape-{index}.txt").write_text(f"round shape number {index}", encoding="utf-8")
    return folder


def run_in(path: Path, images: Path, **settings: Any) -> RunFolder:
    values: dict[str, Any] = {
        "name": "ink",
        "data": {"images": str(images)},
        "adapter": {"rank": 2},
        "optim": {"batch_size": 2, "warmup_steps": 0},
        "train": {"steps": 4, "threads": 1, "checkpoint_every": 2},
        "samples": {"prompts": ["a fox"], "steps": 2, "every": 0},
    }
    return create(parse(overlay(values, settings)), path)


class PauseAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def between_steps(self, session: Session) -> Signal:
        return Signal.PAUSE if session.step >= self.step else Signal.GO


def file_hash(folder: RunFolder) -> str:
    return read_style(folder.adapter_file).metadata["sshs_model_hash"]


def test_every_choice_is_written_into_the_runs_config(base: Base, images: Path, tmp_path: Path) -> None:
    folder = run_in(tmp_path / "run", images)
    train(folder, emit=lambda event: None, control=Uncontrolled(), base=base)
    memory = load(folder.config_file).memory
    assert (memory.micro_batch, memory.checkpoint_levels, memory.park_encoders, memory.previews) == (
        2,
        0,
        False,
        "whole",
    )
    assert load(folder.config_file).train.compile == "off"


def test_forced_savings_are_said_and_a_resumed_run_repeats_them(base: Base, images: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    whole = run_in(tmp_path / "whole", images, **SAVINGS)
    train(whole, emit=events.append, control=Uncontrolled(), base=base)
    said = " ".join(next(event for event in events if isinstance(event, Planned)).notes)
    assert "wait in main memory" in said
    assert "3 of the model's 3 levels" in said
    assert not base.placement.parked
    assert not base.denoiser.is_gradient_checkpointing

    broken = run_in(tmp_path / "broken", images, **SAVINGS)
    train(broken, emit=lambda event: None, control=PauseAt(2), base=base)
    train(broken, emit=lambda event: None, control=Uncontrolled(), base=base)
    assert file_hash(broken) == file_hash(whole)


def test_what_cannot_fit_is_said_before_anything_starts(base: Base, images: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    folder = run_in(tmp_path / "run", images, **{"memory.limit_gib": 0.01})
    with pytest.raises(DoesNotFit, match="even with every saving"):
        train(folder, emit=events.append, control=Uncontrolled(), base=base)
    assert not any(isinstance(event, (Started, Saved)) for event in events)
    assert not folder.checkpoints.exists()
    assert not base.placement.parked


def test_the_command_line_ends_with_a_sentence_and_code_2(images: Path, tmp_path: Path) -> None:
    from trainer.cli import app

    command = ["train", str(images), "--out", str(tmp_path / "run"), "--json", "--batch-size", "1"]
    for setting in ("memory.limit_gib=0.01", "memory.checkpoint_levels=0", "train.threads=1"):
        command += ["--set", setting]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "even with every saving" in done.output
    assert all(json.loads(line)["type"] != "started" for line in done.stdout.splitlines() if line.startswith("{"))


def test_a_run_is_not_resumed_on_a_base_that_has_changed(
    base: Base, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_in(tmp_path / "run", images)
    train(folder, emit=lambda event: None, control=PauseAt(2), base=base)
    monkeypatch.setattr(base, "identity", "of another model")
    with pytest.raises(RunError, match="made on another base"):
        train(folder, emit=lambda event: None, control=Uncontrolled(), base=base)
