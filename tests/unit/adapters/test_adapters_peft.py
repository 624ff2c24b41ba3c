"""The same A, B and alpha give PEFT's outputs and PEFT's gradients."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.adapters.bank import Bank

SETTINGS: dict[str, dict[str, Any]] = {
    "one": {"targets": "cross", "rank": 4, "alpha": 6.0, "method": "lora"},
    "two": {"targets": "all-linear", "rank": 3, "alpha": 2.0, "method": "rslora"},
    "conv": {
        "targets": r".*\.attn2\.to_v|.*\.resnets\.0\.conv1|.*\.proj_in",
        "rank": 2,
        "alpha": 2.0,
        "method": "lora",
    },
}


def pair(make_unet: Any, awaken: Any, names: list[str]) -> tuple[nn.Module, Bank, nn.Module]:
    """Our UNet with its bank, and a copy with PEFT's layers holding the same adapters."""
    from peft import LoraConfig, inject_adapter_in_model

    ours, theirs = make_unet(), make_unet()
    bank = Bank({"unet": ours})
    for seed, name in enumerate(names):
        settings = SETTINGS[name]
        adapter = bank.add(name, seed=seed, **settings)
        awaken(bank, name, seed + 1)
        config = LoraConfig(
            r=settings["rank"],
            lora_alpha=settings["alpha"],
            use_rslora=settings["method"] == "rslora",
            target_modules=[path.removeprefix("unet.") for path in adapter.spec.targets],
        )
        with warnings.catch_warnings():
            # PEFT warns that a second adapter joins the first, which is the point.
            warnings.simplefilter("ignore")
            inject_adapter_in_model(config, theirs, adapter_name=name)
        for key, value in bank.state_dict_of(name).items():
            path, side = key.removeprefix("unet.").rsplit(".", 1)
            layer = theirs.get_submodule(path)
            stack = layer.lora_A if side == "down" else layer.lora_B
            stack[name].weight.data.copy_(value)
    return ours, bank, theirs


def activate(model: nn.Module, names: list[str]) -> None:
    """Make these PEFT adapters the active ones, all of them trainable."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter([name for name in names if name in module.lora_A])
            for key, parameter in module.named_parameters():
                parameter.requires_grad_("lora_" in key)


def gradients_of(theirs: nn.Module, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, parameter in theirs.named_parameters():
        for stack, side in ((f".lora_A.{name}.weight", "down"), (f".lora_B.{name}.weight", "up")):
            if key.endswith(stack) and parameter.grad is not None:
                found[f"unet.{key.removesuffix(stack)}.{side}"] = parameter.grad
    return found


@pytest.mark.parametrize("name", list(SETTINGS))
def test_one_adapter_matches_peft(make_unet: Any, make_inputs: Any, run: Any, awaken: Any, name: str) -> None:
    ours, bank, theirs = pair(make_unet, awaken, [name])
    inputs = make_inputs(2)
    activate(theirs, [name])
    expected, actual = run(theirs, inputs), run(ours, inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    expected.square().mean().backward()
    actual.square().mean().backward()
    gradients = gradients_of(theirs, name)
    assert len(gradients) == len(bank.parameters_of(name)) > 0
    for key, parameter in bank.parameters_of(name):
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-5, atol=1e-5, msg=key)


def test_a_batch_that_mixes_adapters_matches_peft_run_row_by_row(
    make_unet: Any, make_inputs: Any, run: Any, awaken: Any
) -> None:
    names = list(SETTINGS)
    ours, bank, theirs = pair(make_unet, awaken, names)
    inputs = make_inputs(len(names) + 1)
    bank.set_strengths(torch.cat([torch.eye(len(names)), torch.ones(1, len(names))]))
    actual = run(ours, inputs)
    rows = []
    for i, active in enumerate([*([name] for name in names), names]):
        with warnings.catch_warnings():
            # PEFT remarks that a layer without an active adapter has none.
            warnings.simplefilter("ignore")
            activate(theirs, active)
        row = run(theirs, {key: value[i : i + 1] for key, value in inputs.items()})
        row.square().sum().backward()
        rows.append(row.detach())
    torch.testing.assert_close(actual, torch.cat(rows), rtol=1e-5, atol=1e-5)
    actual.square().sum().backward()
    for name in names:
        gradients = gradients_of(theirs, name)
        for key, parameter in bank.parameters_of(name):
            scale = float(gradients[key].abs().max())
            torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-5, atol=1e-5 * max(1, scale), msg=key)
