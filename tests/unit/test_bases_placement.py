"""Parts of a base that wait in main memory come when they are needed and go again, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainer.bases.base import Base
from trainer.bases.open import load_base
from trainer.bases.placement import Part, Placement
from trainer.config import BaseConfig

# The meta device stands for a card here: modules move there and back, and nothing computes on it.
CARD = torch.device("meta")


class Movable(nn.Module):
    """Remembers where it was moved, without losing its values as a real move to the meta device would."""

    def __init__(self) -> None:
        super().__init__()
        self.device = CARD

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Movable:
        self.device = fn(torch.zeros(1)).device
        return self


@pytest.fixture
def parts() -> dict[Part, Movable]:
    return {"denoiser": Movable(), "vae": Movable(), "text": Movable()}


@pytest.fixture
def placement(parts: dict[Part, Movable]) -> Placement:
    def modules(part: Part) -> Callable[[], list[nn.Module]]:
        return lambda: [parts[part]]

    return Placement({part: modules(part) for part in parts}, CARD)


def on_card(parts: dict[Part, Movable]) -> set[str]:
    return {name for name, module in parts.items() if module.device == CARD}


def test_parked_parts_leave_and_come_back_when_no_longer_parked(
    parts: dict[Part, Movable], placement: Placement
) -> None:
    placement.park(["vae", "text"])
    assert on_card(parts) == {"denoiser"}
    placement.park([])
    assert on_card(parts) == {"denoiser", "vae", "text"}


def test_a_parked_part_is_there_while_it_is_needed_even_nested(
    parts: dict[Part, Movable], placement: Placement
) -> None:
    placement.park(["vae", "text"])
    with placement.ready("vae"):
        with placement.ready("vae", "text"):
            assert on_card(parts) == {"denoiser", "vae", "text"}
        assert on_card(parts) == {"denoiser", "vae"}
    assert on_card(parts) == {"denoiser"}


def test_a_part_can_make_room_for_another(parts: dict[Part, Movable], placement: Placement) -> None:
    placement.park(["vae"])
    with placement.away("denoiser"), placement.ready("vae"):
        assert on_card(parts) == {"vae", "text"}
        with placement.ready("denoiser"):
            assert "denoiser" in on_card(parts)
        assert "denoiser" not in on_card(parts)
    assert on_card(parts) == {"denoiser", "text"}


def test_an_error_inside_puts_everything_back(parts: dict[Part, Movable], placement: Placement) -> None:
    placement.park(["vae"])
    with pytest.raises(ValueError, match="broken"), placement.away("denoiser"), placement.ready("vae"):
        raise ValueError("broken")
    assert on_card(parts) == {"denoiser", "text"}


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(BaseConfig(), device=torch.device("cpu"), dtype=torch.float32)


def test_encoding_asks_for_the_text_encoders_and_decoding_for_the_vae(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    real = base.placement.ready
    monkeypatch.setattr(base.placement, "ready", lambda *parts: asked.append(parts) or real(*parts))
    base.encode_texts(["a house"])
    base.encode_images(torch.zeros(1, 3, 64, 64))
    base.decode(torch.zeros(1, 4, 16, 16))
    assert asked == [("text",), ("vae",), ("vae",)]


def test_tiled_decoding_is_near_the_whole_one_and_ends_with_the_block(base: Base) -> None:
    side = base.resolution
    latents = base.scale_latents(base.encode_images(torch.linspace(-1, 1, side).expand(1, 3, side, side))[0])
    whole = base.decode(latents).float()
    base.previews = "sliced"
    try:
        tiled = base.decode(latents).float()
    finally:
        base.previews = "whole"
    assert not torch.equal(tiled, whole)
    assert float(torch.corrcoef(torch.stack([tiled.flatten(), whole.flatten()]))[0, 1]) > 0.9
    assert not base.vae.use_tiling
    assert torch.equal(base.decode(latents).float(), whole)
