"""The UNets of the public models in full size, without their weights: from the configurations that are shipped.

That those are the public models' is held by ``tests/unit/test_bases_sources.py``.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from trainer.bases.single_file import CONFIGS


def unet(key: str) -> Any:
    """The UNet of ``sd1``, ``sd2``, ``sd2_v`` or ``sdxl`` on the meta device."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(json.loads((CONFIGS / key / "unet" / "config.json").read_bytes()))
