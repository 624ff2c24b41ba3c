"""Two runs side by side, by what lies in their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.train import monitor
from app.train.beside import beside
from trainer.cli import app
from trainer.config import parse
from trainer.errors import RunError
from trainer.events import Progress, Sampled, Started, Validated
from trainer.judging.judgement import FILE, Judged, Judgement
from trainer.studio.compared import compared
from trainer.training.run_folder import Origin, RunFolder

PROMPTS = ("cat face", "bus")


def run(path: Path, *, trigger: str, rank: int, images: dict[str, str], losses: tuple[float, ...]) -> RunFolder:
    """A run that has ended: settings, images with captions, curves and two rounds of samples."""
    folder = RunFolder(path)
    config = {"name": f"<b>{path.name}</b>", "trigger": trigger, "adapter": {"rank": rank}}
    folder.write_config(parse(config))
    examples = [{"sha256": name, "name": f"{name}.png", "content": content} for name, content in images.items()]
    folder.dataset_file.write_text(json.dumps({"examples": examples}), encoding="utf-8")
    folder.append(Started(step=0, steps=len(losses)))
    folder.append(
        Progress(
            step=len(losses), steps=len(losses), losses=losses, learning_rate=1e-3, samples_per_second=1, seconds_left=0
        )
    )
    folder.append(Validated(step=len(losses), loss=0.1, base_loss=0.2))
    for step in (1, len(losses)):
        for index, prompt in enumerate(PROMPTS):
            said = f"{prompt}, {trigger}"
            folder.append(Sampled(step=step, index=index, prompt=said, path=f"samples/{step}-{index}.png"))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    first = run(
        tmp_path / "old", trigger="ink", rank=4, images={"a": "owl", "b": "cup", "c": "sun"}, losses=(0.5, 0.4, 0.3)
    )
    second = run(tmp_path / "new", trigger="line", rank=8, images={"a": "owl", "b": "mug"}, losses=(0.5, 0.4))
    second.write_origin(Origin(run="old", name="<i>old</i>", without="c.png"))
    return first, second


def test_only_what_differs_is_told_and_the_same_prompts_are_paired(two: tuple[RunFolder, RunFolder]) -> None:
    first, second = two
    found = compared(first, second, titles={"c.png": "my sun.jpg"})
    assert {each.path: (each.first, each.second) for each in found.settings} == {
        "trigger": ("ink", "line"),
        "adapter.rank": (4, 8),
    }
    assert (found.only_first, found.only_second, found.captions) == (("my sun.jpg",), (), ("b.png",))
    assert [(pair.prompt, pair.first.name, pair.second.name) for pair in found.pairs] == [
        ("cat face", "3-0.png", "2-0.png"),
        ("bus", "3-1.png", "2-1.png"),
    ]
    assert found.second.origin == Origin(run="old", name="<i>old</i>", without="c.png")
    assert any("held-out" in note for note in found.notes)
    assert json.loads(json.dumps(found.to_dict()))["first"]["losses"] == [0.5, 0.4, 0.3]


def test_pictures_are_of_the_step_that_the_file_holds(two: tuple[RunFolder, RunFolder]) -> None:
    first, second = two
    kept = Judged(step=1, strength=0.75, style=0.5, subject=0.75, nearness=1.0, drift=0.0, variety=1.0)
    judgement = Judgement(candidates=(kept,), step=1, strength=0.75, confidence=1.0, sentence="")
    (first.path / FILE).write_text(judgement.to_json(), encoding="utf-8")
    found = compared(first, second)
    assert (found.first.kept, found.first.style, found.second.kept) == ((1, 0.75), 0.5, None)
    assert found.pairs[0].first.name == "1-0.png"
    page = str(beside(found))
    assert "step 1 at strength 0.75" in page.lower()
    assert "<b>" not in page
    assert page.count("<polyline") == 2


def test_a_damaged_folder_is_compared_by_what_is_left_and_none_is_refused(
    two: tuple[RunFolder, RunFolder], tmp_path: Path
) -> None:
    first, second = two
    first.dataset_file.write_text("{", encoding="utf-8")
    second.origin_file.write_text("[]", encoding="utf-8")
    found = compared(first, second)
    assert (found.first.images, found.second.origin) == (0, None)
    with pytest.raises(RunError, match="no run folder"):
        compared(first, RunFolder(tmp_path / "nothing"))


def test_the_command_shows_both_and_the_page_says_where_a_run_came_from(two: tuple[RunFolder, RunFolder]) -> None:
    first, second = two
    said = CliRunner().invoke(app, ["compare", str(first.path), str(second.path)], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    lines = {line.split("  ")[0].strip(): line for line in said.output.splitlines()}
    assert lines["adapter.rank"].split() == ["adapter.rank", "4", "8"]
    assert "<i>old</i>, without c.png" in lines["trained again from"]
    plain = CliRunner().invoke(app, ["compare", str(first.path), str(second.path), "--json"])
    assert json.loads(plain.output)["second"]["origin"]["run"] == "old"
    line = str(monitor.origin_line(second.origin()))
    assert "&lt;i&gt;old&lt;/i&gt;, without c.png" in line
    assert monitor.origin_line(None) is None
