"""The gated layers under every way that a forward pass is run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from trainer.adapters.bank import Bank

CONV_TOO = r".*\.attn2\.to_q|.*\.conv1"


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
