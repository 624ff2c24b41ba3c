"""Bases with random weights in the shapes of the public models: speed and memory do not depend on values."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from trainer.bases.base import Base
from trainer.bases.detect import read_json
from trainer.bases.families import SD1, SDXL, Family
from trainer.bases.lean import make_lean
from trainer.bases.process import Diffusion
from trainer.bases.quantised import Quantize, quantise
from trainer.bases.quiet import quiet_libraries
from trainer.bases.single_file import CLIP_TOKENIZER, CONFIGS

FAMILIES: dict[str, Family] = {"sd1": SD1, "sdxl": SDXL}
SIDES = {"sd1": 512, "sdxl": 1024}
"""Pixels that each family is measured at."""
TFLOP_PER_SAMPLE = {"sd1": 1.81, "sdxl": 14.8}
"""Forward pass and activation gradients of one sample at that side."""

# Widths that let the whole benchmark run on a CPU within seconds, to show that it works.
_TINY: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32, "sample_size": 8},
        "text_encoder": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64},
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 64, 64],
            "cross_attention_dim": 64,
            "sample_size": 8,
            "attention_head_dim": [2, 2, 2],
            "transformer_layers_per_block": [1, 1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
        "text_encoder": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 64},
        "text_encoder_2": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "intermediate_size": 64,
            "projection_dim": 32,
        },
    },
}
_TINY_VAE = {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1, "sample_size": 64}


@quiet_libraries()
def random_base(
    key: str, *, device: torch.device, dtype: torch.dtype, tiny: bool = False, quantize: Quantize | None = None
) -> Base:
    """A base of family ``key`` with random weights, made on the device itself."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTokenizer

    family, configs = FAMILIES[key], CONFIGS / key
    opened = family.opened_class()
    small: dict[str, dict[str, Any]] = {**_TINY[key], "vae": _TINY_VAE} if tiny else {}

    def settings(part: str) -> dict[str, Any]:
        return {**read_json(configs / part / "config.json"), **small.get(part, {})}

    def settled(module: Any, dtype: torch.dtype) -> Any:
        module = torch.nn.Module.to(module.requires_grad_(False).eval(), device, dtype)
        for parameter in module.parameters():
            if parameter.dim() == 4 and device.type == "cuda":
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return module

    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    with device:
        # Made in the type they stay in: SDXL's denoiser would take 10 GB of fp32 on its way.
        torch.set_default_dtype(dtype)
        unet = settled(UNet2DConditionModel.from_config(settings("unet")), dtype)
        if quantize:
            quantise(unet, quantize, device=device, dtype=dtype)
        make_lean(unet)
        torch.set_default_dtype(usual)
        vae = settled(
            AutoencoderKL.from_config(settings("vae")),
            dtype if family.vae_half and device.type == "cuda" else torch.float32,
        )
        encoders = {
            spec.root: settled(opened.text_encoder_class(spec)(CLIPTextConfig(**settings(spec.folder))), dtype)
            for spec in family.text_encoders
        }
    made: Base = opened(
        family=family,
        source=f"random {family.title}",
        denoiser=unet,
        vae=vae,
        text_encoders=encoders,
        tokenizers={
            spec.root: CLIPTokenizer.from_pretrained(CLIP_TOKENIZER, pad_token=spec.pad_token)
            for spec in family.text_encoders
        },
        process=Diffusion(read_json(configs / "scheduler" / "scheduler_config.json"), "epsilon", device),
        resolution=64 if tiny else SIDES[key],
        identity="random",
        vae_identity="random",
        text_identity="random",
        device=device,
        dtype=dtype,
        zero_empty_negative=family.pooled,
    )
    return made


def write_folder(base: Base, folder: Path) -> Path:
    """Write a random base in diffusers' layout, in the types that it has."""
    key = next(key for key, family in FAMILIES.items() if family is base.family)
    shutil.copytree(CONFIGS / key, folder, dirs_exist_ok=True)
    for spec in base.family.text_encoders:
        base.tokenizers[spec.root].save_pretrained(folder / spec.tokenizer_folder)
        base.text_encoders[spec.root].save_pretrained(folder / spec.folder)
    base.denoiser.save_pretrained(folder / base.family.root)
    base.vae.save_pretrained(folder / "vae")
    return folder
