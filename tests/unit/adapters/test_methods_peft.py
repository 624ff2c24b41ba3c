"""Methods of the family answer and learn as PEFT's own implementations of them do."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.adapters.bank import Bank


class Model(nn.Module):
    """A linear layer and a convolution, and what they answer side by side."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fc = nn.Linear(12, 10)
            self.conv = nn.Conv2d(4, 9, 3, stride=2, padding=1)

    def forward(self, rows: Tensor, pictures: Tensor) -> Tensor:
        return torch.cat([self.fc(rows).flatten(1), self.conv(pictures).flatten(1)], dim=1)


def inputs() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(3, 5, 12, generator=rng), torch.randn(3, 4, 6, 6, generator=rng)


def compare(bank: Bank, theirs: nn.Module, same: dict[str, nn.Parameter | Tensor]) -> None:
    """Give PEFT's parameters, by our keys, the bank's values; then both must answer and learn alike."""
    rng = torch.Generator().manual_seed(7)
    ours = dict(bank.parameters_of("it"))
    assert ours.keys() == same.keys()
    with torch.no_grad():
        for key, parameter in ours.items():
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.2)
            same[key].requires_grad_(True).copy_(parameter.view(same[key].shape))
    answers = [bank.roots["unet"](*inputs()), theirs(*inputs())]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-5, atol=1e-5)
    for answer in answers:
        answer.square().mean().backward()
    for key, parameter in ours.items():
        wanted = same[key].grad
        assert wanted is not None
        torch.testing.assert_close(parameter.grad, wanted.view(parameter.shape), rtol=1e-5, atol=1e-5, msg=key)


def injected(config: Any) -> nn.Module:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = inject_adapter_in_model(config, Model(), adapter_name="it")
    return made


@pytest.mark.parametrize("method", ["lora", "rslora", "lora+", "dora"])
def test_lora_and_dora_learn_as_in_peft(method: str) -> None:
    from peft import LoraConfig

    bank = Bank({"unet": Model()})
    bank.add("it", ["unet.fc", "unet.conv"], rank=2, alpha=3.0, method=method, seed=1)
    theirs = injected(
        LoraConfig(
            r=2,
            lora_alpha=3,
            target_modules=["fc", "conv"],
            use_rslora=method == "rslora",
            use_dora=method == "dora",
        )
    )
    same = {}
    for path in ("fc", "conv"):
        layer = theirs.get_submodule(path)
        same[f"unet.{path}.down"] = layer.lora_A["it"].weight
        same[f"unet.{path}.up"] = layer.lora_B["it"].weight
        if method == "dora":
            same[f"unet.{path}.magnitude"] = layer.lora_magnitude_vector["it"].weight
    compare(bank, theirs, same)


def test_lora_fa_learns_the_b_of_lora() -> None:
    frozen, whole = Bank({"unet": Model()}), Bank({"unet": Model()})
    for bank, method in ((frozen, "lora-fa"), (whole, "lora")):
        bank.add("it", ["unet.fc", "unet.conv"], rank=2, method=method, seed=1)
        bank.roots["unet"](*inputs()).square().mean().backward()
    wanted = dict(whole.parameters_of("it"))
    for key, parameter in frozen.parameters_of("it"):
        assert float(parameter.grad.abs().max()) > 0
        torch.testing.assert_close(parameter.grad, wanted[key].grad, rtol=0, atol=1e-7)


def test_adalora_learns_as_in_peft() -> None:
    from peft import AdaLoraConfig

    bank = Bank({"unet": Model()})
    bank.add("it", ["unet.fc", "unet.conv"], rank=2, alpha=3.0, method="adalora", seed=1)
    # PEFT divides alpha by the rank at the start, ours by the rank in the end.
    theirs = injected(AdaLoraConfig(init_r=3, target_r=2, lora_alpha=4.5, total_step=10, target_modules=["fc", "conv"]))
    same = {}
    for path in ("fc", "conv"):
        layer = theirs.get_submodule(path)
        same[f"unet.{path}.right"] = layer.lora_A["it"]
        same[f"unet.{path}.sizes"] = layer.lora_E["it"]
        same[f"unet.{path}.left"] = layer.lora_B["it"]
    compare(bank, theirs, same)


def test_vera_learns_as_in_peft() -> None:
    from peft import VeraConfig, get_peft_model

    bank = Bank({"unet": Model()})
    bank.add("it", ["unet.fc"], rank=2, method="vera", seed=1)
    # PEFT's VeRA shares its matrices through the object that wraps the model.
    theirs = get_peft_model(Model(), VeraConfig(r=2, target_modules=["fc"]), adapter_name="it")
    layer, shared = theirs.get_submodule("base_model.model.fc"), bank.layers["unet.fc"].shares[0].values()
    layer.vera_A["it"].copy_(shared["shared_down"])
    layer.vera_B["it"].copy_(shared["shared_up"])
    compare(
        bank,
        theirs,
        {"unet.fc.directions": layer.vera_lambda_d["it"], "unet.fc.outputs": layer.vera_lambda_b["it"]},
    )
