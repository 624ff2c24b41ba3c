"""Stable Diffusion XL: two text encoders, and a UNet that is told the picture's size and crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.bases.families.family import SCENES, Preset, TextEncoderSpec
from trainer.bases.families.stable_diffusion import StableDiffusion

_REASON = "SDXL's wider layers react sooner, and a step costs eight times as much, so fewer and the same rate"


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """The family of SDXL."""

    def opened_class(self) -> Any:
        from trainer.bases.families.unet import StableDiffusionXLBase

        return StableDiffusionXLBase


SDXL = StableDiffusionXL(
    key="sdxl",
    title="Stable Diffusion XL",
    text_encoders=(
        TextEncoderSpec(
            "te1", "text_encoder", output="penultimate", original_prefix="conditioner.embedders.0.transformer."
        ),
        TextEncoderSpec(
            "te2",
            "text_encoder_2",
            output="penultimate",
            pooled=True,
            original_prefix="conditioner.embedders.1.model.",
            original_layout="open_clip",
            pad_token="!",
        ),
    ),
    text_width=2048,
    guidance=6.0,
    default_side=1024,
    side_multiple=32,
    name_prefixes=("sdxl", "stable-diffusion-xl"),
    version_names={"epsilon": "sdxl_base_v1-0", "v_prediction": "sdxl_base_v1-0"},
    architectures={"epsilon": "stable-diffusion-xl-v1-base", "v_prediction": "stable-diffusion-xl-v1-base"},
    presets={
        "quick": Preset(2e-4, 8, 1, 30, 250, 600, f"{_REASON}; twice the rate, for a first look"),
        "balanced": Preset(1e-4, 8, 1, 75, 600, 1800, _REASON),
        "thorough": Preset(1e-4, 16, 1, 120, 1000, 3000, f"{_REASON}; twice the rank for finer detail"),
    },
    prompts=SCENES,
    values_per_rank={
        "cross": 785_920,
        "qv": 725_760,
        "self": 665_600,
        "attention": 1_451_520,
        "all-linear": 2_616_320,
        "style-blocks": 220_160,
        "content-blocks": 220_160,
        "style-and-content": 440_320,
    },
    configs={"epsilon": "sdxl", "v_prediction": "sdxl"},
    clip_skip=False,
    linear_projection=True,
    original_names=True,
)
