"""Whoever waits hears every few seconds that the work goes on, however long a single call takes."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from waiting import until

from trainer.bases.base import Base
from trainer.cli.progress import Terminal
from trainer.config import parse
from trainer.events import Event, Phase, Progress
from trainer.signs import EVERY, SignsOfLife
from trainer.training.pausing import Uncontrolled
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder


def heard_after(*said: Event, count: int, every: float) -> list[Event]:
    """The first ``count`` events that come by themselves after those that were said."""
    heard: list[Event] = []
    with SignsOfLife(heard.append, every=every) as told:
        for event in said:
            told(event)
        until(lambda: len(heard) >= len(said) + count, "a sign", every=0.001)
    return heard[len(said) :]


def is_watching() -> bool:
    return any(thread.name == "signs of life" for thread in threading.enumerate())


def test_it_is_often_enough() -> None:
    assert EVERY * 1.25 <= 5.0


def test_a_long_call_is_said_again_with_how_long_it_takes() -> None:
    heard = heard_after(Phase(name="loading", detail="a base"), count=2, every=0.05)
    assert {(event.name, event.detail) for event in heard if isinstance(event, Phase)} == {("loading", "a base")}
    seconds = [event.seconds for event in heard if isinstance(event, Phase)]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0.05


def test_a_long_step_is_told_of_from_the_last_one_on() -> None:
    step = Progress(step=3, steps=8, losses=(0.1,), learning_rate=1e-4, samples_per_second=1, seconds_left=5)
    heard = heard_after(step, count=2, every=0.05)
    assert {(e.name, e.done, e.total) for e in heard if isinstance(e, Phase)} == {("training", 3, 8)}


def test_nothing_is_repeated_before_anything_began_or_after_the_end() -> None:
    heard: list[Event] = []
    with SignsOfLife(heard.append, every=0.02) as told:
        time.sleep(0.1)
        assert heard == []
        told(Phase(name="loading"))
        assert is_watching()
    until(lambda: not is_watching(), "the end of the watch")


def test_no_two_events_are_passed_on_at_once() -> None:
    inside = threading.Lock()
    clashes: list[Event] = []

    def show(event: Event) -> None:
        if not inside.acquire(blocking=False):
            clashes.append(event)
            return
        time.sleep(0.002)
        inside.release()

    with SignsOfLife(show, every=0.002) as told:
        for done in range(60):
            told(Phase(name="caching", done=done, total=60))
    assert not clashes


def test_a_pipe_gets_a_line_for_each_sign_but_few_within_one_step(tmp_path: Path) -> None:
    out = io.StringIO()
    show = Terminal(RunFolder(tmp_path), Console(file=out, width=80))
    show(Phase(name="loading"))
    for seconds in (4.0, 8.0):
        show(Phase(name="loading", seconds=seconds))
    for seconds in range(5, 130, 5):
        show(Phase(name="training", done=3, total=8, seconds=float(seconds)))
    assert out.getvalue().splitlines() == [
        "Loading the base ...",
        "Loading the base ... 4 s so far",
        "Loading the base ... 8 s so far",
        "Training ... 1 min so far",
        "Training ... 2 min so far",
    ]


@pytest.mark.slow
def test_on_a_slow_base_no_phase_of_a_run_is_silent(
    base: Base, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    for name in ("encode_images", "encode_texts", "predict", "decode"):
        quick = getattr(type(base), name)

        def slow(*rest: Any, quick: Any = quick, name: str = name, **more: Any) -> Any:
            """As slow as it takes to hear a sign: a silent phase would never end."""
            before = len(heard)
            until(lambda: len(heard) > before, f"a sign during {name}")
            return quick(*rest, **more)

        monkeypatch.setattr(type(base), name, slow)
    settings = {
        "data": {"images": str(image_folder)},
        "adapter": {"rank": 2},
        "optim": {"batch_size": 1},
        "train": {"steps": 2, "threads": 1},
        "samples": {"prompts": ["cat"], "steps": 1, "every": 0},
        "judging": {"enabled": False},
    }
    with SignsOfLife(heard.append, every=0.02) as told:
        train(create(parse(settings), tmp_path / "run"), emit=told, control=Uncontrolled(), base=base)
    again = {event.name for event in heard if isinstance(event, Phase) and event.seconds}
    assert {"caching", "measuring", "training", "sampling", "verifying"} <= again
