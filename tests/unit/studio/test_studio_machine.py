"""Which cards there are, by a driver's library that is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from studio_parts import Parts

from trainer.config import parse
from trainer.studio import machine
from trainer.studio.machine import Machine
from trainer.studio.worker import draw

GIB = 2**30
CARDS = (("NVIDIA RTX 3060", "GPU-8a12", 12, 3), ("NVIDIA RTX 3060", "GPU-77f0", 12, 11), ("L4", "GPU-c0de", 24, 5))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that knows `CARDS`, and no ``CUDA_VISIBLE_DEVICES``."""
    library = ModuleType("pynvml")
    by_name = {uuid: card for card in CARDS for uuid in [card[1]]}
    said = {
        "NVMLError": type("NVMLError", (Exception,), {}),
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(CARDS),
        "nvmlDeviceGetHandleByIndex": lambda index: CARDS[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: by_name[uuid],
        "nvmlDeviceGetUUID": lambda card: card[1],
        "nvmlDeviceGetName": lambda card: card[0],
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(total=card[2] * GIB, free=card[3] * GIB),
    }
    for name, value in said.items():
        setattr(library, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (None, ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("1", ["1"]),
        ("", []),
        ("-1", []),
        ("0,-1,2", ["0"]),
        ("0,3,1", ["0"]),
        ("GPU-77,GPU-8a12", ["GPU-77", "GPU-8a12"]),
    ],
)
@pytest.mark.usefixtures("driver")
def test_cards_are_those_that_cuda_may_see(monkeypatch: pytest.MonkeyPatch, told: str | None, found: list[str]) -> None:
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert [card.card for card in machine.cards()] == found


@pytest.mark.usefixtures("driver")
def test_a_card_that_is_named_is_the_one_that_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-77")
    assert machine.best_device() == machine.Device("cuda", "RTX 3060", 12 * GIB, 11 * GIB, "GPU-77", 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.best_device().card == "1", "it has the most memory to spare"


@pytest.mark.usefixtures("driver")
def test_the_chip_tells_of_all_cards(parts: Parts) -> None:
    view = Machine(parts.home, parts.supervisor).view()
    assert (view.device, view.name) == ("cuda", "2 x RTX 3060 + L4")
    assert (view.memory_used_bytes, view.memory_total_bytes) == (29 * GIB, 48 * GIB)


def test_a_worker_that_sees_one_card_takes_it_for_the_one_that_a_run_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def pick(wish: str) -> torch.device:
        asked.append(wish)
        return torch.device("cpu")

    monkeypatch.setattr(draw, "pick_device", pick)
    monkeypatch.setattr(draw, "load_base", lambda *args, **kwargs: None)
    for own_card in (True, False):
        for device in ("cuda:1", "auto"):
            draw.WarmBase(tmp_path, own_card=own_card).base_for_training(parse({"train": {"device": device}}))
    assert asked == ["cuda", "auto", "cuda:1", "auto"]
