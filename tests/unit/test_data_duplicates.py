"""A copy is recognised whatever was done to its file; a similar drawing is not a copy."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import combinations

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from trainer.data.duplicates import correlation, fingerprint

GLYPHS = "ABCDEGHIKMOQSXZabdegmqsx2358&%$#?"


def glyph(character: str, colour: str = "black") -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    font = ImageFont.load_default(size=140)
    ImageDraw.Draw(image).text((100, 100), character, fill=colour, font=font, anchor="mm")
    return image


def resaved(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        resaved,
        lambda image: image.resize((100, 100)),
        lambda image: resaved(image.resize((170, 170))),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    ],
    ids=["re-saved", "halved", "resized and re-saved", "darker", "flatter"],
)
def test_a_copy_is_recognised(change: Callable[[Image.Image], Image.Image]) -> None:
    for character in GLYPHS:
        image = glyph(character)
        assert fingerprint(image).looks_like(fingerprint(change(image))), character


def test_different_glyphs_are_not_copies_of_each_other() -> None:
    prints = {character: fingerprint(glyph(character)) for character in GLYPHS}
    likes = [a + b for a, b in combinations(GLYPHS, 2) if prints[a].looks_like(prints[b])]
    assert likes == []
    # The hash alone would not have told them apart, which is what the correlation is for.
    assert (prints["O"].bits ^ prints["Q"].bits).bit_count() <= 4


def test_another_colour_or_side_is_another_picture() -> None:
    assert not fingerprint(glyph("E")).looks_like(fingerprint(glyph("E", "red")))
    assert not fingerprint(glyph("E")).looks_like(fingerprint(glyph("E").rotate(180)))


def test_flat_pictures_are_alike_only_in_one_colour() -> None:
    grey, lighter = Image.new("RGB", (64, 64), "#808080"), Image.new("RGB", (64, 64), "#909090")
    assert fingerprint(grey).looks_like(fingerprint(grey.resize((32, 32))))
    assert not fingerprint(grey).looks_like(fingerprint(lighter))
    assert not fingerprint(grey).looks_like(fingerprint(glyph("E")))


def test_correlation_is_pearsons() -> None:
    a, b = bytes([1, 2, 3, 4]), bytes([2, 4, 5, 9])
    assert math.isclose(correlation(a, b), 11 / math.sqrt(5 * 26))
    assert correlation(a, bytes([5, 6, 7, 8])) == 1
    assert correlation(a, a[::-1]) == -1
