"""Weights that wait in main memory: how many, that all that is computed stays the same, and that they come home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from tiny_families import build, save_folder
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.bases.base import Base, SizeFacts
from trainer.bases.open import load_base
from trainer.bases.swapping import BUFFERS, Swapped, swap, swapped
from trainer.config import BaseConfig, MemoryConfig, RunConfig, parse
from trainer.events import Event, Finished, Planned
from trainer.styles.read import read_style
from trainer.training.ladder import Rung, can_swap, explain, gives_up, rungs, step_down, with_rung
from trainer.training.pausing import Uncontrolled
from trainer.training.room import as_found, settle
from trainer.training.run import create, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = save_folder(build(request.param), tmp_path_factory.mktemp(request.param))
    return load_base(BaseConfig(source=str(folder)), device=CPU, dtype=torch.float32)


@pytest.fixture
def model(opened: Base) -> Iterator[Base]:
    yield opened
    settle(opened, MemoryConfig())


def answer(base: Base) -> Tensor:
    size = SizeFacts.whole(64, 64)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    conditioning = base.conditioning(base.encode_texts(["a fox", "a hen"]), [size, size])
    return base.predict(latents.to(base.device), torch.tensor([100, 700], device=base.device), conditioning)


def away(model: nn.Module) -> int:
    return sum(module.host.nbytes for module in model.modules() if isinstance(module, Swapped))


@pytest.mark.parametrize("percent", [25, 50, 100])
def test_the_share_that_was_asked_for_is_away_and_hidden_from_whoever_moves_the_model(
    model: Base, percent: int
) -> None:
    unet = model.denoiser
    before = {name: (id(p), p.detach().clone()) for name, p in unet.named_parameters()}
    blocks = sum(
        module.weight.nbytes
        for path, module in unet.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d) and any(part.isdecimal() for part in path.split("."))
    )
    swap(unet, percent, CPU)
    assert swapped(unet) == percent
    assert away(unet) / blocks == pytest.approx(percent / 100, abs=0.05)
    left = sum(parameter.nbytes for parameter in unet.parameters())
    assert left == sum(value.nbytes for _, value in before.values()) - away(unet)
    swap(unet, 0, CPU)
    assert swapped(unet) == 0
    after = {name: (id(p), p) for name, p in unet.named_parameters()}
    assert after.keys() == before.keys()
    assert all(after[name][0] == was and torch.equal(after[name][1], value) for name, (was, value) in before.items())


def test_answers_and_gradients_are_those_of_the_whole_model(model: Base) -> None:
    quiet = answer(model)
    found: list[dict[str, Any]] = []
    for percent, levels in ((0, 0), (100, 0), (50, model.levels)):
        bank = Bank(model.roots)
        bank.add("it", r".*down_blocks.*\.(to_q|to_v|conv1)", rank=2, seed=1)
        # DoRA looks at the weights themselves, too.
        bank.add("lengths", r".*down_blocks.*\.to_v", rank=2, method="dora", seed=1)
        settle(model, MemoryConfig(block_swap=percent, checkpoint_levels=levels))
        # Twice, as what comes next is learned from the first time.
        for _ in range(2):
            assert torch.equal(answer(model), quiet)
        answer(model).square().mean().backward()
        found.append({f"{name}.{key}": p.grad for name in bank.names for key, p in bank.parameters_of(name)})
        bank.detach()
    assert all(gradient is not None for gradient in found[0].values())
    for others in found[1:]:
        for key, gradient in found[0].items():
            torch.testing.assert_close(others[key], gradient, msg=key)


def test_what_comes_next_is_brought_before_it_is_asked_for(model: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(model, MemoryConfig(block_swap=100))
    exchange = next(m for m in model.denoiser.modules() if isinstance(m, Swapped))._exchange
    lent, asked = exchange.lent, []

    def counted(layer: Swapped) -> Tensor:
        asked.append(exchange._holding(layer) is not None)
        return lent(layer)

    with torch.no_grad():
        answer(model)
        answer(model)
        monkeypatch.setattr(exchange, "lent", counted)
        answer(model)
    assert sum(asked) >= len(asked) - 1
    assert len(exchange._buffers) == BUFFERS


def test_the_weight_that_is_asked_for_by_name_stays_what_it_is(model: Base) -> None:
    settle(model, MemoryConfig(block_swap=100))
    layers = [module for module in model.denoiser.modules() if isinstance(module, Swapped)][:8]
    weights = [layer.weight for layer in layers]
    with torch.no_grad():
        answer(model)
    assert all(torch.equal(weight, layer.host) for weight, layer in zip(weights, layers, strict=True))


@pytest.mark.gpu
def test_on_a_card_weights_come_and_go_and_the_answers_stay(tmp_path: Path) -> None:
    folder = save_folder(build("sd1"), tmp_path / "sd1")
    base = load_base(BaseConfig(source=str(folder)), device=torch.device("cuda", 0), dtype=torch.float32)
    assert can_swap(base)
    bank = Bank(base.roots)
    bank.add("it", r".*down_blocks.*\.(to_q|to_v|conv1)", rank=2, seed=1)
    found = []
    for percent in (0, 100):
        settle(base, MemoryConfig(block_swap=percent))
        for _ in range(3):
            shown = answer(base)
            shown.square().mean().backward()
        found.append([shown.detach(), *(p.grad.clone() for _, p in bank.parameters_of("it") if p.grad is not None)])
        for _, parameter in bank.parameters_of("it"):
            parameter.grad = None
    assert all(m.host.is_pinned() for m in base.denoiser.modules() if isinstance(m, Swapped))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-3)
    settle(base, MemoryConfig())
    assert {p.device.type for p in base.denoiser.parameters()} == {"cuda"}


def test_a_run_that_ends_leaves_the_base_whole(model: Base) -> None:
    with as_found(model):
        settle(model, MemoryConfig(block_swap=50))
        assert swapped(model.denoiser) == 50
    assert swapped(model.denoiser) == 0


def config_with(**memory: Any) -> RunConfig:
    return parse({"optim": {"batch_size": 2}, "memory": memory})


def test_the_last_rungs_of_a_card_let_weights_wait_in_main_memory(model: Base) -> None:
    last = rungs(config_with(), levels=2, swaps=True)
    assert last[-2:] == [Rung(1, 2, True, 50), Rung(1, 2, True, 100)]
    assert rungs(config_with(), levels=2)[-1] == Rung(1, 2, True)
    assert not can_swap(model), "main memory is all that a processor has"
    asked = rungs(config_with(block_swap=30), levels=2)
    assert {rung.block_swap for rung in asked} == {30}
    lower = step_down(config_with(micro_batch=1, checkpoint_levels=2, park_encoders=True), levels=2, swaps=True)
    assert lower == Rung(1, 2, True, 50)
    config = config_with(micro_batch=1, checkpoint_levels=2, park_encoders=True)
    assert gives_up(config, lower) == (
        "50% of the weights come from main memory one by one. The result is the same, the steps are slower"
    )
    said = " ".join(explain(with_rung(config, lower, "whole"), levels=2))
    assert "50% of the model's weights wait in main memory" in said


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["sd1"], indirect=True)
def test_a_whole_run_with_weights_in_main_memory_gives_the_style_of_one_without(opened: Base, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((10, 12 + 5 * index, 50, 60), outline="black", width=4)
        picture.save(images / f"shape-{index}.png")
    files = []
    for percent in (0, 50):
        settings = {
            "trigger": "shape style",
            "data": {"images": str(images), "resolution": 64},
            "adapter": {"rank": 2},
            "optim": {"batch_size": 1, "warmup_steps": 0},
            "train": {"steps": 3, "threads": 1},
            "samples": {"prompts": ["a fox"], "steps": 1, "every": 0},
            "judging": {"enabled": False},
            "memory": {"block_swap": percent},
        }
        said: list[Event] = []
        folder = create(parse(settings), tmp_path / str(percent))
        train(folder, emit=said.append, control=Uncontrolled(), base=opened)
        assert isinstance(said[-1], Finished)
        plan = next(event for event in said if isinstance(event, Planned))
        assert any("wait in main memory" in note for note in plan.notes) == bool(percent)
        assert folder.config().memory.block_swap == percent
        assert swapped(opened.denoiser) == 0
        files.append(folder.adapter_file)
    whole, parted = (read_style(file).layers for file in files)
    assert whole.keys() == parted.keys()
    for path, layer in whole.items():
        torch.testing.assert_close(parted[path].up, layer.up, atol=1e-5, rtol=1e-3, msg=path)
