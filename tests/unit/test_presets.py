from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from trainer.bases.families import FAMILIES, SD1, Preset
from trainer.config import PresetName, RunConfig, parse
from trainer.presets import resolve

NAMES = get_args(PresetName)
ROWS = list(itertools.product(FAMILIES, NAMES))


def resolved(tree: dict[str, Any] | None = None, *, family: str = "sd1", images: int = 10) -> RunConfig:
    return resolve(parse(tree or {}), FAMILIES[family], resolution=512, images=images)


def test_every_family_of_bases_has_every_preset() -> None:
    assert all(set(family.presets) == set(NAMES) for family in FAMILIES.values())


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_a_preset_gives_its_reason_and_settings_that_are_allowed(family: str, name: PresetName) -> None:
    preset = FAMILIES[family].presets[name]
    assert len(preset.reason) > 20
    config = resolved({"train": {"preset": name}}, family=family)
    assert config.optim.learning_rate == preset.learning_rate
    assert config.adapter.rank == preset.rank
    assert config.adapter.alpha == preset.rank
    assert config.optim.batch_size == preset.batch_size
    assert config.train.steps == preset.steps(10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_longer_preset_shows_more_images(family: str) -> None:
    seen = [FAMILIES[family].presets[name].steps(20) * FAMILIES[family].presets[name].batch_size for name in NAMES]
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_steps_grow_with_the_images_between_two_limits() -> None:
    preset = Preset(1e-4, 8, 1, steps_per_image=10, least=50, most=200, reason="a test")
    assert [preset.steps(images) for images in (1, 5, 12, 20, 1000)] == [50, 50, 120, 200, 200]


@pytest.mark.parametrize(("family", "name"), ROWS)
@pytest.mark.parametrize("images", [1, 3, 1000])
def test_nothing_is_left_to_choose(family: str, name: PresetName, images: int) -> None:
    config = resolved({"train": {"preset": name}}, family=family, images=images)
    assert config.train.checkpoint_every is not None
    assert config.samples.every is not None
    assert config.samples.guidance == FAMILIES[family].guidance
    assert config.data.resolution == 512
    assert config.train.steps is not None
    assert config.optim.warmup_steps is not None
    assert config.optim.warmup_steps < config.train.steps


@pytest.mark.parametrize("steps", [1, 2, 19, 20])
def test_the_shortest_runs_have_no_warm_up_that_outlasts_them(steps: int) -> None:
    config = resolved({"train": {"steps": steps}})
    assert config.optim.warmup_steps == steps // 20
    assert config.samples.every == max(1, steps // 4)


def test_what_the_user_chose_stays() -> None:
    tree = {
        "adapter": {"rank": 3, "alpha": 1.0},
        "optim": {"learning_rate": 5e-5, "batch_size": 2, "warmup_steps": 0},
        "train": {"steps": 33, "checkpoint_every": 7},
        "samples": {"every": 0, "guidance": 0.0},
        "data": {"resolution": 256},
    }
    kept = resolved(tree).model_dump()
    assert all(kept[section][key] == value for section, values in tree.items() for key, value in values.items())


def test_the_tree_that_is_resolved_is_left_alone() -> None:
    config = parse({})
    resolve(config, SD1, resolution=512, images=4)
    assert config.adapter.rank is None
