"""The bank: strengths per image, several adapters at once, their states, and putting everything back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from trainer.adapters.bank import Bank, GatedConv2d, GatedLinear, tile
from trainer.adapters.layers import GatedLayer
from trainer.adapters.targets import select
from trainer.errors import ConfigError, RunError

CONV_TOO = r".*\.attn2\.to_q|.*\.conv1"


def test_an_untrained_adapter_changes_no_bit(unet: Any, inputs: Any, run: Any) -> None:
    before = run(unet, inputs)
    bank = Bank({"unet": unet})
    bank.add("a", "all-linear", rank=4, seed=0)
    assert len(bank.layers) == 10 * 4
    assert torch.equal(run(unet, inputs), before)


def test_strength_zero_changes_no_bit(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    before = run(unet, inputs)
    bank = Bank({"unet": unet})
    for name in "ab":
        bank.add(name, CONV_TOO, rank=3, seed=0)
        awaken(bank, name)
    assert not torch.allclose(run(unet, inputs), before, atol=1e-3)
    bank.close()
    assert torch.equal(run(unet, inputs), before)
    bank.set_strengths({"a": 0.0})
    assert torch.equal(run(unet, inputs), before)


def test_rows_of_a_batch_have_strengths_of_their_own(unet: Any, make_inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", CONV_TOO, rank=2, seed=0)
    bank.add("b", "all-linear", rank=5, alpha=3, method="rslora", seed=1)
    awaken(bank, "a", 1)
    awaken(bank, "b", 2)
    inputs = make_inputs(4)
    rows = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.7, -0.4]]
    bank.set_strengths(torch.tensor(rows))
    together = run(unet, inputs)
    for i, (a, b) in enumerate(rows):
        bank.set_strengths({"a": a, "b": b})
        alone = run(unet, {key: value[i : i + 1] for key, value in inputs.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_a_blend_is_the_sum_of_scaled_updates(awaken: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 7))
    bank = Bank({"unet": model})
    first = bank.add("first", ["unet.0"], rank=2, alpha=4, seed=0)
    second = bank.add("second", ["unet.0"], rank=5, alpha=2, method="rslora", seed=0)
    awaken(bank, "first", 1)
    awaken(bank, "second", 2)
    bank.set_strengths({"first": 0.5, "second": -1.5})
    x = torch.randn(3, 4, 6)
    a, b = dict(first.parameters), dict(second.parameters)
    update = 0.5 * (4 / 2) * b_times_a(a) - 1.5 * (2 / 5**0.5) * b_times_a(b)
    layer = bank.layers["unet.0"].base
    expected = x @ (layer.weight + update).T + layer.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def b_times_a(parameters: dict[str, nn.Parameter]) -> torch.Tensor:
    return parameters["unet.0.up"].detach() @ parameters["unet.0.down"].detach()


def test_the_start_depends_on_seed_and_path_alone(make_unet: Any) -> None:
    first = Bank({"unet": make_unet()})
    first.add("other", "self", rank=3, seed=9)
    torch.manual_seed(1)
    first.add("style", "cross", rank=4, seed=7)
    second = Bank({"unet": make_unet()})
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second.add("style", list(reversed(first["style"].spec.targets)), rank=4, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    ours, theirs = first.state_dict_of("style"), second.state_dict_of("style")
    assert list(ours) == sorted(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    third = Bank({"unet": make_unet()})
    third.add("style", "cross", rank=4, seed=8)
    key = next(key for key in ours if key.endswith(".down"))
    assert not torch.equal(ours[key], third.state_dict_of("style")[key])


def test_the_start_is_that_of_peft(make_unet: Any) -> None:
    bank = Bank({"unet": make_unet()})
    bank.add("style", "cross", rank=8, seed=0)
    for key, value in bank.state_dict_of("style").items():
        if key.endswith(".up"):
            assert not value.any()
        else:
            bound = value.shape[1] ** -0.5
            assert bound * 0.9 < float(value.abs().max()) <= bound


def test_an_adapter_that_no_row_opens_gets_no_gradient(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    for seed, name in enumerate("ab"):
        bank.add(name, "cross", rank=2, seed=seed)
        awaken(bank, name, seed)
    bank.set_strengths({"a": 1.0})
    run(unet, inputs).square().mean().backward()
    assert any(p.grad.any() for _, p in bank.parameters_of("a"))
    assert not any(p.grad.any() for _, p in bank.parameters_of("b"))


def test_guidance_batches_tile_the_strengths() -> None:
    assert tile(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [1.0], [0.0], [1.0]]


def test_removing_an_adapter_leaves_the_others(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    original = dict(unet.named_modules())
    bank = Bank({"unet": unet})
    for seed, (name, targets) in enumerate({"a": "cross", "b": "attention", "c": "cross"}.items()):
        bank.add(name, targets, rank=2 + seed, seed=seed)
        awaken(bank, name, seed)
    bank.set_strengths({"a": 0.5, "c": 0.25})
    expected = run(unet, inputs)
    bank.remove("b")
    assert bank.names == ("a", "c")
    assert bank.strengths.tolist() == [[0.5, 0.25]]
    torch.testing.assert_close(run(unet, inputs), expected, rtol=1e-5, atol=1e-6)
    assert not any("attn1" in path for path in bank.layers)
    bank.remove("a")
    bank.remove("c")
    assert dict(unet.named_modules()) == original


def test_detaching_leaves_the_very_model_that_was_there(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    before = run(unet, inputs)
    modules, state = dict(unet.named_modules()), {k: v.clone() for k, v in unet.state_dict().items()}
    bank = Bank({"unet": unet})
    bank.add("a", CONV_TOO, rank=2, seed=0)
    awaken(bank, "a")
    bank.detach()
    assert dict(unet.named_modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())
    assert torch.equal(run(unet, inputs), before)
    assert bank.names == ()


def test_detached_for_a_while_the_base_is_bare_and_then_the_style_is_back(
    unet: Any, inputs: Any, run: Any, awaken: Any
) -> None:
    base = run(unet, inputs)
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    awaken(bank, "a")
    bank.set_strengths({"a": 0.7})
    styled = run(unet, inputs)
    with bank.detached():
        assert not any(isinstance(module, GatedLayer) for module in unet.modules())
        assert torch.equal(run(unet, inputs), base)
    assert torch.equal(run(unet, inputs), styled)


def test_a_second_bank_on_the_same_model_is_refused(unet: Any) -> None:
    Bank({"unet": unet}).add("a", "cross", rank=2, seed=0)
    with pytest.raises(ValueError, match="another bank"):
        Bank({"unet": unet})


def test_states_come_back_exactly_and_misfits_are_named(make_unet: Any, awaken: Any) -> None:
    first, second = Bank({"unet": make_unet()}), Bank({"unet": make_unet()})
    first.add("a", "cross", rank=3, seed=0)
    second.add("a", "cross", rank=3, seed=1)
    awaken(first, "a")
    second.load_state_of("a", first.state_dict_of("a"))
    assert all(torch.equal(v, second.state_dict_of("a")[k]) for k, v in first.state_dict_of("a").items())
    state = first.state_dict_of("a")
    key = min(state)
    with pytest.raises(RunError, match="should be"):
        second.load_state_of("a", state | {key: state[key][:1]})
    with pytest.raises(RunError, match="on one side only"):
        second.load_state_of("a", {k: v for k, v in state.items() if k != key})


def test_each_model_may_see_batches_of_its_own(make_unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    text = nn.Sequential(nn.Linear(3, 3))
    bank = Bank({"unet": make_unet(), "te": text})
    paths = [f"unet.{path}" for path in select(bank.roots["unet"], "cross")]
    bank.add("a", [*paths, "te.0"], rank=2, seed=0)
    awaken(bank, "a")
    x = torch.randn(5, 4, 3)
    styled = text(x)
    bank.set_strengths(torch.tensor([[0.0], [1.0]]), roots=["unet"])
    bank.set_strengths(torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]]), roots=["te"])
    assert torch.equal(text(x)[4], styled[4])
    assert torch.equal(text(x)[:4], bank.layers["te.0"].base(x)[:4])
    run(bank.roots["unet"], inputs)
    assert bank.strengths.shape == (2, 1)
    assert bank.strengths_of("te").shape == (5, 1)


def test_held_strengths_come_back(unet: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    bank.set_strengths(torch.tensor([[0.1], [0.2]]))
    with bank.strengths_held():
        bank.close()
    torch.testing.assert_close(bank.strengths, torch.tensor([[0.1], [0.2]]))


def test_wrappers_look_like_the_layers_they_wrap() -> None:
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Conv2d(2, 4, 3, stride=2, padding=1))
    bank = Bank({"unet": model})
    bank.add("a", ["unet.0", "unet.1"], rank=2, seed=0)
    linear, conv = bank.layers["unet.0"], bank.layers["unet.1"]
    assert isinstance(linear, GatedLinear)
    assert isinstance(conv, GatedConv2d)
    assert (linear.in_features, linear.out_features, linear.bias) == (3, 5, None)
    assert linear.weight is linear.base.weight
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride) == (2, 4, (3, 3), (2, 2))
    assert conv(torch.zeros(1, 2, 6, 6)).shape == (1, 4, 3, 3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank": 0}, "adapter.rank is 0"),
        ({"rank": 1000}, "has room for"),
        ({"alpha": -1.0}, "adapter.alpha is -1.0"),
        ({"alpha": float("nan")}, "adapter.alpha is nan"),
        ({"dropout": 1.0}, "adapter.dropout is 1.0"),
        ({"method": "nora"}, "adapter.method is 'nora'"),
        ({"targets": ["unet.nowhere"]}, "which this base does not have"),
        ({"targets": ["te.encoder"]}, "no model 'te'"),
        ({"targets": ["unet.conv_norm_out"]}, "cannot be adapted"),
    ],
)
def test_impossible_settings_are_refused_by_name(unet: Any, settings: dict[str, Any], sentence: str) -> None:
    modules = dict(unet.named_modules())
    with pytest.raises(ConfigError, match=sentence):
        Bank({"unet": unet}).add("a", **{"targets": "cross", "rank": 2, "seed": 0} | settings)
    assert dict(unet.named_modules()) == modules


def test_unknown_names_are_refused(unet: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    with pytest.raises(ConfigError, match="already"):
        bank.add("a", "cross", rank=2, seed=0)
    with pytest.raises(ConfigError, match="no adapter 'b' here; loaded: a"):
        bank.set_strengths({"b": 1.0})
    with pytest.raises(ConfigError, match="finite"):
        bank.set_strengths({"a": float("inf")})
    with pytest.raises(ConfigError, match="no adapter 'b'"):
        bank.remove("b")
