"""The sample styles are complete, drawn alike, captioned by content, and licensed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

LICENCES = {"high_contrast": "MIT License", "streamline": "CC BY 4.0"}
STYLES = sorted(LICENCES)


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix not in {".txt", ".md"})


def test_the_styles_are_exactly_the_two_that_are_licensed(sample_data_dir: Path) -> None:
    folders = {path.name for path in sample_data_dir.iterdir() if path.is_dir()}
    assert folders == {*STYLES, "sheets"}


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_16_square_images_of_256_px_on_white(sample_data_dir: Path, style: str) -> None:
    images = images_of(sample_data_dir / style)
    assert len(images) == 16
    for path in images:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", (256, 256))
            pixels = image.convert("RGB")
        assert pixels.getpixel((0, 0)) == (255, 255, 255), path.name
        darkest, _ = pixels.convert("L").getextrema()
        assert isinstance(darkest, int)
        assert darkest < 100, f"{path.name} is nearly empty"


@pytest.mark.parametrize("style", STYLES)
def test_every_caption_names_the_content_and_not_the_style(sample_data_dir: Path, style: str) -> None:
    captions = []
    for path in images_of(sample_data_dir / style):
        caption = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert caption == path.stem.replace("-", " ")
        assert not any(character.isdigit() for character in caption)
        captions.append(caption)
    assert len(set(captions)) == len(captions)
    text = " ".join(captions)
    assert not any(word in text for word in ("style", "streamline", "contrast", "outline"))


def test_high_contrast_has_no_colour(sample_data_dir: Path) -> None:
    for path in images_of(sample_data_dir / "high_contrast"):
        with Image.open(path) as image:
            colours = image.convert("RGB").getcolors(maxcolors=256)
        assert colours is not None
        for _, colour in colours:
            assert isinstance(colour, tuple)
            assert max(colour) == min(colour), path.name


@pytest.mark.parametrize("style", STYLES)
def test_a_style_states_its_licence_its_source_and_how_it_was_made(sample_data_dir: Path, style: str) -> None:
    folder = sample_data_dir / style
    assert LICENCES[style] in (folder / "LICENSE.md").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "tools/make_sample_data.py" in readme
    for path in [*images_of(folder), sample_data_dir / "sheets" / f"{style}.png"]:
        with Image.open(path) as image:
            package = str(image.info["Source"]).split(" ")[0]
        assert package in readme


def test_the_sample_data_stays_small(sample_data_dir: Path) -> None:
    size = sum(path.stat().st_size for path in sample_data_dir.rglob("*") if path.is_file())
    assert size < 300_000
