"""Early stopping: when it ends a run, and that a pause changes nothing about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open

from trainer.bases.base import Base
from trainer.config import parse
from trainer.errors import RunError
from trainer.events import Event, Finished, Notice
from trainer.judging.pick import Candidate
from trainer.styles.read import read_style
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder
from trainer.training.stopping import Look, read, stopped, verdict

GOOD = {2: 0.5, 3: 0.8, 4: 0.6, 5: 0.7, 6: 0.9}


def look(step: int, good: float = 0.5, *, copies: bool = False) -> Look:
    return Look(step, good, copies)


def test_a_run_ends_when_images_come_back_or_two_looks_were_no_better() -> None:
    rising = [look(100, 0.5), look(200, 0.6), look(300, 0.7)]
    assert verdict(rising, "settled", 1000) == ""
    falling = [*rising, look(400, 0.69), look(500, 0.7)]
    assert verdict(falling[:-1], "settled", 1000) == ""
    assert "step 500 of 1000" in verdict(falling, "settled", 1000)
    assert "no better than at step 300" in verdict(falling, "settled", 1000)
    assert verdict(falling, "copying", 1000) == ""
    copied = [*rising, look(400, 0.9, copies=True)]
    assert "repeat training images" in verdict(copied, "copying", 1000)
    assert "repeat training images" in verdict(copied, "settled", 1000)
    assert verdict(copied, "never", 1000) == verdict([], "copying", 1000) == ""


def test_a_look_is_taken_of_what_a_candidate_scores() -> None:
    known = Candidate(
        step=7, strength=1.0, style=(0.5,), subject=(1.0,), nearness=(1.0,), nearest=(0,), drift=0.0, variety=1.0,
        recall=(0.99, 0.99), recalled=(0, 1), images=2,
    )  # fmt: skip
    assert Look.of(known) == Look(7, pytest.approx(2 / 9), copies=True)


def test_looks_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read(folder) == []
    folder.looks_file.write_text("[{", encoding="utf-8")
    with pytest.raises(RunError, match="remove it"):
        read(folder)


class Scripted:
    """A judge whose scores are written above, by step; it disturbs what a judge may disturb."""

    looked: ClassVar[list[int]] = []

    def __init__(self, *arguments: Any) -> None:
        pass

    def suspect(self) -> None:
        torch.manual_seed(0)

    def at(self, step: int, strengths: tuple[float, ...]) -> list[tuple[Candidate, None]]:
        Scripted.looked.append(step)
        scores = (GOOD[step],)
        candidate = Candidate(
            step=step, strength=1.0, style=scores, subject=scores, nearness=(1.0,), nearest=(0,), drift=0.0, variety=1.0
        )
        return [(candidate, None)]


class PausesAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def between_steps(self, session: Session) -> Signal:
        return Signal.PAUSE if session.step == self.step else Signal.GO


def test_a_run_stops_itself_where_it_would_have_without_a_pause_and_says_so(
    settings: dict, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.run.Judge", Scripted)
    settings["train"] |= {"steps": 9, "checkpoint_every": 1, "stop_when": "settled", "stop_floor": 2}
    settings["judging"] = {"enabled": False}

    def run(name: str, pause: int | None) -> tuple[RunFolder, list[Event]]:
        said: list[Event] = []
        folder = create(parse(settings), tmp_path / name)
        Scripted.looked = []
        if pause is not None:
            assert train(folder, emit=said.append, control=PausesAt(pause), base=base).state == "paused"
        train(folder, emit=said.append, control=Uncontrolled(), base=base)
        return folder, said

    whole, said = run("whole", None)
    # Never before the floor, and never again once it has stopped: step 3 was the best, 4 and 5 were no better.
    assert Scripted.looked == [2, 3, 4, 5]
    finished = said[-1]
    assert isinstance(finished, Finished)
    assert finished.step == 5
    assert finished.stopped == "Stopped after step 5 of 9: style and subjects were no better than at step 3."
    assert [event.text for event in said if isinstance(event, Notice) and "Stopped" in event.text] == [finished.stopped]
    assert stopped(whole, whole.config()) == finished.stopped
    with safe_open(whole.adapter_file, "pt") as file:
        facts = dict(file.metadata())
    assert finished.stopped in facts["modelspec.description"]
    assert json.loads(facts["patina.config"])["stopped"] == finished.stopped

    resumed, said = run("resumed", 4)
    assert Scripted.looked == [2, 3, 4, 5]
    assert isinstance(said[-1], Finished)
    assert said[-1].stopped == finished.stopped
    one, other = read_style(whole.adapter_file).layers, read_style(resumed.adapter_file).layers
    assert all(torch.equal(one[where].up, layer.up) for where, layer in other.items())
