"""Looks of our own making: each changes a drawing in its way, and every caption of it says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tools.base import dataset
from tools.base.dataset import Entry, IconData
from tools.base.diffusion import CaptionTable
from tools.base.looks import LOOKS, ground, looked, main, with_looks
from tools.base.sizes import SIZES, write_tokenizer


def drawing() -> NDArray[np.uint8]:
    """A brownish square with a white window, over white."""
    image = np.full((48, 48, 3), 255, dtype=np.uint8)
    image[12:36, 12:36] = (200, 140, 90)
    image[20:26, 20:26] = 255
    return image


def data(count: int = 40) -> IconData:
    entries = [
        Entry(set_key="noto", name=f"box-{i}", subject="box", captions=("box", "crate"), split="train", weight=1.0)
        for i in range(count)
    ]
    turned = Entry(set_key="noto", name="box-red", subject="box", captions=("red box",), split="train", weight=0.1)
    return IconData(np.stack([drawing()] * (count + 1)), (*entries, turned))


def test_the_ground_is_what_a_border_of_white_reaches() -> None:
    outside = ground(drawing().astype(np.float32) / 255)
    assert outside[0, 0]
    assert not outside[14, 14]
    assert not outside[22, 22], "a white window in the thing is no ground"


@pytest.mark.parametrize("look", LOOKS)
def test_each_look_changes_the_drawing_and_keeps_its_shape(look: str) -> None:
    image = drawing()
    changed = looked(image, look)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert np.abs(changed.astype(int) - image).mean() > 1
    others = [looked(image, other) for other in LOOKS if other != look]
    assert all(np.abs(changed.astype(int) - other).mean() > 0.5 for other in others)


def test_looks_do_what_they_are_called() -> None:
    image = drawing()
    grey = looked(image, "grey")
    assert (grey.max(axis=2) - grey.min(axis=2)).max() == 0
    assert looked(image, "night")[2, 2].max() < 100
    assert looked(image, "outlined")[12, 24].max() < 100
    assert looked(image, "outlined")[2, 2].min() > 250
    shadow = looked(image, "shadowed")
    assert shadow[39, 39].max() < 220
    assert shadow[8, 8].min() > 250


def test_every_drawing_comes_in_several_looks_that_take_their_share() -> None:
    before = data()
    found = with_looks(before, each=3, share=0.4, processes=1)
    own = [entry for entry in found.entries if not entry.look]
    in_looks = [entry for entry in found.entries if entry.look]
    assert len(in_looks) == 3 * 40, "what was recoloured stays as it is"
    whole = sum(entry.weight for entry in found.entries)
    assert sum(entry.weight for entry in in_looks) == pytest.approx(0.4 * whole, rel=0.01)
    assert tuple(own) == before.entries
    for name in {entry.name.split("-")[1] for entry in own[:-1]}:
        assert len({entry.look for entry in in_looks if entry.name.startswith(f"box-{name}-")}) == 3
    assert len({entry.look for entry in in_looks}) > len(LOOKS) / 2
    assert found.entries == with_looks(before, each=3, share=0.4, processes=1).entries


def test_a_drawing_in_a_look_is_always_called_by_it(tmp_path: Path) -> None:
    found = with_looks(data(4), each=2, share=0.5, processes=1)
    tokenizer = write_tokenizer(["box", "crate", "red box", *LOOKS], SIZES["small"], tmp_path)
    table = CaptionTable.of(found.entries, tokenizer, torch.device("cpu"))
    index = len(found.entries) - 1
    tokens = table.draw(torch.full((100,), index), torch.Generator().manual_seed(0), dropout=0.9, made_up=0.9)
    seen = {tokenizer.decode(row, skip_special_tokens=True).strip().replace(" ,", ",") for row in tokens}
    look = found.entries[index].look
    assert seen == {f"box, {look} style", f"crate, {look} style"}


def test_a_set_with_ways_of_its_own_is_always_called_by_its_word(tmp_path: Path) -> None:
    plain = data(1)
    rounded = replace(plain.entries[0], set_key="blob")
    assert (plain.entries[0].named, rounded.named) == (False, True)
    tokenizer = write_tokenizer(["box", "crate", "blob style"], SIZES["small"], tmp_path)
    table = CaptionTable.of((rounded,), tokenizer, torch.device("cpu"))
    tokens = table.draw(torch.zeros(50, dtype=torch.long), torch.Generator().manual_seed(0), dropout=0.9, made_up=0.9)
    seen = {tokenizer.decode(row, skip_special_tokens=True).strip().replace(" ,", ",") for row in tokens}
    assert seen == {"box, blob style", "crate, blob style"}


def test_the_command_writes_the_same_data_with_looks_and_leaves_what_is_held_out(tmp_path: Path) -> None:
    plain = data(4)
    held_out = replace(plain.entries[0], split="held-out")
    dataset.write(IconData(plain.images, (held_out, *plain.entries[1:])), tmp_path / "data")
    main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "looked"), "--each", "2", "--processes", "1"])
    found = dataset.load(tmp_path / "looked")
    assert len(found.entries) == 5 + 2 * 3
    assert not any(entry.look for entry in found.select("held-out").entries)
