"""Experiment trackers hear what a run says, and never stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from PIL import Image

from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.events import Event, Finished, Notice, Progress, Recommended, Sampled, Started, Validated
from trainer.training.run_folder import RunFolder
from trainer.training.tracking import check_installed, settings, tracked


class Notebook(GeneralTracker):
    """A tracker that writes into a list, as accelerate wants one made."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self, start_at: int, failing: bool = False) -> None:
        super().__init__()
        self.start_at, self.failing = start_at, failing
        self.settings: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.pictures: list[tuple[int, str, tuple[int, int]]] = []
        self.finished = False

    def start(self) -> None:
        """Nothing to open."""

    @property
    def tracker(self) -> Any:
        return self.rows

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if self.failing:
            raise ConnectionError("the service is away")
        assert step is not None
        self.rows.append((step, values))

    def log_images(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        for name, (picture,) in values.items():
            assert step is not None
            self.pictures.append((step, name, picture.size))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.write_config(
        RunConfig.model_validate({"name": "ink", "data": {"images": "/home/anna/x"}, "samples": {"prompts": ["a cat"]}})
    )
    run.samples.mkdir()
    Image.new("RGB", (8, 6)).save(run.samples / "000002-0.png")
    return run


def said(folder: RunFolder, events: list[Event], **how: Any) -> tuple[Notebook, list[Event]]:
    made: list[Notebook] = []
    heard: list[Event] = []

    def opener(run: RunFolder, step: int) -> Notebook:
        made.append(Notebook(step, **how))
        return made[-1]

    with tracked(folder, folder.config(), heard.append, opener) as emit:
        for event in events:
            emit(event)
    return made[0], heard


def progress(step: int, *losses: float) -> Progress:
    return Progress(step=step, steps=4, losses=losses, learning_rate=1e-4, samples_per_second=2.0, seconds_left=1.0)


EVENTS: list[Event] = [
    Started(step=0, steps=4),
    progress(2, 0.5, 0.4),
    Validated(step=2, loss=0.3, base_loss=0.6),
    Sampled(step=2, index=0, prompt="a cat", path="samples/000002-0.png"),
    progress(4, 0.3, 0.2),
    Recommended(at_step=2, strength=0.75, confidence=0.9, sentence="because"),
    Finished(step=4, adapter="a", sheet="s", verified=(), seconds=3.0),
]


def test_a_tracker_hears_losses_pictures_and_settings(folder: RunFolder) -> None:
    tracker, heard = said(folder, EVENTS)
    assert heard == EVENTS
    assert [(step, row["train/loss"]) for step, row in tracker.rows if "train/loss" in row] == [
        (1, 0.5),
        (2, 0.4),
        (3, 0.3),
        (4, 0.2),
    ]
    assert (2, {"validation/loss": 0.3, "validation/loss_of_the_base": 0.6}) in tracker.rows
    assert (4, {"picked/step": 2, "picked/strength": 0.75}) in tracker.rows
    assert tracker.pictures == [(2, "samples/0", (8, 6))]
    steps = [step for step, _ in tracker.rows]
    assert steps == sorted(steps), "some trackers drop what comes for an earlier step"
    assert tracker.settings["name"] == "ink"
    assert tracker.settings["optim.weight_decay"] == folder.config().optim.weight_decay
    assert tracker.settings["samples.prompts"] == "['a cat']"
    assert "anna" not in str(tracker.settings)
    assert tracker.finished


def test_a_run_that_goes_on_tells_from_where(folder: RunFolder) -> None:
    tracker, _ = said(folder, [Started(step=2, steps=4), progress(4, 0.3, 0.2)])
    assert tracker.start_at == 2
    assert [step for step, row in tracker.rows if "train/loss" in row] == [3, 4]


def test_a_tracker_that_fails_does_not_stop_the_training(folder: RunFolder) -> None:
    tracker, heard = said(folder, EVENTS, failing=True)
    notices = [event.text for event in heard if isinstance(event, Notice)]
    assert notices == ["The tracker failed and is left out from here on: the service is away"]
    assert [event for event in heard if not isinstance(event, Notice)] == EVENTS
    assert tracker.rows == []


def test_by_default_nothing_is_tracked(folder: RunFolder) -> None:
    config = folder.config()
    assert config.train.log_with == "off"
    check_installed(config)
    emit = print
    with tracked(folder, config, emit) as told:
        assert told is emit


def test_a_missing_package_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.tracking.find_spec", lambda name: None)
    config = RunConfig.model_validate({"train": {"log_with": "wandb"}})
    with pytest.raises(ConfigError, match=r"pip install wandb, or pip install 'patina\[trackers\]'"):
        check_installed(config)
    assert settings(config)["train.log_with"] == "wandb"


def test_tensorboards_own_files_hold_a_run_that_went_on(folder: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = folder.config()
    config.train.log_with = "tensorboard"
    folder.write_config(config)
    attempts: list[list[Event]] = [
        [Started(step=0, steps=4), progress(2, 0.5, 0.4), EVENTS[3], progress(3, 9.0)],
        [Started(step=2, steps=4), progress(4, 0.3, 0.2)],
    ]
    for events in attempts:
        heard: list[Event] = []
        with tracked(folder, config, heard.append) as emit:
            for event in events:
                emit(event)
        assert heard == events, "no notice of a failure"
    found = EventAccumulator(str(folder.path / "tracking")).Reload()
    losses = {point.step: round(point.value, 4) for point in found.Scalars("train/loss")}
    assert losses == {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2}
    assert len(found.Images("samples/0")) == 1
