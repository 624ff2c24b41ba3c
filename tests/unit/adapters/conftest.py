"""Tiny models of the real classes, and adapters whose update is not zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.adapters.bank import Bank

TEXT_WIDTH = 24


def build_unet(**changes: Any) -> nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(**(settings | changes)).requires_grad_(False).eval()


def build_inputs(batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, 4, 8, 8, generator=rng),
        "timestep": torch.randint(0, 1000, (batch,), generator=rng),
        "encoder_hidden_states": torch.randn(batch, 5, TEXT_WIDTH, generator=rng),
    }


def wake(bank: Bank, name: str, seed: int = 1, size: float = 0.3) -> None:
    """Give an adapter an update that is clearly not zero."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in bank.parameters_of(name):
            if key.endswith(".up"):
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * size)


def predict(unet: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output: Tensor = unet(**inputs).sample
    return output


@pytest.fixture
def unet() -> nn.Module:
    return build_unet()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return build_inputs()


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., nn.Module]:
    return build_unet


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    return build_inputs


@pytest.fixture(scope="session")
def awaken() -> Callable[..., None]:
    return wake


@pytest.fixture(scope="session")
def run() -> Callable[..., Tensor]:
    return predict
