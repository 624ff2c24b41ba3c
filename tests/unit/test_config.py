from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from trainer.bases.families import SD1, SDXL
from trainer.config import RunConfig, help_of, load, overlay, parse, read_toml, settings
from trainer.errors import ConfigError
from trainer.presets import resolve


def complaint(tree: dict[str, Any], called: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(tree, called)
    return str(caught.value)


@pytest.mark.parametrize("path", list(settings()))
def test_every_setting_explains_itself(path: str) -> None:
    text = help_of(path)
    assert len(text) > 10
    assert text.endswith(".")
    assert text == " ".join(text.split()), "no double blanks where a text was broken over lines"


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank is 0, but should be at least 1."),
        ({"adapter": {"rank": 513}}, "adapter.rank is 513, but should be at most 512."),
        ({"adapter": {"rank": "many"}}, "adapter.rank is 'many', but should be a whole number."),
        ({"adapter": {"rank": 3.5}}, "adapter.rank is 3.5, but should be a whole number."),
        ({"adapter": {"dropout": 1}}, "adapter.dropout is 1, but should be below 1."),
        ({"adapter": 5}, "adapter is 5, but should be a section with settings."),
        ({"optim": {"learning_rate": -1e-4}}, "optim.learning_rate is -0.0001, but should be above 0."),
        ({"optim": {"learning_rate": math.nan}}, "optim.learning_rate is nan, but should be a finite number."),
        ({"optim": {"learning_rate": "fast"}}, "optim.learning_rate is 'fast', but should be a number."),
        ({"data": {"resolution": 100}}, "data.resolution is 100, but should be a multiple of 8."),
        ({"data": {"flip": "maybe"}}, "data.flip is 'maybe', but should be true or false."),
        ({"name": ""}, "name is '', but should not be empty."),
        ({"name": "..."}, "name needs at least one letter or digit."),
        ({"trigger": "ink\x07style"}, "trigger holds characters that cannot be shown."),
        ({"trigger": "ink\x00style"}, "trigger holds a NUL character, which no path and no text needs."),
        ({"samples": {"prompts": "cat"}}, 'samples.prompts is \'cat\', but should be a list, such as ["one", "two"].'),
        ({"samples": {"prompts": [1]}}, "samples.prompts.0 is 1, but should be a text."),
        (
            {"train": {"device": "tpu"}},
            "train.device is 'tpu', but should be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:1'.",
        ),
        (
            {"train": {"steps": 5}, "optim": {"warmup_steps": 5}},
            "optim.warmup_steps (5) must be below train.steps (5).",
        ),
        (
            {"train": {"gpus": 2}, "optim": {"find_rate": True}},
            "train.gpus is 2, but optim.find_rate works on one card only: use one of the two.",
        ),
        (
            {"train": {"preset": "quik"}},
            "train.preset is 'quik', but should be 'quick', 'balanced' or 'thorough' (did you mean quick?).",
        ),
        (
            {"base": {"variant": "../fp16"}},
            "base.variant is '../fp16', but should be one word of letters, digits and underscores, such as fp16.",
        ),
        ({"base": {"source": "bad\0name"}}, "base.source holds a NUL character, which no path and no text needs."),
        ({"colour": "red"}, "There is no setting colour."),
        (
            {"optim": {"learnin_rate": 1}},
            "There is no setting optim.learnin_rate (did you mean optim.learning_rate?).",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(tree: dict[str, Any], said: str) -> None:
    assert complaint(tree) == said


def test_a_broken_expression_is_refused_before_anything_is_loaded() -> None:
    said = complaint({"adapter": {"targets": "attn2.("}})
    assert said.startswith("adapter.targets is 'attn2.(', but should be cross, qv, self,")
    assert "missing )" in said


def test_a_complaint_calls_a_setting_as_the_user_wrote_it() -> None:
    assert complaint({"adapter": {"rank": 0}}, {"adapter.rank": "--rank"}) == "--rank is 0, but should be at least 1."


def test_all_complaints_are_made_at_once_and_a_long_value_is_cut() -> None:
    said = complaint({"adapter": {"rank": 0}, "name": "x" * 90})
    assert "adapter.rank is 0" in said
    assert said.count("but should") == 2
    assert "x" * 60 not in said


def test_an_empty_tree_leaves_the_choice_to_the_presets() -> None:
    config = parse({})
    assert config.base.source == "bundled"
    assert config.adapter.rank is None
    assert config.train.steps is None


def test_names_and_triggers_become_one_line() -> None:
    config = parse({"name": " my \n style ", "trigger": "ink\tstyle"})
    assert (config.name, config.trigger) == ("my style", "ink style")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Ink & Wash", "Ink_Wash"),
        ("../../etc/passwd", "etc_passwd"),
        ("con", "con_style"),
        ("LPT1.x", "LPT1.x_style"),
        ("水墨", "水墨"),
        ("x" * 80, "x" * 60),
    ],
)
def test_a_name_becomes_a_file_name_that_every_system_accepts(name: str, stem: str) -> None:
    assert parse({"name": name}).file_stem == stem


def test_what_a_run_folder_keeps_reads_back_as_it_was(tmp_path: Path) -> None:
    tree = {
        "name": 'quotes " and \\ and 水墨',
        "trigger": "ink style",
        "adapter": {"rank": 3, "alpha": 1.5, "targets": r".*\.attn2\.to_[kv]"},
        "optim": {"learning_rate": 3e-5, "ema_decay": 0.99},
        "samples": {"prompts": ["a cat", 'a "dog"']},
    }
    config = resolve(parse(tree), SD1, resolution=512, images=12)
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml(), encoding="utf-8")
    assert load(file) == config


def test_resolving_a_resolved_config_changes_nothing() -> None:
    once = resolve(parse({}), SDXL, resolution=1024, images=20)
    assert resolve(once, SDXL, resolution=512, images=3) == once


def test_overlay_sets_leaves_and_passes_over_what_was_not_asked() -> None:
    tree = overlay({"adapter": {"rank": 4}}, {"adapter.alpha": 2.0, "train.seed": 7, "name": None})
    assert tree == {"adapter": {"rank": 4, "alpha": 2.0}, "train": {"seed": 7}}


def test_overlay_refuses_a_section_that_is_a_value() -> None:
    with pytest.raises(ConfigError, match="adapter should be a section"):
        overlay({"adapter": 3}, {"adapter.rank": 4})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[adapter\nrank = 3", "is not valid TOML: Expected ']'"),
        ("name = 'ä'".encode("latin-1"), "always UTF-8 text"),
        (b"[adapter]\nrnk = 3", "There is no setting adapter.rnk (did you mean adapter.rank?)."),
        (b"[train]\nseed = " + b"9" * 5000, "is not valid TOML"),
        (b"a = " + b"[" * 20_000 + b"]" * 20_000, "is nested too deeply"),
        (b"[" + b".".join([b"a"] * 5000) + b"]\nb = 1", "There is no setting a."),
    ],
)
def test_a_broken_file_is_named_once(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert said in str(caught.value)
    assert str(caught.value).count(str(file)) == 1


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_toml(tmp_path)


def test_settings_are_checked_whenever_they_are_set() -> None:
    config = RunConfig()
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        config.adapter.rank = 0


def test_a_step_of_several_passes_is_counted_as_such() -> None:
    config = parse({"optim": {"batch_size": 8, "gradient_accumulation": 2}, "memory": {"micro_batch": 2}})
    assert (config.images_per_pass, config.passes_per_step) == (2, 8)
    assert complaint({"optim": {"batch_size": 8}, "memory": {"micro_batch": 3}}) == (
        "memory.micro_batch (3) must divide optim.batch_size (8)."
    )
