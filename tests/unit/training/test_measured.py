"""What was measured of a run is not measured again for one of the same shape, and for no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.bases.base import Base
from trainer.config import RunConfig, parse
from trainer.events import Event, Planned
from trainer.styles.metadata import sshs_model_hash
from trainer.training import fitting
from trainer.training.fitting import measure
from trainer.training.loop import Trainer
from trainer.training.measured import MOST, Known, PastFits, measured_file, shape_of
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder
from trainer.training.samples import affordable, samples_drawn

KNOWN = Known({"micro_batch": 1}, "off", 2.0, 30.0, 2**30)


def test_what_is_noted_is_known_later_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    past = PastFits(tmp_path / "measured.json")
    assert past.get("a shape") is None
    for number in range(MOST + 1):
        past.note(f"shape {number}", KNOWN)
    assert PastFits(tmp_path / "measured.json").get(f"shape {MOST}") == KNOWN
    assert past.get("shape 0") is None


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"a": {"at": 1.0, "known": {"gone": 1}}}'])
def test_a_damaged_file_only_costs_measuring(tmp_path: Path, content: str) -> None:
    file = tmp_path / "measured.json"
    file.write_text(content, encoding="utf-8")
    assert PastFits(file).get("a") is None
    PastFits(file).note("a", KNOWN)
    assert PastFits(file).get("a") == KNOWN


def test_a_shape_is_what_time_and_memory_depend_on(base: Base, materials: Prepared, config: RunConfig) -> None:
    def shape(**changes: Any) -> str:
        changed = config.model_copy(deep=True)
        for path, value in changes.items():
            section, _, name = path.partition("__")
            setattr(getattr(changed, section), name, value)
        return shape_of(changed, base, materials.training, materials.features)

    same = shape()
    assert shape(train__seed=99, optim__learning_rate=0.5, data__images="elsewhere", samples__prompts=["x"]) == same
    others = [shape(optim__batch_size=7), shape(adapter__rank=5), shape(memory__limit_gib=3.0), shape(train__threads=3)]
    assert len({same, *others}) == 5


def test_measuring_takes_two_passes_where_they_are_slow(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    whole = trainer.accumulate

    def counted(*rest: Any, **more: Any) -> Any:
        passes.append(1)
        return whole(*rest, **more)

    monkeypatch.setattr(trainer, "accumulate", counted)
    monkeypatch.setattr(fitting, "SLOW_PASS", 0.0)
    measure(trainer)
    assert len(passes) == 2


def test_on_a_slow_machine_a_picture_is_reckoned_and_a_second_run_measures_nothing(
    settings: dict[str, Any], base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["judging"] = {"enabled": False}
    monkeypatch.setattr(fitting, "SLOW_PASS", 0.0)
    measured: list[str] = []
    for name in ("measure", "_picture"):
        whole = getattr(fitting, name)

        def seen(*rest: Any, name: str = name, whole: Any = whole, **more: Any) -> Any:
            measured.append(name)
            return whole(*rest, **more)

        monkeypatch.setattr(fitting, name, seen)

    def run(path: Path) -> tuple[RunFolder, Planned]:
        said: list[Event] = []
        folder = create(parse(settings), path)
        train(folder, emit=said.append, control=Uncontrolled(), base=base)
        return folder, next(event for event in said if isinstance(event, Planned))

    first, plan = run(tmp_path / "first")
    assert measured == ["measure"]
    assert measured_file().is_file()
    second, again = run(tmp_path / "second")
    assert measured == ["measure"]
    known = next(iter(json.loads(measured_file().read_bytes()).values()))["known"]
    drawn = samples_drawn(second.config(), 4) * known["seconds_per_picture"]
    assert plan.seconds > 4 * known["seconds_per_step"] + drawn
    assert again.seconds > 4 * known["seconds_per_step"] + drawn
    assert 0 < known["seconds_after"] < 300
    assert again.memory_bytes == plan.memory_bytes
    assert second.config().memory == first.config().memory
    assert sshs_model_hash(second.adapter_file) == sshs_model_hash(first.adapter_file)


@pytest.mark.parametrize(
    ("seconds_per_picture", "drawn"), [(1.0, (None, None)), (60.0, (2, 3)), (200.0, (1, 2)), (9_000.0, (1, 2))]
)
def test_pictures_that_nobody_asked_for_shrink_to_what_the_machine_can_do(
    config: RunConfig, seconds_per_picture: float, drawn: tuple[int | None, int | None]
) -> None:
    config.samples.prompts = []
    config.samples.every = 2
    fewer, said = affordable(config, seconds_per_picture, seconds=2_000)
    assert (fewer.samples.count, fewer.samples.sheet) == drawn
    assert bool(said) == (drawn != (None, None))
    config.samples.prompts = ["a cat"]
    assert affordable(config, 9_000, seconds=1)[1] == "", "what was asked for is drawn"
