"""A base in 4 or 8 bits a weight: how much it takes, that adapters train on it, and that it is what was asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from tiny_families import build, save_folder
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge
from trainer.bases.base import Base, SizeFacts
from trainer.bases.open import load_base
from trainer.bases.quantised import Quantised, is_quantised, quantise, weight_bytes
from trainer.config import BaseConfig, parse
from trainer.errors import ConfigError, RunError
from trainer.events import Event, Finished, Notice
from trainer.studio.estimate import BYTES_A_WEIGHT
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.run import create, train

pytest.importorskip("bitsandbytes", reason="installed with the developers' tools")
pytestmark = pytest.mark.model

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(build(request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(build("sd1"), tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(2):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((10, 12 + 5 * index, 50, 60), outline="black", width=4)
        picture.save(folder / f"shape-{index}.png")
    return folder


def opened(folder: Path, how: str, dtype: torch.dtype = torch.float32) -> Base:
    return load_base(BaseConfig(source=str(folder), quantize=how), device=CPU, dtype=dtype)


def answer(base: Base) -> Tensor:
    size = SizeFacts.whole(64, 64)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    conditioning = base.conditioning(base.encode_texts(["a fox", "a hen"]), [size, size])
    return base.predict(latents, torch.tensor([100, 700]), conditioning)


@pytest.mark.parametrize(("how", "bits", "error"), [("nf4", 4.13, 0.1), ("int8", 8.5, 0.01)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_take_the_bits_that_are_promised_and_stay_near(
    how: Any, bits: float, error: float, dtype: torch.dtype
) -> None:
    for layer, given in ((nn.Linear(320, 640), (3, 320)), (nn.Conv2d(64, 96, 3, stride=2, padding=1), (3, 64, 8, 8))):
        model = nn.ModuleList([layer.to(dtype).requires_grad_(False)])
        before, count = layer.weight.float(), layer.weight.numel()
        whole = layer.weight.to(dtype)
        quantise(model, how, device=CPU, dtype=dtype)
        weight = layer.weight
        assert (weight.dtype, weight.shape) == (dtype, before.shape)
        assert float((weight.float() - before).norm() / before.norm()) < error
        assert 8 * (weight_bytes(model) - layer.bias.nbytes) / count == pytest.approx(bits, rel=0.01)
        assert bits / 8 == pytest.approx(BYTES_A_WEIGHT[how])
        x = torch.randn(given).to(dtype).requires_grad_()
        plain = nn.Linear(320, 640) if whole.dim() == 2 else nn.Conv2d(64, 96, 3, stride=2, padding=1)
        plain.to(dtype).load_state_dict({"weight": weight, "bias": layer.bias})
        assert torch.equal(layer(x), plain(x))
        (mine,) = torch.autograd.grad(layer(x).float().square().sum(), x)
        (theirs,) = torch.autograd.grad(plain(x).float().square().sum(), x)
        torch.testing.assert_close(mine, theirs)


def test_a_quantised_base_takes_a_third_at_most_of_its_half_precision(model_folder: Path) -> None:
    """Of bf16 even; of fp32, which a CPU takes, it is twice that."""
    half, nf4 = opened(model_folder, "off", torch.bfloat16), opened(model_folder, "nf4", torch.bfloat16)
    assert weight_bytes(half.denoiser) >= 3 * weight_bytes(nf4.denoiser)
    assert half.identity == nf4.identity, "a style of one is a style of the other"
    assert any("are kept in nf4 and take" in note for note in nf4.notes)
    near = float((answer(nf4) - answer(half)).norm() / answer(half).norm())
    assert 0 < near < 0.5


def test_an_adapter_starts_at_the_quantised_base_and_has_the_gradients_of_its_weights(model_folder: Path) -> None:
    base, wide = opened(model_folder, "nf4"), opened(model_folder, "off")
    for path, module in base.denoiser.named_modules():
        if isinstance(module, Quantised):
            wide.denoiser.get_submodule(path).weight.data.copy_(module.weight)
    quiet = answer(base)
    assert torch.equal(quiet, answer(wide))
    found = []
    # With computing twice and without, and on the widened weights.
    for model, levels in ((base, 0), (base, base.levels), (wide, 0)):
        bank = Bank(model.roots)
        bank.add("it", r".*down_blocks.*\.(to_q|to_v|conv1)", rank=2, seed=1)
        # DoRA looks at the weights themselves, too.
        bank.add("lengths", r".*down_blocks.*\.to_v", rank=2, method="dora", seed=1)
        assert torch.equal(answer(model), quiet)
        model.checkpoint_levels(levels)
        answer(model).square().mean().backward()
        found.append({f"{name}.{key}": p.grad for name in bank.names for key, p in bank.parameters_of(name)})
        if model is base:
            with pytest.raises(RunError, match="is quantised; adapters cannot be merged into it"):
                merge(bank)
        bank.detach()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient)
        torch.testing.assert_close(found[2][key], gradient)
    assert any(gradient is not None and bool(gradient.any()) for gradient in found[0].values())
    assert torch.equal(answer(base), quiet)


class PauseAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def between_steps(self, session: Session) -> Signal:
        return Signal.PAUSE if session.step >= self.step else Signal.GO


def test_a_run_on_a_quantised_base_is_resumed_bit_for_bit_and_verified(
    sd1_folder: Path, images: Path, tmp_path: Path
) -> None:
    settings = parse(
        {
            "name": "ink",
            "base": {"source": str(sd1_folder), "quantize": "nf4"},
            "data": {"images": str(images)},
            "adapter": {"rank": 2},
            "optim": {"batch_size": 1, "learning_rate": 1e-2},
            "train": {"steps": 2, "threads": 1, "checkpoint_every": 1, "device": "cpu"},
            "samples": {"prompts": ["a fox"], "steps": 1, "every": 0},
            "judging": {"enabled": False},
        }
    )
    told: list[Event] = []
    whole = create(settings, tmp_path / "whole")
    train(whole, emit=told.append, control=Uncontrolled())
    assert any(isinstance(event, Notice) and "kept in nf4" in event.text for event in told)
    (finished,) = (event for event in told if isinstance(event, Finished))
    assert any("same picture" in tick for tick in finished.verified)
    halved = create(settings, tmp_path / "halved")
    train(halved, emit=lambda event: None, control=PauseAt(1))
    train(halved, emit=lambda event: None, control=Uncontrolled())
    one, other = (folder.adapter_file.read_bytes() for folder in (whole, halved))
    start = 8 + int.from_bytes(one[:8], "little")
    assert one[start:] == other[8 + int.from_bytes(other[:8], "little") :]
    assert any(one[start:])


def test_the_bundled_base_can_be_quantised_too() -> None:
    base = load_base(BaseConfig(quantize="int8"), device=CPU, dtype=torch.float32)
    assert is_quantised(base.denoiser)
    assert not is_quantised(base.vae)


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "trainer.bases.quantised.find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )
    with pytest.raises(
        ConfigError, match=r"base\.quantize is 'nf4', which needs the package bitsandbytes: pip install"
    ):
        load_base(BaseConfig(quantize="nf4"), device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(("method", "times"), [("lora", 1), ("full", 1), ("bitfit", 1), ("bottleneck", 1), ("dora", 2)])
def test_a_weight_is_widened_no_more_often_than_it_is_needed(
    method: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the layer's own answer; DoRA looks at its lengths, too."""
    model = nn.ModuleList([nn.Sequential(nn.Linear(64, 64))])
    quantise(model, "nf4", device=CPU, dtype=torch.float32)
    bank = Bank({"unet": model})
    bank.add("it", ["unet.0.0"], rank=2, method=method, seed=1)
    asked: list[str] = []
    widened = Quantised.weight.fget
    assert widened is not None
    monkeypatch.setattr(Quantised, "weight", property(lambda self: asked.append(method) or widened(self)))
    model[0](torch.randn(2, 64))
    bank.set_strengths({"it": 0.5})
    assert len(asked) == times
