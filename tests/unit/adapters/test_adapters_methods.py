"""Methods: what the registry knows, and that a method which the bank has never heard of needs nothing but itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from trainer.adapters import methods
from trainer.adapters.bank import Bank, tile
from trainer.adapters.merge import merge, unmerge
from trainer.adapters.methods import METHODS, method_named
from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights
from trainer.config import AdapterConfig
from trainer.config.describe import settings
from trainer.errors import ConfigError

BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
PATHS = [f"{BLOCK}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]


def test_methods_scale_as_their_papers_say() -> None:
    assert method_named("lora").gate_factors(4, 8) == (2.0,) * 4
    assert method_named("rslora").gate_factors(4, 8) == (4.0,) * 4
    empty = {"down": torch.empty(4, 3), "up": torch.empty(2, 4)}
    assert method_named("rslora").weights(empty, 4, 8).scale == 4.0
    assert method_named("lora").weights(empty, 4, 0.1).alpha == 0.1


def test_settings_and_help_come_from_the_registry() -> None:
    setting = settings()["adapter.method"]
    assert setting.choices == tuple(METHODS)
    assert setting.default == "lora" == setting.choices[0]
    for name, method in METHODS.items():
        assert AdapterConfig(method=name).method == name
        assert f"{name!r} {method.summary}" in setting.help
        assert "arXiv" in method.source
    with pytest.raises(ValidationError):
        AdapterConfig(method="lorra")
    with pytest.raises(ConfigError, match=r"adapter\.method is 'lorra', but should be one of lora, "):
        method_named("lorra")


def test_methods_are_known_without_torch() -> None:
    code = "import sys, trainer.adapters.methods; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@dataclass(frozen=True)
class Stretch(Method):
    """Adds ``s * w * y``: no matrices, one gate, a vector that trains, a count that is kept, a mask from the seed."""

    name: ClassVar[str] = "stretch"
    summary: ClassVar[str] = "stretches outputs"
    source: ClassVar[str] = "this test"
    stacks: ClassVar[bool] = False

    def start(self, site: Site) -> Parts:
        out = site.base.weight.shape[0]
        mask = torch.rand(out, generator=site.generator("mask")).round()
        return Parts({"factor": torch.zeros(out)}, kept={"steps": torch.zeros(())}, derived={"mask": mask})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (alpha,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        return y * values["factor"] * values["mask"] * gates.view(-1, *[1] * (y.dim() - 1))

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        row = alpha * values["factor"] * values["mask"]
        return {name: row.view(-1, *[1] * (value.dim() - 1)) * value.float() for name, value in base.named_parameters()}

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        extra = {"factor": values["factor"] * values["mask"]}
        return LayerWeights(torch.empty(0), torch.empty(0), alpha, self.name, extra)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        factor = weights.extra["factor"]
        return Parts({"factor": factor}, derived={"mask": torch.ones_like(factor)})

    def rate_factor(self, part: str) -> float:
        return 5.0

    def penalty(self, layers: Sequence[Values]) -> Tensor:
        return torch.stack([values["factor"].square().sum() for values in layers]).sum()

    def after_step(self, layers: Sequence[Values], step: int, steps: int) -> None:
        for values in layers:
            values["steps"].fill_(step / steps)


@pytest.fixture(autouse=True)
def stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", {**METHODS, "stretch": Stretch})


@pytest.fixture
def bank(unet: Any, awaken: Any) -> Bank:
    """Two stacked adapters and one of the other kind between them."""
    bank = Bank({"unet": unet})
    bank.add("a", PATHS[:3], rank=2, seed=0)
    bank.add("s", PATHS, alpha=0.5, method="stretch", seed=3)
    bank.add("b", PATHS[1:], rank=3, alpha=2, method="rslora", seed=1)
    awaken(bank, "a")
    awaken(bank, "b", seed=2)
    return bank


def widen(bank: Bank, seed: int = 5) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in bank.parameters_of("s"):
            parameter.copy_(torch.randn(parameter.shape, generator=rng))


def test_at_step_0_and_at_strength_0_any_method_is_the_base_bit_for_bit(bank: Bank, inputs: Any, run: Any) -> None:
    unet = bank.roots["unet"]
    with bank.detached():
        base = run(unet, inputs)
    bank.set_strengths({"s": 1.0})
    assert torch.equal(run(unet, inputs), base)
    widen(bank)
    assert not torch.equal(run(unet, inputs), base)
    bank.close()
    assert torch.equal(run(unet, inputs), base)


def test_each_image_gets_its_own_strengths_whatever_the_methods(bank: Bank, make_inputs: Any, run: Any) -> None:
    widen(bank)
    unet, inputs = bank.roots["unet"], make_inputs(batch=4)
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.7, 0.0], [0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])
    bank.set_strengths(rows)
    together = run(unet, inputs)
    for i, row in enumerate(rows):
        bank.set_strengths(row[None])
        alone = run(unet, {key: value[i : i + 1] for key, value in inputs.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    bank.set_strengths(tile(rows[:1]))
    with pytest.raises(ValueError, match="2 rows, but this batch has 4"):
        run(unet, inputs)


@pytest.mark.parametrize("pad_rank", [False, True])
def test_packing_and_padding_leave_other_methods_as_they_are(
    make_unet: Any, awaken: Any, inputs: Any, run: Any, pad_rank: bool
) -> None:
    bank = Bank({"unet": make_unet()}, pad_rank=pad_rank)
    bank.add("s", PATHS, method="stretch", seed=3)
    bank.add("a", PATHS[:2], rank=3, seed=0)
    widen(bank)
    awaken(bank, "a")
    bank.set_strengths({"a": 0.5, "s": 1.5})
    with torch.no_grad():
        plain = run(bank.roots["unet"], inputs)
        with bank.packed():
            torch.testing.assert_close(run(bank.roots["unet"], inputs), plain)


def test_merging_asks_the_method_for_weight_and_bias(bank: Bank, inputs: Any, run: Any) -> None:
    widen(bank)
    unet = bank.roots["unet"]
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    bank.set_strengths({"a": 0.5, "s": 0.8, "b": -1.0})
    wanted = run(unet, inputs)
    merge(bank)
    torch.testing.assert_close(run(unet, inputs), wanted, rtol=1e-4, atol=1e-5)
    unmerge(bank)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_training_hears_of_rates_penalties_and_steps(bank: Bank) -> None:
    widen(bank)
    learning, plain = bank.learning_of("s"), bank.learning_of("a")
    assert {learning.rate_factor(key) for key, _ in bank.parameters_of("s")} == {5.0}
    assert {plain.rate_factor(key) for key, _ in bank.parameters_of("a")} == {1.0}
    penalty = learning.extra_loss()
    assert penalty is not None
    penalty.backward()
    for _, parameter in bank.parameters_of("s"):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * parameter.detach())
    assert plain.extra_loss() is None
    learning.after_step(3, 12)
    plain.after_step(3, 12)
    assert {float(v) for key, v in bank.state_dict_of("s").items() if key.endswith(".steps")} == {0.25}


def test_what_is_kept_is_saved_and_what_is_derived_comes_from_the_seed(bank: Bank, make_unet: Any) -> None:
    widen(bank)
    bank.learning_of("s").after_step(1, 2)
    state = {key: value.clone() for key, value in bank.state_dict_of("s").items()}
    assert {key.rpartition(".")[2] for key in state} == {"factor", "steps"}
    again = Bank({"unet": make_unet()})
    again.add("s", PATHS, alpha=0.5, method="stretch", seed=3)
    again.load_state_of("s", state)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict_of("s").items())
    for path, layer in bank.weights_of("s").items():
        assert torch.equal(again.weights_of("s")[path].extra["factor"], layer.extra["factor"])


def test_weights_of_another_method_are_loaded_by_it(bank: Bank, make_unet: Any, inputs: Any, run: Any) -> None:
    widen(bank)
    bank.set_strengths({"s": 0.9})
    other = Bank({"unet": make_unet()})
    adapter = other.load("taken", bank.weights_of("s"))
    assert adapter.spec.method == "stretch"
    other.set_strengths({"taken": 0.9})
    torch.testing.assert_close(run(other.roots["unet"], inputs), run(bank.roots["unet"], inputs))
    assert torch.equal(
        other.weights_of("taken", {f"{PATHS[0]}.factor": torch.ones(16)})[PATHS[0]].extra["factor"], torch.ones(16)
    )


def test_a_checkpoint_becomes_layers_without_a_base(bank: Bank) -> None:
    layers = method_named("rslora").layers(bank.state_dict_of("b"), 3, 2)
    for path, layer in bank.weights_of("b").items():
        assert torch.equal(layers[path].up, layer.up)
        assert layers[path].alpha == layer.alpha
