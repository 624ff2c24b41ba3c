"""The bank: strengths per image, several adapters at once, and every way a forward pass is run."""

from __future__ import annotations

import copy
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


def test_gradients_survive_checkpointing(make_unet: Any, make_inputs: Any, run: Any, awaken: Any) -> None:
    grads = []
    inputs = make_inputs(3)
    for checkpointing in (False, True):
        unet = make_unet()
        unet.train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        bank = Bank({"unet": unet})
        bank.add("a", "all-linear", rank=4, dropout=0.5, seed=0)
        bank.add("b", "cross", rank=2, seed=1)
        awaken(bank, "a", 1)
        awaken(bank, "b", 2)
        bank.set_strengths(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 2.0]]))
        torch.manual_seed(5)
        run(unet, inputs).square().mean().backward()
        grads.append({key: p.grad for name in "ab" for key, p in bank.parameters_of(name)})
    for key, plain in grads[0].items():
        assert plain is not None
        torch.testing.assert_close(grads[1][key], plain, rtol=1e-5, atol=1e-7, msg=key)


def test_an_adapter_that_no_row_opens_gets_no_gradient(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    for seed, name in enumerate("ab"):
        bank.add(name, "cross", rank=2, seed=seed)
        awaken(bank, name, seed)
    bank.set_strengths({"a": 1.0})
    run(unet, inputs).square().mean().backward()
    assert any(p.grad.any() for _, p in bank.parameters_of("a"))
    assert not any(p.grad.any() for _, p in bank.parameters_of("b"))


def test_changing_strengths_before_backward_is_an_error(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    awaken(bank, "a")
    loss = run(unet, inputs).sum()
    bank.set_strengths({"a": 0.5})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("targets", ["attention", CONV_TOO])
def test_autocast_and_half_precision_bases_stay_close(
    make_unet: Any, make_inputs: Any, run: Any, awaken: Any, targets: str
) -> None:
    unet, inputs = make_unet(), make_inputs(2)
    bank = Bank({"unet": unet})
    bank.add("a", targets, rank=4, seed=0)
    base = copy.deepcopy(unet)
    awaken(bank, "a", size=0.1)
    exact = run(unet, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(unet, inputs)
        bank.close()
        assert torch.equal(run(unet, inputs), run(base, inputs))
    assert mixed.dtype == torch.bfloat16
    effect = (exact - run(base, inputs)).norm()
    assert (mixed.float() - exact).norm() < 0.15 * effect

    bank.set_strengths({"a": 1.0})
    unet.to(torch.bfloat16)
    assert all(p.dtype == torch.float32 for _, p in bank.parameters_of("a"))
    assert all(layer.gates.dtype == torch.float32 for layer in bank.layers.values())
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    output = run(unet, half)
    assert output.dtype == torch.bfloat16
    assert (output.float() - exact).norm() < 0.2 * effect
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for _, p in bank.parameters_of("a"))


def test_casting_down_and_up_again_keeps_every_bit_of_an_adapter(unet: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=4, seed=0)
    before = {key: value.clone() for key, value in bank.state_dict_of("a").items()}
    unet.half().float()
    assert all(torch.equal(before[key], value) for key, value in bank.state_dict_of("a").items())


def test_channels_last_gives_the_same_picture(make_unet: Any, make_inputs: Any, run: Any, awaken: Any) -> None:
    unet, inputs = make_unet(), make_inputs(2)
    bank = Bank({"unet": unet})
    bank.add("a", CONV_TOO, rank=4, seed=0)
    awaken(bank, "a")
    before = run(unet, inputs)
    unet.to(memory_format=torch.channels_last)
    inputs["sample"] = inputs["sample"].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(run(unet, inputs), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_new_strengths_do_not_recompile(packed: bool, awaken: Any) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(6, 6), nn.Conv2d(2, 2, 1)).eval()
    bank = Bank({"unet": model}, pad_rank=packed)
    bank.add("a", ["unet.0"], rank=3, seed=0)
    bank.add("b", ["unet.0"], rank=2, seed=0)
    awaken(bank, "a")
    awaken(bank, "b")
    counter = torch._dynamo.testing.CompileCounter()
    layer = bank.layers["unet.0"]
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    x = torch.randn(2, 5, 6)
    with torch.no_grad(), bank.packed() if packed else torch.no_grad():
        for strengths in ([1.0, 0.0], [0.0, 1.0], [0.3, 0.7]):
            bank.set_strengths(torch.tensor([strengths]))
            torch.testing.assert_close(compiled(x), layer(x))
        assert counter.frame_count == 1
    if packed:
        bank.add("c", ["unet.0"], rank=3, seed=0)
        awaken(bank, "c")
        with torch.no_grad(), bank.packed():
            torch.testing.assert_close(compiled(x), layer(x))
        assert counter.frame_count == 1, "another adapter within the padded rank must not compile again"
    torch._dynamo.reset()


def test_padding_and_packing_change_nothing(make_unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    pictures = []
    for pad in (False, True):
        unet = make_unet()
        bank = Bank({"unet": unet}, pad_rank=pad)
        bank.add("a", CONV_TOO, rank=3, seed=0)
        bank.add("b", "cross", rank=6, seed=1)
        awaken(bank, "a", 1)
        awaken(bank, "b", 2)
        bank.set_strengths({"a": 0.4, "b": 0.9})
        widths = {layer.width for layer in bank.layers.values()}
        assert widths == ({8, 16} if pad else {3, 6, 9})
        with torch.no_grad():
            pictures.append(run(unet, inputs))
            with bank.packed():
                pictures.append(run(unet, inputs))
    for picture in pictures[1:]:
        torch.testing.assert_close(picture, pictures[0], rtol=1e-5, atol=1e-5)


def test_packed_factors_are_left_when_the_context_ends(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=3, seed=0)
    with torch.no_grad():
        base = run(unet, inputs)
        with bank.packed():
            awaken(bank, "a")
            assert torch.equal(run(unet, inputs), base)
        assert not torch.equal(run(unet, inputs), base)


def test_guidance_batches_tile_the_strengths() -> None:
    assert tile(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [1.0], [0.0], [1.0]]


def test_a_wrong_number_of_rows_is_named(unet: Any, inputs: Any, run: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    bank.set_strengths(torch.ones(3, 1))
    with pytest.raises(ValueError, match="strengths have 3 rows, but this batch has 2"):
        run(unet, inputs)
    with pytest.raises(ValueError, match=r"should be \(rows, 1\)"):
        bank.set_strengths(torch.ones(2, 2))


def test_dropout_acts_in_training_only_and_follows_the_global_generator(make_unet: Any, inputs: Any, run: Any) -> None:
    unet = make_unet()
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=8, dropout=0.5, seed=0)
    with torch.no_grad():
        for key, parameter in bank.parameters_of("a"):
            if key.endswith(".up"):
                parameter.fill_(0.05)
        quiet = run(unet, inputs)
        assert torch.equal(run(unet, inputs), quiet)
        unet.train()
        outputs = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            outputs.append(run(unet, inputs))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], quiet)


def test_dropout_keeps_the_expected_update() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    bank = Bank({"unet": model})
    adapter = bank.add("a", ["unet.0"], rank=4, dropout=0.25, seed=0)
    with torch.no_grad():
        for _, parameter in adapter.parameters:
            parameter.copy_(torch.eye(4))
        model.train()
        x = torch.ones(20_000, 4)
        update = model(x) - bank.layers["unet.0"].base(x)
    torch.manual_seed(0)
    assert {round(v, 4) for v in update.unique().tolist()} >= {0.0, round(1 / 0.75, 4)}
    assert abs(float(update.mean()) - 1) < 0.02


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


def test_strengths_written_in_inference_mode_can_be_trained_with_later(
    unet: Any, inputs: Any, run: Any, awaken: Any
) -> None:
    bank = Bank({"unet": unet})
    with torch.inference_mode():
        bank.add("a", "cross", rank=2, seed=0)
        bank.set_strengths(torch.tensor([[0.2], [0.9]]))
        run(unet, inputs)
    awaken(bank, "a")
    bank.set_strengths({"a": 1.0})
    run(unet, inputs).sum().backward()
    assert all(p.grad is not None for _, p in bank.parameters_of("a"))


def test_strengths_reach_layers_whose_buffers_were_replaced(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    awaken(bank, "a")
    bank.set_strengths({"a": 0.3})
    expected = run(unet, inputs)
    bank.set_strengths({"a": 1.0})
    # What moving a model to another device and back does.
    unet._apply(lambda tensor: tensor.clone())
    bank.set_strengths({"a": 0.3})
    assert torch.equal(run(unet, inputs), expected)


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
        ({"method": "dora"}, "adapter.method is 'dora'"),
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
