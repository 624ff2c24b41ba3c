"""Studies: arms of one number of trained values, trained in shared passes, never twice, and compared honestly."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageColor
from rich.console import Console
from typer.testing import CliRunner

from trainer.adapters.bank import Bank
from trainer.adapters.methods import METHODS
from trainer.bases.base import Base
from trainer.cli import app
from trainer.cli.study import show
from trainer.config import RunConfig, parse
from trainer.errors import ConfigError
from trainer.study import run as running
from trainer.study.arms import _MAKERS, KINDS, Kind, arms_of
from trainer.study.bench import SLOWER, USUAL_SHARE, Pace, slug, steps_within
from trainer.study.plot import OWN, plot
from trainer.study.result import ArmFacts, Measured, Study, read, rows
from trainer.study.run import run
from trainer.study.spread import difference, spread
from trainer.styles.read import read_style
from trainer.training.loop import Trainer
from trainer.training.prepare import prepare, read_dataset
from trainer.training.run_folder import RunFolder
from trainer.training.validation import LEVELS, held_out

Fresh = Callable[[str], Path]


@pytest.fixture
def config(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Two steps of one image on a few layers."""
    monkeypatch.setattr(running, "DRAWS", 1)
    return parse(
        {
            "name": "ink",
            "trigger": "ink style",
            "data": {"images": str(image_folder)},
            "adapter": {"targets": r"mid_block\..*\.attn2\.to_q"},
            "optim": {"batch_size": 1, "warmup_steps": 0},
            "train": {"steps": 2, "threads": 1},
        }
    )


@pytest.fixture(scope="session")
def encoded(base: Base, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, encoded once for all studies of this module."""
    place = RunFolder(tmp_path_factory.mktemp("encoded"))
    config = parse({"trigger": "ink style", "data": {"images": str(image_folder)}})
    prepare(read_dataset(place, config, base), config, base, place.cache)
    return place.cache


@pytest.fixture
def folder(encoded: Path, tmp_path: Path) -> Fresh:
    """A study's folder of that name, with the images encoded already."""

    def made(name: str) -> Path:
        shutil.copytree(encoded, tmp_path / name / "cache")
        return tmp_path / name

    return made


def losses(study: Study) -> dict[tuple[str, int], float | None]:
    return {(one.arm, one.seed): one.loss for one in study.measured}


# ---- what is compared


def test_every_placement_spends_about_the_same_number_of_values(base: Base) -> None:
    config = parse({})
    arms = arms_of("placement", base, config)
    values = {}
    bank = Bank(base.roots)
    for arm in arms:
        settings = {name.removeprefix("adapter."): value for name, value in arm.changes.items()}
        assert settings["alpha"] == 8
        values[arm.name] = bank.add(arm.name, settings["targets"], rank=settings["rank"], seed=1).size
    bank.detach()
    assert {"Wq", "Wk", "Wv", "Wo", "Wq + Wv", "all four", "all four, attn2", "all four, mid"} <= values.keys()
    budget = values["all four"]
    assert all(abs(size / budget - 1) < 0.12 for size in values.values()), values


def test_every_block_of_attention_is_compared_alone_at_the_values_of_all(base: Base) -> None:
    from tiny_families import build

    from trainer.adapters.targets import select

    for model in (base.denoiser, build("sd1").unet, build("sdxl").unet):
        arms = {arm.name: arm.changes for arm in _MAKERS["blocks"](model, parse({}), 8, ())}
        everything = select(model, str(arms.pop("all")["adapter.targets"]))
        chosen = {name: select(model, str(changes["adapter.targets"])) for name, changes in arms.items()}
        assert all(
            path.startswith(f"{name.replace(' attn ', '.attentions.')}.")
            for name, paths in chosen.items()
            for path in paths
        )
        # As wide as the table's first column.
        assert all(len(name) <= 22 for name in chosen)
        assert sorted(path for paths in chosen.values() for path in paths) == sorted(everything)
        assert all(changes["adapter.alpha"] == 8 for changes in arms.values())
    # Of SDXL two are known by name.
    assert chosen["up_blocks.0 attn 1"] == select(model, "style-blocks")
    bank, values = Bank(base.roots), {}
    for arm in arms_of("blocks", base, parse({})):
        settings = {name.removeprefix("adapter."): value for name, value in arm.changes.items()}
        values[arm.name] = bank.add(arm.name, settings["targets"], rank=settings["rank"], seed=1).size
    bank.detach()
    # Narrow blocks have less room than the budget wants.
    assert all(size < 1.12 * values["all"] for size in values.values()), values
    assert sum(abs(size / values["all"] - 1) < 0.12 for size in values.values()) > len(values) / 2


def test_all_methods_are_compared_and_lora_from_each_start(base: Base) -> None:
    names = [arm.name for arm in arms_of("methods", base, parse({}))]
    assert set(METHODS) <= set(names)
    assert "lora, pissa start" in names


def test_ranks_are_compared_at_one_alpha(base: Base) -> None:
    arms = arms_of("rank", base, parse({}), (4, 1))
    assert [arm.changes for arm in arms] == [
        {"adapter.rank": 1, "adapter.alpha": 8.0},
        {"adapter.rank": 4, "adapter.alpha": 8.0},
    ]


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        ("placement", "targets", "qv"),
        ("blocks", "targets", "qv"),
        ("rank", "rank", 4),
        ("methods", "method", "dora"),
    ],
)
def test_what_a_study_compares_cannot_be_set(base: Base, kind: str, setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"adapter.{setting} is .*, but that is what a study of {kind} compares"):
        arms_of(kind, base, parse({"adapter": {setting: value}}))  # type: ignore[arg-type]


# ---- what seeds allow to say


def test_an_interval_is_students() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation) == (2.0, 1.0)
    assert found.interval == pytest.approx(4.303 / 3**0.5)
    assert found.is_noise
    assert not spread([1.0, 1.01, 0.99]).is_noise
    assert spread([5.0]).is_noise


def test_arms_are_compared_seed_by_seed() -> None:
    """What a seed does to both arms cancels out."""
    found = difference({1: 10.0, 2: 20.0, 3: 30.1}, {1: 9.0, 2: 19.0, 3: 29.0, 4: 0.0})
    assert found is not None
    assert found.count == 3
    assert found.mean == pytest.approx(1.03, abs=0.01)
    assert not found.is_noise
    assert difference({1: 1.0}, {2: 1.0}) is None


def made_up(**losses: dict[int, float]) -> Study:
    return Study(
        kind="methods",
        version="0",
        style="ink",
        base="a base",
        base_sha256="",
        dataset="",
        settings={"train": {"steps": 2}, "optim": {"learning_rate": 1e-3}},
        training=4,
        held_out=2,
        draws=1,
        seeds=(1, 2, 3),
        arms=tuple(ArmFacts(name=name, changes={}) for name in losses),
        base_loss=2.0,
        measured=tuple(
            Measured(arm=name, seed=seed, values=100 - number, layers=1, rank=1, loss=loss)
            for number, (name, found) in enumerate(losses.items())
            for seed, loss in found.items()
        ),
    )


def test_a_table_says_who_is_best_and_who_cannot_be_told_from_it() -> None:
    study = made_up(
        first={1: 1.0, 2: 1.1, 3: 1.2}, near={1: 1.1, 2: 1.0, 3: 1.21}, far={1: 1.5, 2: 1.6, 3: 1.7}, lone={1: 0.1}
    )
    found = {row.arm: row for row in rows(study)}
    assert list(found) == ["lone", "far", "near", "first"], "by trained values"
    assert {name: row.standing for name, row in found.items()} == {
        "first": "best",
        "near": "within noise",
        "far": "behind",
        "lone": "one seed",
    }
    assert found["first"].gain is not None
    assert found["first"].gain.mean == pytest.approx(0.45)


def test_in_the_plot_better_is_further_to_the_right() -> None:
    table = rows(made_up(good={1: 1.0, 2: 1.1, 3: 1.05}, poor={1: 1.8, 2: 1.7, 3: 1.75}))
    picture = plot(table, title="methods", note="three seeds")
    own = ImageColor.getrgb(OWN)
    middles = []
    for y in range(picture.height):
        found = [x for x in range(picture.width) if picture.getpixel((x, y)) == own]
        if len(found) > 5:
            middles.append((y, sum(found) / len(found)))
    first, last = middles[0], middles[-1]
    assert first[0] < last[0]
    assert first[1] < last[1], "poor has fewer trained values, so it stands above"


# ---- the study itself


@pytest.mark.parametrize("kind", KINDS)
def test_arms_of_different_names_never_share_a_file(base: Base, config: RunConfig, kind: Kind) -> None:
    if kind in ("placement", "blocks"):
        config = config.model_copy(update={"adapter": config.adapter.model_copy(update={"targets": None})})
    names = [arm.name for arm in arms_of(kind, base, config)]
    assert len({slug(name) for name in names}) == len(names) > 1
    assert slug("lora+") != slug("lora")
    assert slug("targets = a|b") != slug("targets = a.b")


def test_a_study_is_done_once_and_goes_on_where_it_was_stopped(
    base: Base, config: RunConfig, folder: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.study.bench.TELL_SECONDS", 0.0)
    whole = run("rank", config, folder("whole"), seeds=2, ranks=(1, 2), together=1, base=base)
    assert len(whole.measured) == 4
    assert whole.base_loss is not None
    assert all(loss is not None and loss != whole.base_loss for loss in losses(whole).values())

    def stop(pace: Pace) -> None:
        if pace.done == 3:
            raise KeyboardInterrupt

    place = folder("stopped")
    with pytest.raises(KeyboardInterrupt):
        run("rank", config, place, seeds=2, ranks=(1, 2), together=1, base=base, told=stop)
    before = read(place)
    assert before is not None
    assert len(before.measured) == 1
    paces: list[Pace] = []
    after = run("rank", config, place, seeds=2, ranks=(1, 2), together=1, base=base, told=paces.append)
    assert paces[-1].total == 6, "steps of the three that were left"
    assert losses(after) == losses(whole)
    assert not (place / running.IN_TRAINING).exists()
    one = after.find("r = 2", 43)
    assert one is not None
    assert len(one.by_level) == LEVELS
    style = read_style(place / one.file)
    assert {layer.rank for layer in style.layers.values()} == {2}
    assert style.metadata["ss_seed"] == "43"
    monkeypatch.setattr(running, "train_together", None)
    assert run("rank", config, place, seeds=2, ranks=(1, 2), base=base) == after


def test_arms_that_share_passes_end_as_those_that_do_not(base: Base, config: RunConfig, folder: Fresh) -> None:
    # Adam makes a whole step of a gradient that is mere rounding, which differs with the batch's shape.
    config.optim.epsilon = 1e-3
    alone = run("rank", config, folder("alone"), seeds=1, ranks=(1, 2), together=1, base=base)
    shared = run("rank", config, folder("shared"), seeds=1, ranks=(1, 2), base=base)
    assert [one.alongside for one in shared.measured] == [2, 2]
    for key, loss in losses(alone).items():
        assert losses(shared)[key] == pytest.approx(loss, rel=1e-5)


def test_a_study_that_would_take_too_long_trains_fewer_steps_and_keeps_to_them(
    base: Base, config: RunConfig, folder: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config.train.steps or 0
    pace = {"step": 10.0}
    monkeypatch.setattr(running, "room_for", lambda trainer, config: (2, pace["step"]))
    seen = running.DRAWS * LEVELS * len(held_out(6, USUAL_SHARE, config.train.seed))
    measuring = seen * 10.0 / (3 * (config.optim.batch_size or 1))
    within = 2 * (measuring + SLOWER * 10.0 * (asked - 1))
    said: list[Any] = []
    place = folder("quick")
    found = run("rank", config, place, seeds=1, ranks=(1, 2), within=within, base=base, emit=said.append)
    assert found.settings["train"]["steps"] == asked - 1
    assert any(f"each is trained {asked - 1} steps" in event.text for event in said if event.type == "notice")
    pace["step"] = 1e-3
    again = run("rank", config, place, seeds=1, ranks=(1, 2, 4), within=within, base=base)
    assert again.settings["train"]["steps"] == asked - 1
    assert len(again.measured) == 3
    assert steps_within(600.0, 60, arms=14, step=0.2, measuring=3.0) == 60
    assert steps_within(600.0, 60, arms=14, step=2.0, measuring=3.0) == 13
    assert steps_within(1.0, 60, arms=14, step=2.0, measuring=3.0) == 1


def test_a_saved_minute_is_not_done_again(
    base: Base, config: RunConfig, folder: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.study.bench.TELL_SECONDS", 0.0)
    whole = run("rank", config, folder("whole"), seeds=1, ranks=(1, 2), together=2, base=base)
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)

    def stop(pace: Pace) -> None:
        if pace.done == 3:
            raise KeyboardInterrupt

    place = folder("cut")
    with pytest.raises(KeyboardInterrupt):
        run("rank", config, place, seeds=1, ranks=(1, 2), together=2, base=base, told=stop)
    saved = sorted(path.name for path in (place / running.IN_TRAINING).glob("*/*"))
    assert saved == ["step-000001", "step-000001"]
    paces: list[Pace] = []
    after = run("rank", config, place, seeds=1, ranks=(1, 2), together=2, base=base, told=paces.append)
    assert paces[0].done == 3, "the first step of both was there already"
    assert losses(after) == losses(whole)


def test_another_study_does_not_go_on_in_the_same_folder(base: Base, config: RunConfig, folder: Fresh) -> None:
    place = folder("study")
    run("rank", config, place, seeds=1, ranks=(1,), base=base)
    longer = config.model_copy(deep=True)
    longer.train.steps = 3
    with pytest.raises(ConfigError, match=r"train.steps was 2 and is 3 now. Choose another folder with --out"):
        run("rank", longer, place, seeds=1, ranks=(1,), base=base)
    fewer = config.model_copy(deep=True)
    fewer.data.images = str(shutil.copytree(config.data.images, place / "other"))
    (place / "other" / "shape-0.png").unlink()
    with pytest.raises(ConfigError, match=r"other settings: images was '\w+' and is '\w+' now"):
        run("rank", fewer, place, seeds=1, ranks=(1,), base=base)
    more = run("rank", config, place, seeds=1, ranks=(2,), base=base)
    assert [one.arm for one in more.measured] == ["r = 1", "r = 2"]


def test_one_that_comes_apart_or_does_not_fit_is_noted_and_the_others_go_on(
    base: Base, config: RunConfig, folder: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer.update

    def spoilt(self: Trainer, rate: float) -> None:
        update(self, rate)
        if self.style == "r = 2":
            with torch.no_grad():
                self.parameters[0].fill_(float("inf"))

    monkeypatch.setattr(Trainer, "update", spoilt)
    said: list[str] = []
    place = folder("study")
    found = run(
        "rank",
        config,
        place,
        seeds=1,
        ranks=(1, 2, 500),
        together=3,
        base=base,
        emit=lambda event: said.append(getattr(event, "text", "")),
    )
    table = {row.arm: row for row in rows(found)}
    assert table["r = 1"].standing == "best"
    assert table["r = 2"].note == "came apart: its loss was no longer a number"
    assert "has room for 192 at most" in table["r = 500"].note
    assert "r = 2, seed 42, came apart: its loss was no longer a number." in said
    assert json.loads((place / "study.json").read_text("utf-8"))["measured"][0]["loss"] is None


def test_scores_are_those_of_judging(base: Base, config: RunConfig, folder: Fresh) -> None:
    config.samples.prompts = ["cat face", "red heart", "bus"]
    found = run("rank", config, folder("study"), seeds=1, ranks=(1,), scores=True, base=base)
    assert found.measured[0].scores.keys() == {"style", "subject", "copying", "recall", "drift", "variety"}


# ---- in the terminal


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["speed", "IMAGES"], "'speed' is no study: write one of placement, blocks, rank, methods."),
        (["methods", "IMAGES", "--ranks", "1,2"], "--ranks belongs to a study of ranks"),
        (["rank", "IMAGES", "--ranks", "1;2"], "--ranks is '1;2', but should be whole numbers"),
        (["rank", "IMAGES", "--steps", "0"], "--steps is '0'"),
        (["rank", "EMPTY"], "There are no images in"),
    ],
)
def test_what_cannot_be_studied_is_said_before_anything_is_loaded(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"IMAGES": str(image_folder), "EMPTY": str(tmp_path / "empty")}
    told = CliRunner().invoke(app, ["study", *(places.get(text, text) for text in arguments)])
    assert told.exit_code == 2
    assert said in told.output
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_table_says_what_the_seeds_allow_to_say() -> None:
    page = io.StringIO()
    show(made_up(first={1: 1.0, 2: 1.1}, near={1: 1.1, 2: 1.0}), Console(file=page, width=120))
    text = page.getvalue()
    assert "first" in text
    assert "first is best, but these seeds cannot tell it from near." in " ".join(text.split())
    page = io.StringIO()
    show(made_up(first={1: 1.0}).model_copy(update={"seeds": (1,)}), Console(file=page, width=120))
    assert "One seed shows no spread: what is best here may be luck." in " ".join(page.getvalue().split())
