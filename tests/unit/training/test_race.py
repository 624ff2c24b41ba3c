"""A race drops the worse half at each heat, trains the winner on, and goes on where it was stopped, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from trainer.bases.base import Base
from trainer.cli import app
from trainer.cli.race import show
from trainer.config import load, parse
from trainer.errors import ConfigError
from trainer.events import Event, Notice, Phase, Planned
from trainer.study import finding
from trainer.study import race as racing
from trainer.study.heats import cost_of, heats_of
from trainer.study.race import Race, entrants_of, going_on, race, read
from trainer.styles.read import read_style
from trainer.training.pausing import Uncontrolled
from trainer.training.run import create


def test_heats_halve_the_field_and_double_the_steps() -> None:
    assert heats_of(8, 400) == [(8, 50), (4, 100), (2, 200), (1, 400)]
    assert cost_of(heats_of(8, 400)) == 1000
    assert heats_of(2, 100) == [(2, 50), (1, 100)]
    assert heats_of(6, 160) == [(6, 20), (3, 40), (2, 80), (1, 160)]
    # Too few steps for as many heats: nobody is judged before the first step.
    assert heats_of(8, 2) == [(8, 1), (1, 2)]
    assert all(end == steps for steps in (1, 2, 7, 300) for _, end in heats_of(5, steps)[-1:])


def test_every_combination_races_and_rates_when_nothing_is_named() -> None:
    usual = entrants_of(4e-4)
    assert [arm.changes["optim.learning_rate"] for arm in usual] == [5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3]
    arms = entrants_of(4e-4, rates=(1e-3, 1e-4), ranks=(4, 8), methods=("lora",))
    assert [arm.name for arm in arms] == [
        "rate 0.001, rank 4, lora",
        "rate 0.001, rank 8, lora",
        "rate 0.0001, rank 4, lora",
        "rate 0.0001, rank 8, lora",
    ]
    with pytest.raises(ConfigError, match="two settings at least"):
        entrants_of(4e-4, ranks=(4,))


SETTINGS = {
    "name": "ink",
    "trigger": "ink style",
    "adapter": {"targets": r"mid_block\..*\.attn2\.to_q", "rank": 2},
    "optim": {"batch_size": 1, "warmup_steps": 0},
    "train": {"steps": 8, "threads": 1},
}
RATES = (1e-6, 1e-2, 3e-2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "DRAWS", 1)
    monkeypatch.setattr(racing, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("trainer.study.bench.TELL_SECONDS", 0.0)


class Interrupted(Exception):
    pass


@pytest.mark.usefixtures("quick")
def test_the_winner_is_trained_on_and_a_race_that_was_stopped_comes_out_the_same(
    base: Base, image_folder: Path, tmp_path: Path
) -> None:
    config = parse({**SETTINGS, "data": {"images": str(image_folder)}})
    said: list[Event] = []
    whole = race(config, tmp_path / "whole", rates=RATES, together=2, emit=said.append, base=base)
    assert [(heat.steps, len(heat.losses), len(heat.kept)) for heat in whole.heats] == [(2, 3, 2), (4, 2, 1), (8, 1, 1)]
    assert (
        whole.winner
        == whole.heats[-1].kept[0]
        == min(whole.heats[1].losses, key=lambda n: whole.heats[1].losses[n] or 9)
    )
    plan = next(event.text for event in said if isinstance(event, Notice))
    assert "3 settings race over 8 steps; after step 2, 4 the better half goes on" in plan
    assert f"{whole.cost} steps in all" in plan
    assert (whole.cost, whole.sweep) == (3 * 2 + 2 * 2 + 4, 24)
    best = load(tmp_path / "whole" / "winner.toml")
    changes = {entrant.name: entrant.changes for entrant in whole.entrants}
    assert best.optim.learning_rate == changes[whole.winner]["optim.learning_rate"]
    assert best.data.validation_share == 0
    assert not (tmp_path / "whole" / racing.RUNNING).exists()

    # Stopped in the second heat, in the middle of the steps that two share.
    shutil.copytree(tmp_path / "whole" / "cache", tmp_path / "parts" / "cache")
    left = 7

    def stop(pace: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted

    with pytest.raises(Interrupted):
        race(config, tmp_path / "parts", rates=RATES, together=2, told=stop, base=base)
    halfway = read(tmp_path / "parts")
    assert halfway is not None
    assert len(halfway.heats) == 1
    parts = race(config, tmp_path / "parts", rates=RATES, base=base)
    assert [(heat.steps, heat.losses, heat.kept) for heat in parts.heats] == [
        (heat.steps, heat.losses, heat.kept) for heat in whole.heats
    ]
    one, other = (read_style(tmp_path / name / racing.WINNER).layers for name in ("whole", "parts"))
    assert all(torch.equal(one[where].up, layer.up) for where, layer in other.items())


def test_a_folder_with_another_race_is_refused() -> None:
    def planned(**changes: object) -> Race:
        known = {
            "version": "1", "style": "ink", "base": "b", "base_sha256": "a", "dataset": "d", "settings": {},
            "training": 4, "held_out": 2, "draws": 1, "seed": 1, "steps": 8, "together": 0, "cost": 1, "sweep": 2,
            "entrants": [{"name": "one", "changes": {"adapter.rank": 2}}],
        }  # fmt: skip
        return Race.model_validate(known | changes)

    begun = planned(together=2, base_loss=0.5)
    assert going_on(planned(), None) == planned()
    assert going_on(planned(), begun) == begun
    with pytest.raises(ConfigError, match="entrants was something else"):
        going_on(planned(entrants=[]), begun)
    with pytest.raises(ConfigError, match="begun with 2 settings"):
        going_on(planned(together=3), begun)


@pytest.mark.usefixtures("quick")
def test_who_comes_apart_or_cannot_be_trained_drops_out_and_the_others_go_on(
    base: Base, image_folder: Path, tmp_path: Path
) -> None:
    config = parse({**SETTINGS, "data": {"images": str(image_folder)}})
    said: list[Event] = []
    found = race(
        config, tmp_path / "race", targets=(r"mid_block\..*\.attn2\.to_q", "no_such_layer"), emit=said.append, base=base
    )
    assert found.winner == r"mid_block\..*\.attn2\.to_q"
    assert found.heats[0].losses["no_such_layer"] is None
    assert any("cannot race" in event.text for event in said if isinstance(event, Notice))
    console = Console(record=True, width=160)
    show(found, console)
    text = console.export_text()
    assert "winner" in text
    assert f"{found.cost} steps in all" in text
    assert read(tmp_path / "race") == found
    assert Race.model_validate_json(found.to_json()) == found


@pytest.mark.usefixtures("quick")
def test_a_run_that_asks_for_it_finds_its_rate_once_and_then_trains_with_it(
    base: Base, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (racing, finding):
        monkeypatch.setattr(module, "FACTORS", (1 / 100, 10))
    config = parse({**SETTINGS, "data": {"images": str(image_folder)}, "samples": {"every": 0, "steps": 1}})
    config.optim.find_rate = True
    config.judging.enabled = False
    folder = create(config, tmp_path / "run")
    said: list[Event] = []

    def leaves(event: Event) -> None:
        if isinstance(event, Phase) and event.name == "racing" and event.done > 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        finding.train(folder, emit=leaves, control=Uncontrolled(), base=base)
    assert finding.is_sought(folder.config())
    outcome = finding.train(folder, emit=said.append, control=Uncontrolled(), base=base)
    assert outcome.state == "finished"
    found = read(folder.race)
    assert found is not None
    rate = {each.name: each.changes for each in found.entrants}[found.winner]["optim.learning_rate"]
    assert folder.config().optim.learning_rate == rate
    planned = next(event for event in said if isinstance(event, Planned))
    assert planned.learning_rate == rate
    # The winner's own images were fewer; the run learns from all.
    assert (planned.images, found.training) == (6, 4)
    texts = [event.text for event in said if isinstance(event, Notice)]
    assert any("2 settings race over 8 steps" in text for text in texts)
    assert any(f"Learning rate {rate:g}" in text for text in texts)
    assert not finding.is_sought(folder.config())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rates", "fast"], "--rates is 'fast', but should be numbers above 0 such as 1e-4,3e-4,1e-3."),
        (["--ranks", "4,0"], "--ranks is '4,0'"),
        (["--steps", "0"], "--steps is '0'"),
    ],
)
def test_what_cannot_race_is_said_before_anything_is_loaded(
    image_folder: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    answer = CliRunner().invoke(app, ["race", str(image_folder), "--out", str(tmp_path / "race"), *arguments])
    assert answer.exit_code == 2
    assert said in " ".join(answer.output.split())
    assert not (tmp_path / "race").exists()
