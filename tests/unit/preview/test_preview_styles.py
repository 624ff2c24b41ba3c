"""With which base a style is drawn: as it was trained, unless something else is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.cli.sample import _base_for
from trainer.config import BaseConfig
from trainer.errors import AdapterFileError
from trainer.preview.styles import base_of, load_style
from trainer.styles.write import write_style


@pytest.fixture
def styles(base: Base, bank: Bank, tmp_path: Path) -> dict[str, Path]:
    """Files of one style that say different things of themselves."""
    own = {"source": "animagic.safetensors", "clip_skip": 1, "prediction": "v_prediction", "quantize": "nf4"}
    said = {
        "ours": {"patina.config": json.dumps({"base": own}), "ss_clip_skip": "2"},
        "old": {"patina.config": json.dumps({"base": {"source": "a/b", "clip_skip": "many", "gone": 1}})},
        "foreign": {"ss_clip_skip": "2"},
        "plain": {"ss_clip_skip": "None"},
    }
    files = {name: tmp_path / f"{name}.safetensors" for name in said}
    for name, path in files.items():
        write_style(path, bank.weights_of("one"), metadata=said[name])
    return files


def test_the_base_is_opened_as_it_was_when_the_style_was_trained(styles: dict[str, Path]) -> None:
    trained = BaseConfig(source="animagic.safetensors", clip_skip=1, prediction="v_prediction")
    assert base_of([styles["foreign"], styles["ours"]]) == trained
    assert base_of([styles["old"]]) == BaseConfig(source="a/b")
    assert base_of([]) == BaseConfig()
    with pytest.raises(AdapterFileError, match="does not say which base"):
        base_of([styles["foreign"]])


def test_a_base_that_is_named_keeps_the_settings_only_where_it_is_the_same(styles: dict[str, Path]) -> None:
    asked, ours = BaseConfig(quantize="off"), [styles["ours"]]
    assert _base_for(ours, None, asked).clip_skip == 1
    there = _base_for(ours, "/models/animagic.safetensors", asked)
    assert (there.source, there.clip_skip, there.prediction) == ("/models/animagic.safetensors", 1, "v_prediction")
    other = _base_for(ours, "c/d", asked)
    assert (other.source, other.clip_skip, other.prediction) == ("c/d", 0, "auto")
    assert _base_for(ours, None, BaseConfig(clip_skip=0)).clip_skip == 0
    assert _base_for([styles["foreign"]], "c/d", BaseConfig(clip_skip=2)).clip_skip == 2


def test_a_style_that_was_trained_with_another_clip_skip_says_so(
    base: Base, bank: Bank, styles: dict[str, Path]
) -> None:
    (note,) = load_style(bank, base, styles["foreign"], name="foreign")
    assert "say --clip-skip 1" in note
    assert load_style(bank, base, styles["plain"], name="plain") == []
