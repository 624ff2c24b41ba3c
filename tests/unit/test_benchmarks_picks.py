"""The benchmark of picks: which candidate it calls best, what its table says, and the style of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.picks import PRINT, one_ink, row_of, styles, table

FOUND = {
    "candidates": [
        {"step": 100, "strength": 0.5, "style": 0.4, "subject": 0.9},
        {"step": 100, "strength": 1.0, "style": 0.7, "subject": 0.8},
        {"step": 200, "strength": 0.75, "style": 0.8, "subject": 0.7},
        {"step": 200, "strength": 1.0, "style": 0.9, "subject": 0.3},
    ],
    "picked": [200, 0.75],
    "sentence": "",
}


def test_a_pick_is_held_against_the_best_candidate_and_the_last_state() -> None:
    row = row_of("ink-1", FOUND)
    assert (row.picked, row.best_at) in {((200, 0.75), (100, 1.0)), ((200, 0.75), (200, 0.75))}
    assert row.pick == row.best
    assert abs(row.last - 0.45) < 1e-9
    assert row.good
    assert row.better
    poor = row_of("ink-2", FOUND | {"picked": [200, 1.0]})
    assert not poor.good
    assert not poor.better
    text = table({"runs": {"ink-1": FOUND, "ink-2": FOUND | {"picked": [200, 1.0]}}, "style_accuracy": 0.9})
    assert text.count("| yes | yes |") == 1
    assert "1 of 2 picks within 5%" in text
    assert "90% of real icons" in text


def test_the_print_in_one_ink_is_a_style_of_its_own_with_the_sample_s_captions(tmp_path: Path) -> None:
    found = {style.name: style for style in styles(tmp_path)}
    assert set(found) == {"high_contrast", "streamline", PRINT}
    made = found[PRINT].images
    assert len(list(made.glob("*.png"))) == len(list(made.glob("*.txt"))) == 16
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 32, dtype=np.uint8), (8, 1)))
    printed = np.asarray(one_ink(ramp.convert("RGB")))[0]
    assert printed[-1].tolist() == [255, 255, 255]
    assert (printed[:-1, 0] > printed[:-1, 1]).all()
    assert styles(tmp_path)[2].images == made
