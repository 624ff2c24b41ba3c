"""The workbench on the command line: each command once, and what is said when it cannot do what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_families import TinyModel, save_folder
from typer.testing import CliRunner

from trainer.cli import app
from trainer.styles.file import StyleFile
from trainer.styles.read import read_style

runner = CliRunner()
Make = Callable[..., StyleFile]


def patina(*arguments: object, code: int = 0) -> str:
    said = runner.invoke(app, [str(argument) for argument in arguments])
    assert said.exit_code == code, said.output
    return said.output


def test_styles_are_merged_resized_split_compared_and_converted(make_style: Make, tmp_path: Path) -> None:
    ink, wash = make_style("ink", 1).path, make_style("wash", 2).path
    both, small, part, rest, old = (tmp_path / f"{n}.safetensors" for n in ("both", "small", "part", "rest", "old"))
    said = patina("merge", f"{ink}:0.7", wash, "--out", both, "--name", "Both")
    assert "rank 6; exact, side by side" in said
    assert read_style(both).metadata["ss_output_name"] == "Both"
    assert "of the energy is left out" in patina("resize", both, "--rank", "2", "--out", small)
    patina("split", small, "--keep", "cross", "--out", part, "--rest", rest)
    assert read_style(part).layers.keys() | read_style(rest).layers.keys() == read_style(both).layers.keys()
    patina("export", part, "--out", old, "--format", "diffusers")
    assert "the same, of norm" in patina("diff", part, old)
    found = json.loads(patina("diff", ink, wash, "--json"))
    assert found["names"] == ["ink", "wash"]
    assert "attn2.to_q" in patina("diff", ink, wash, "--layers")


def test_a_style_is_baked_in_and_extracted_again(
    tiny: Callable[[str], TinyModel], family_style: Make, tmp_path: Path
) -> None:
    base, style = save_folder(tiny("sd1"), tmp_path / "base"), family_style("sd1").path
    new, back = tmp_path / "new", tmp_path / "back.safetensors"
    assert "is a plain model now" in patina("bake", f"{style}:0.5", "--base", base, "--out", new)
    assert "holds sd1 already" in patina("bake", style, "--base", new, "--out", tmp_path / "more", code=2)
    patina("extract", "--tuned", new, "--base", base, "--rank", "2", "--out", back, "--name", "found")
    assert read_style(back).metadata["ss_output_name"] == "found"
    assert len(read_style(back).layers) == len(read_style(style).layers)
    again = tmp_path / "again.safetensors"
    patina("extract", "--style", style, "--base", base, "--rank", "1", "--out", again)
    assert {layer.rank for layer in read_style(again).layers.values()} == {1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["merge", "INK", "--out", "new.safetensors"], "Name two styles or more to merge."),
        (["merge", "INK:much", "INK", "--out", "new.safetensors"], "its strength should be a number"),
        (["merge", "INK", "INK", "--out", "new.pt"], "should end in .safetensors"),
        (["resize", "INK", "--out", "new.safetensors"], "Say to what: a rank"),
        (["resize", "INK", "--out", "new.safetensors", "--energy", "2"], "--energy is 2, but should be above 0"),
        (["split", "INK", "--keep", "style", "--out", "new.safetensors"], "is not known to be for Stable Diffusion XL"),
        (["split", "INK", "--keep", ".*", "--out", "n.safetensors", "--rest", "r.safetensors"], "nothing is left"),
        (["diff", "INK", "gone.safetensors"], "There is no file gone.safetensors."),
        (["bake", "INK", "--base", "gone/folder/", "--out", "new"], "does not exist"),
        (["extract", "--base", "bundled", "--rank", "2", "--out", "n.safetensors"], "either --tuned BASE or --style"),
        (["extract", "--base", "bundled", "--style", "INK", "--out", "n.safetensors"], "Say to what: a rank"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    make_style: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    ink = make_style("ink")
    monkeypatch.chdir(tmp_path)
    output: Any = patina(*[word.replace("INK", ink.path.name) for word in arguments], code=2)
    (line,) = output.splitlines()
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ink.safetensors"]


def test_convert_takes_an_alpha_that_the_file_does_not_say_and_writes_it_down(tmp_path: Path) -> None:
    place = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    lost, told = tmp_path / "lost.safetensors", tmp_path / "told.safetensors"
    save_file({f"{place}.lora_A.weight": torch.ones(4, 16), f"{place}.lora_B.weight": torch.ones(16, 4)}, lost)
    assert "alpha unknown" in patina("inspect", lost)
    assert "does not say its alpha" in patina("convert", lost, "--out", told, code=2)
    assert "say alpha too" in patina("convert", lost, "--out", told, "--rslora", code=2)
    assert "--alpha is 'much'" in patina("convert", lost, "--out", told, "--alpha", "much", code=2)
    patina("convert", lost, "--out", told, "--alpha", "6", "--rslora")
    assert {layer.scale for layer in read_style(told).layers.values()} == {3.0}
