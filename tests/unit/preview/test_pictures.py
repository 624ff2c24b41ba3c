from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from trainer.preview.generate import Canvas
from trainer.preview.order import PreviewRow
from trainer.preview.png import parameters_of, save_png
from trainer.preview.sheet import contact_sheet

CANVAS = Canvas(width=64, height=96, guidance=3.0, steps=20, scheduler="dpm++_2m_karras")


def test_a_picture_carries_its_settings_where_other_tools_look(tmp_path: Path) -> None:
    row = PreviewRow(prompt="a café, ink style", negative="blurry", seed=7, strengths=(0.75, 0.0))
    save_png(
        Image.new("RGB", (64, 96)), tmp_path / "deep" / "a.png", parameters_of(row, CANVAS, ["ink", "oil"], "Base, 1")
    )
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        text = picture.text["parameters"]
    assert text.splitlines() == [
        "a café, ink style <lora:ink:0.75>",
        "Negative prompt: blurry",
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 3, Seed: 7, Size: 64x96, Model: Base  1, Version: Patina",
    ]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_a_prompt_beyond_latin_letters_survives(tmp_path: Path) -> None:
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", "水墨画")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.text["parameters"] == "水墨画"


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (64, 128)])
def test_a_sheet_holds_every_picture_and_its_labels(size: tuple[int, int]) -> None:
    colours = [["#ff0000", "#00ff00"], ["#0000ff", "#ffff00"]]
    grid = [[Image.new("RGB", size, colour) for colour in line] for line in colours]
    sheet = contact_sheet(grid, rows=["a very long prompt " * 9, "cat"], columns=["base", "style with a long name" * 3])
    found = {colour for _, colour in sheet.getcolors(maxcolors=100_000)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)} <= found
    plain = contact_sheet(grid)
    assert sheet.width > plain.width
    assert sheet.height > plain.height
    titled = contact_sheet(grid, title="Ink, ink style, seed 7")
    assert titled.width == plain.width
    assert titled.height > plain.height
    assert {colour for _, colour in titled.getcolors(maxcolors=100_000)} > {(255, 0, 0), (255, 255, 0)}
