"""A base as the diffusers pipeline that other people would open it with, on the same modules."""

from __future__ import annotations

from typing import Any

from trainer.bases.base import Base
from trainer.bases.quiet import quiet_libraries


def pipeline_of(base: Base) -> Any:
    """A StableDiffusionPipeline, or its XL sibling, that shares the base's modules; without a safety checker."""
    parts: dict[str, Any] = {"unet": base.unet, "vae": base.vae, "scheduler": base.scheduler("ddim")}
    for spec in base.family.text_encoders:
        parts[spec.folder] = base.text_encoders[spec.root]
        parts[spec.tokenizer_folder] = base.tokenizers[spec.root]
    with quiet_libraries():
        if base.family.time_ids:
            from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

            return StableDiffusionXLPipeline(
                **parts, force_zeros_for_empty_prompt=base.zero_empty_negative, add_watermarker=False
            )
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
