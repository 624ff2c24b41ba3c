"""What frozen layers keep for the way back: less than diffusers' own, with the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from tiny_families import build
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from trainer.adapters.bank import Bank
from trainer.bases.lean import LeanGEGLU, make_lean

pytestmark = pytest.mark.model


def trained(unet: Any, levels: int) -> tuple[int, Tensor, list[Tensor]]:
    """Bytes that a pass keeps beside weights, its answer, and the gradients of an adapter on every linear layer."""
    bank = Bank({"unet": unet})
    bank.add("style", "all-linear", rank=2, seed=1)
    for name, parameter in bank.parameters_of("style"):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    bank.set_strengths({"style": 1.0})
    if levels:
        unet.enable_gradient_checkpointing()
        unet.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 7, unet.config.cross_attention_dim, generator=generator)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = unet(latents, torch.tensor([100, 700]), states, return_dict=False)[0]
    answer.square().mean().backward()
    gradients = [parameter.grad for _, parameter in bank.parameters_of("style")]
    bank.detach()
    unet.disable_gradient_checkpointing()
    unet.eval()
    own = sum(size for place, size in kept.items() if place not in weights)
    return own, answer.detach(), [g for g in gradients if g is not None]


@pytest.mark.parametrize("levels", [0, 4])
def test_lean_layers_keep_less_and_give_the_same_bits(levels: int) -> None:
    unet = build("sd1").unet
    kept, answer, gradients = trained(unet, levels)
    make_lean(unet)
    assert any(isinstance(module, LeanGEGLU) for module in unet.modules())
    less, same, equal = trained(unet, levels)
    assert torch.equal(same, answer)
    assert len(gradients) > 100
    assert all(torch.equal(a, b) for a, b in zip(gradients, equal, strict=True))
    assert levels or less < 0.95 * kept


def test_a_gate_keeps_what_comes_in_and_nothing_else() -> None:
    layer = nn.Sequential(GEGLU(32, 128).requires_grad_(False))
    x = torch.randn(2, 9, 32, requires_grad=True)
    kept: list[int] = []
    make_lean(layer)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        layer(x)
    assert [count for count in kept if count != layer[0].proj.weight.numel()] == [2 * 9 * 256]
