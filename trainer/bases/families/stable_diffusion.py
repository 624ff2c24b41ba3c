"""Stable Diffusion 1 and 2, which differ in their text encoder and in what they predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.bases.families.family import SCENES, Family, Preset, TextEncoderSpec, names_a_class
from trainer.config import PresetName

_REASON = (
    "1e-4 is what LoRA on Stable Diffusion 1 and 2 is commonly trained at; "
    "rank 8 holds a style (Hu et al. 2021: 1 to 8 is usually enough)"
)
_PRESETS: Mapping[PresetName, Preset] = {
    "quick": Preset(2e-4, 8, 1, 40, 300, 800, f"{_REASON}; twice the rate, for a first look"),
    "balanced": Preset(1e-4, 8, 1, 100, 800, 2500, _REASON),
    "thorough": Preset(
        1e-4, 16, 2, 120, 1200, 4000, f"{_REASON}; twice the rank and two images a step for finer detail"
    ),
}


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """A family with a UNet that denoises an autoencoder's latents and reads CLIP's text features.

    Attributes:
        linear_projection: whether its transformer blocks are entered through linear layers, not convolutions.
    """

    root: str = "unet"
    pipelines: tuple[str, ...] = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    linear_projection: bool = False

    def is_folder(self, model_index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        second = names_a_class(model_index.get("text_encoder_2"))
        return second == (len(self.text_encoders) == 2) and (
            second or bool(denoiser.get("use_linear_projection")) == self.linear_projection
        )

    def is_file(self, has: Callable[[str], bool]) -> bool:
        """By its text encoders: widths vary between models of a family (distilled ones), the names do not."""
        return has(self.text_encoders[-1].original_prefix)

    def opened_class(self) -> Any:
        from trainer.bases.families.unet import StableDiffusionBase

        return StableDiffusionBase


SD1 = StableDiffusion(
    key="sd1",
    title="Stable Diffusion 1",
    text_encoders=(TextEncoderSpec("te", "text_encoder"),),
    text_width=768,
    guidance=7.0,
    default_side=512,
    side_multiple=64,
    name_prefixes=("sd_v1", "stable-diffusion-v1"),
    version_names={"epsilon": "sd_v1", "v_prediction": "sd_v1"},
    architectures={"epsilon": "stable-diffusion-v1", "v_prediction": "stable-diffusion-v1"},
    presets=_PRESETS,
    prompts=SCENES,
    values_per_rank={"cross": 99_456, "qv": 99_648, "self": 99_840, "attention": 199_296, "all-linear": 374_016},
    configs={"epsilon": "sd1", "v_prediction": "sd1"},
    vae_half=True,
)
SD2 = replace(
    SD1,
    key="sd2",
    title="Stable Diffusion 2",
    text_encoders=(
        TextEncoderSpec(
            "te",
            "text_encoder",
            original_prefix="cond_stage_model.model.",
            original_layout="open_clip",
            pad_token="!",
        ),
    ),
    text_width=1024,
    name_prefixes=("sd_v2", "stable-diffusion-v2"),
    version_names={"epsilon": "sd_v2", "v_prediction": "sd_v2_v"},
    architectures={"epsilon": "stable-diffusion-v2-512", "v_prediction": "stable-diffusion-v2-768-v"},
    values_per_rank={"cross": 107_648, "qv": 103_744, "self": 99_840, "attention": 207_488, "all-linear": 382_208},
    configs={"epsilon": "sd2", "v_prediction": "sd2_v"},
    linear_projection=True,
    prediction_in_file=False,
    v2=True,
)
"""Stable Diffusion 1 with another text encoder, linear projections, and two kinds of prediction."""
