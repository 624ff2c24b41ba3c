from __future__ import annotations

import pytest
from PIL import ImageFont

from trainer.preview import fonts
from trainer.preview.fonts import can_write, font_for

OWN = ImageFont.load_default(size=16).getname()


def test_a_label_in_latin_letters_is_drawn_in_the_font_that_every_machine_has() -> None:
    assert can_write("a cat, step 100 \u00b7 seed 3")
    assert font_for("a cat, step 100 \u00b7 seed 3", 16).getname() == OWN


def test_letters_that_no_font_here_has_are_known_and_drawn_somehow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SYSTEM", ("no such font.ttf",))
    assert not can_write("step 100 种子")
    assert font_for("step 100 种子", 16).getname() == OWN


def test_the_font_with_the_most_of_a_label_s_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = "DejaVuSans.ttf"
    try:
        ImageFont.truetype(wide, 16)
    except OSError:
        pytest.skip(f"{wide} is not on this machine")
    monkeypatch.setattr(fonts, "SYSTEM", (wide,))
    assert can_write("шаг 100")
    assert font_for("шаг 100", 16).getname()[0] == "DejaVu Sans"
    assert font_for("шаг 100 种", 16).getname()[0] == "DejaVu Sans"
    assert font_for("100 种", 16).getname() == OWN
