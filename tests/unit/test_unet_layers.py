"""The layers of a UNet are told from its configuration as diffusers builds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.adapters.layers import adaptable
from trainer.bases.sources import BUNDLED_FOLDER
from trainer.bases.unet_layers import unet_layers, unet_layers_in

CONFIGS = Path(unet_layers.__code__.co_filename).parent / "configs"
FOLDERS = {name: CONFIGS / name / "unet" for name in ("sd1", "sd2", "sd2_v", "sdxl")} | {
    "bundled": BUNDLED_FOLDER / "unet"
}


def built(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    return {path: tuple(module.weight.shape) for path, module in unet.named_modules() if adaptable(module)}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_layer_and_its_shape_as_diffusers_builds_it(name: str) -> None:
    config = json.loads((FOLDERS[name] / "config.json").read_bytes())
    assert unet_layers_in(FOLDERS[name]) == built(config)


def test_other_blocks_are_refused() -> None:
    config = json.loads((FOLDERS["sd1"] / "config.json").read_bytes())
    with pytest.raises(ValueError, match="of another kind"):
        unet_layers(config | {"down_block_types": ["AttnDownBlock2D"] * 4})
    with pytest.raises(ValueError, match="no UNet"):
        unet_layers({"block_out_channels": [8]})
