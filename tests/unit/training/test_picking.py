"""A run judges what it kept, and its file holds what was picked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from trainer.bases.base import Base
from trainer.config import parse
from trainer.errors import RunError
from trainer.events import Event, Finished, Recommended
from trainer.judging.judgement import Judgement, from_json
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.read import read_style
from trainer.training import checkpoint as checkpoints
from trainer.training.pausing import Uncontrolled
from trainer.training.rejudging import judge_again
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder


@pytest.fixture
def judged_settings(settings: dict) -> dict:
    """A share of the training no such short run would have, so that it is judged."""
    settings["judging"] = {"share": 10.0, "strengths": [0.5, 1.0]}
    settings["train"]["steps"] = 60
    settings["train"]["checkpoint_every"] = 30
    settings["samples"] = {"prompts": ["cat face", "red heart", "bus"], "steps": 1, "every": 0}
    settings["optim"]["learning_rate"] = 3e-3
    return settings


def run(settings: dict, path: Path, base: Base) -> tuple[RunFolder, list[Event]]:
    said: list[Event] = []
    folder = create(parse(settings), path)
    train(folder, emit=said.append, control=Uncontrolled(), base=base)
    return folder, said


def exported(folder: RunFolder) -> dict[str, torch.Tensor]:
    return {where: layer.up for where, layer in read_style(folder.adapter_file).layers.items()}


@pytest.mark.slow
def test_the_file_holds_the_state_that_is_recommended_and_another_can_be_kept(
    judged_settings: dict, base: Base, tmp_path: Path
) -> None:
    folder, said = run(judged_settings, tmp_path / "run", base)

    told = [event for event in said if isinstance(event, Recommended)]
    assert len(told) == 1
    judgement = from_json(folder.judgement_file.read_bytes())
    assert {(one.step, one.strength) for one in judgement.candidates} == {(30, 0.5), (30, 1.0), (60, 0.5), (60, 1.0)}
    assert (told[0].at_step, told[0].strength) == (judgement.step, judgement.strength) == judgement.kept
    assert told[0].sentence == judgement.sentence
    assert judgement.sentence.startswith(f"Step {judgement.step} at strength {judgement.strength:g}:")
    for one in judgement.candidates:
        with Image.open(folder.path / one.pictures) as strip:
            assert strip.size == (128 * len(judgement.prompts), 128)
    # All are seen at first, and the best of them on more pictures, of which the pick is made.
    pictures = {(one.step, one.strength): len(one.scores["style"]) for one in judgement.candidates}
    assert sorted(pictures.values()) == [6, 6, 6, 6]

    assert judgement.image_steps == (30, 60)
    assert [one.name for one in judgement.images] == sorted(one.name for one in judgement.images)
    assert all(len(one.gains) == 2 and one.gains[0] != one.gains[1] for one in judgement.images)

    finished = said[-1]
    assert isinstance(finished, Finished)
    assert (finished.picked_step, finished.picked_strength) == judgement.kept
    with safe_open(folder.adapter_file, "pt") as file:
        facts = dict(file.metadata())
    assert facts["ss_steps"] == str(judgement.step)
    assert float(facts["patina.recommended_strength"]) == judgement.strength
    saved = checkpoints.read(dict(folder.saved())[judgement.step])
    for where, up in exported(folder).items():
        assert torch.equal(up, saved.adapter[f"{where}.up"])

    other = 30 if judgement.step == 60 else 60
    kept = judge_again(folder, emit=lambda event: None, keep=(other, 0.5))
    assert kept.kept == (other, 0.5)
    assert (kept.step, kept.strength) == (judgement.step, judgement.strength)
    saved = checkpoints.read(dict(folder.saved())[other])
    for where, up in exported(folder).items():
        assert torch.equal(up, saved.adapter[f"{where}.up"])

    with pytest.raises(RunError, match="was not judged"):
        judge_again(folder, emit=lambda event: None, keep=(45, 0.5))

    # Judged again, the same run is judged the same, and the recommendation holds again.
    again = judge_again(folder, emit=lambda event: None)
    assert without_time(again) == without_time(judgement)
    assert again.kept == judgement.kept


def without_time(judgement: Judgement) -> dict:
    return {key: value for key, value in json.loads(judgement.to_json()).items() if key != "seconds"}


def test_a_run_too_short_to_afford_it_holds_its_last_state(settings: dict, base: Base, tmp_path: Path) -> None:
    folder, said = run(settings, tmp_path / "run", base)
    assert not folder.judgement_file.exists()
    finished = said[-1]
    assert isinstance(finished, Finished)
    assert finished.picked_step == 4
    assert finished.picked_strength is None


def test_judging_can_be_left_out(judged_settings: dict, base: Base, tmp_path: Path) -> None:
    judged_settings["judging"]["enabled"] = False
    judged_settings["train"] |= {"steps": 4, "checkpoint_every": 2}
    folder, said = run(judged_settings, tmp_path / "run", base)
    assert not folder.judgement_file.exists()
    assert len(sshs_model_hash(folder.adapter_file)) == 64
    assert not [event for event in said if isinstance(event, Recommended)]


def test_a_run_without_a_file_is_not_judged(settings: dict, tmp_path: Path) -> None:
    folder = create(parse(settings), tmp_path / "run")
    with pytest.raises(RunError, match="let its training end first"):
        judge_again(folder, emit=lambda event: None)
