"""Compiled blocks compute what was written, previews go around them, and the choice is by measuring.

The compiler's own back end stands aside here (``eager``): what is held is that tracing changes nothing and that the
adapter's gates and parameters stay live in the traced blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.compiling import as_written, can_compile, compile_blocks, uncompile
from trainer.bases.open import load_base
from trainer.config import BaseConfig, RunConfig, parse
from trainer.errors import DeviceError
from trainer.training import fitting
from trainer.training.fitting import Measured

# torch's own compiler defines functions in a way that torch calls deprecated, and looks at every tensor's gradient.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute of a Tensor:UserWarning"
)


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(BaseConfig(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def bank(base: Base) -> Iterator[Bank]:
    bank = Bank(base.roots)
    bank.add("style", "cross", rank=2, seed=1)
    with torch.no_grad():
        for name, parameter in bank.parameters_of("style"):
            if "up" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    yield bank
    uncompile(base.denoiser)
    bank.detach()


def answer(base: Base, bank: Bank, strength: float) -> torch.Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    bank.set_strengths({"style": strength})
    hidden = torch.randn(1, 16, 192, generator=torch.Generator().manual_seed(1))
    result: torch.Tensor = base.denoiser(latents, torch.tensor([500]), encoder_hidden_states=hidden).sample
    return result


def compiled_blocks(base: Base) -> int:
    return sum(module._compiled_call_impl is not None for module in base.denoiser.modules())


@pytest.mark.slow
def test_compiled_blocks_answer_as_written_ones_for_every_strength(base: Base, bank: Bank) -> None:
    with torch.no_grad():
        plain = [answer(base, bank, strength) for strength in (0.0, 1.0, -0.5)]
        compile_blocks(base.denoiser, backend="eager")
        assert compiled_blocks(base) == 7
        for expected, strength in zip(plain, (0.0, 1.0, -0.5), strict=True):
            torch.testing.assert_close(answer(base, bank, strength), expected)


def test_gradients_reach_the_adapter_through_compiled_blocks(base: Base, bank: Bank) -> None:
    parameters = [parameter for _, parameter in bank.parameters_of("style")]
    expected = torch.autograd.grad(answer(base, bank, 1.0).square().mean(), parameters)
    compile_blocks(base.denoiser, backend="eager")
    found = torch.autograd.grad(answer(base, bank, 1.0).square().mean(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_previews_run_as_written_and_the_compiled_blocks_are_still_there_afterwards(base: Base) -> None:
    compile_blocks(base.denoiser, backend="eager")
    with as_written(base.denoiser):
        assert compiled_blocks(base) == 0
    assert compiled_blocks(base) == 7
    uncompile(base.denoiser)
    assert compiled_blocks(base) == 0


class Session:
    """As much of a training as the choice looks at."""

    def __init__(self, base: Base, steps: int) -> None:
        self.base = base
        self.settings: Any = type("Settings", (), {"steps": steps})
        self.batches: Any = type("Batches", (), {"buckets": 1})
        self.bank: Any = type("Bank", (), {"layers": {}})
        self.optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])


Choose = Callable[..., tuple[RunConfig, Measured]]


@pytest.fixture
def choose(base: Base, monkeypatch: pytest.MonkeyPatch) -> Iterator[Choose]:
    """The choice on a machine that can compile, with given times of a step."""
    monkeypatch.setattr(fitting, "can_compile", lambda device: True)
    monkeypatch.setattr(fitting, "compile_blocks", partial(compile_blocks, backend="eager"))

    def run(wish: str, *, plain: float, compiled: float, steps: int = 1000) -> tuple[RunConfig, Measured]:
        monkeypatch.setattr(fitting, "measure", lambda trainer: Measured(compiled, 10))
        config = parse({"train": {"compile": wish}})
        session: Any = Session(base, steps)
        return fitting._compiled_if_faster(config, session, Measured(plain, 10), None)

    yield run
    uncompile(base.denoiser)


@pytest.mark.parametrize(
    ("wish", "plain", "compiled", "steps", "expected"),
    [
        ("auto", 1.0, 0.8, 1000, "blocks"),
        ("auto", 1.0, 1.1, 1000, "off"),
        ("auto", 1.0, 0.8, 10, "off"),
        ("off", 1.0, 0.5, 1000, "off"),
        ("blocks", 1.0, 1.5, 10, "blocks"),
    ],
)
def test_the_faster_way_is_kept_and_written_down(
    choose: Choose, base: Base, wish: str, plain: float, compiled: float, steps: int, expected: str
) -> None:
    config, measured = choose(wish, plain=plain, compiled=compiled, steps=steps)
    assert config.train.compile == expected
    assert measured.seconds_per_step == (compiled if expected == "blocks" else plain)
    assert (compiled_blocks(base) > 0) == (expected == "blocks")


def test_compiling_is_not_tried_on_a_processor(base: Base) -> None:
    assert not can_compile(base.device)
    session: Any = Session(base, steps=10**6)
    chosen, _ = fitting._compiled_if_faster(parse({}), session, Measured(1.0, 10), None)
    assert chosen.train.compile == "off"
    with pytest.raises(DeviceError, match=r"train\.compile is 'blocks'"):
        fitting._compiled_if_faster(parse({"train": {"compile": "blocks"}}), session, Measured(1.0, 10), None)


def test_a_compiler_that_fails_is_gone_around_unless_it_was_asked_for(
    base: Base, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(trainer: object) -> Measured:
        raise RuntimeError("Failed to find C compiler.\nMore lines.")

    plain = Measured(1.0, 10)
    for wish in ("auto", "blocks"):
        session: Any = Session(base, 1000)
        monkeypatch.setattr(fitting, "measure", fails)
        config = parse({"train": {"compile": wish}})
        if wish == "auto":
            assert fitting._compiled_if_faster(config, session, plain, None)[1] is plain
        else:
            with pytest.raises(DeviceError, match=r"fails here \(Failed to find C compiler\.\)"):
                fitting._compiled_if_faster(config, session, plain, None)
        assert compiled_blocks(base) == 0
