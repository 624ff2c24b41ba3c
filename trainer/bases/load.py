"""Opening a base: the bundled one, or a folder in diffusers' layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.bases.base import Base
from trainer.bases.identity import weights_identity
from trainer.bases.registry import BUNDLED, SD1, SD2, SDXL, Family, Prediction
from trainer.config import BaseConfig
from trainer.errors import BaseError

BUNDLED_FOLDER = Path(__file__).parent / "bundled"


def load_base(config: BaseConfig, *, device: torch.device, dtype: torch.dtype) -> Base:
    """Load the base that a config names, frozen and in evaluation mode.

    Raises:
        BaseError: the source is unknown, incomplete, or no base that a style can be trained on.
    """
    if config.source == "bundled":
        return load_folder(BUNDLED_FOLDER, config, device=device, dtype=dtype, family=BUNDLED)
    folder = Path(config.source).expanduser()
    if folder.is_dir():
        return load_folder(folder, config, device=device, dtype=dtype)
    raise BaseError(
        f"The base {config.source!r} is not known: write 'bundled' or the path of a folder with a diffusers model."
    )


def load_folder(
    folder: Path,
    config: BaseConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    family: Family | None = None,
) -> Base:
    """Load a folder in diffusers' layout; `load_base` finds the folder."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    _refuse_other_pipelines(folder)
    family = family or _family_of(folder)
    unet = _frozen(
        UNet2DConditionModel, folder / "unet", torch.float32 if device.type == "cpu" else dtype
    )
    identity = weights_identity(unet)
    vae = _frozen(AutoencoderKL, folder / "vae", torch.float32)
    encoders, tokenizers = _text_encoders(
        folder, family, torch.float32 if device.type == "cpu" else dtype
    )
    scheduler_config = json.loads(
        (folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
    )
    prediction: Prediction = (
        scheduler_config.get("prediction_type", "epsilon")
        if config.prediction == "auto"
        else config.prediction
    )
    base = Base(
        family=family,
        source=config.source,
        unet=unet.to(device, dtype),
        vae=vae.to(device),
        text_encoders={root: encoder.to(device, dtype) for root, encoder in encoders.items()},
        tokenizers=tokenizers,
        scheduler_config=scheduler_config,
        prediction=prediction,
        resolution=0,
        identity=identity,
        vae_identity=weights_identity(vae),
        text_identity="".join(weights_identity(encoder)[:32] for encoder in encoders.values()),
        device=device,
        dtype=dtype,
        clip_skip=config.clip_skip,
    )
    base.resolution = int(unet.config.sample_size) * base.vae_factor
    return base


def _frozen(cls: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    if not folder.is_dir():
        raise BaseError(
            f"{folder.parent} has no folder '{folder.name}', so it is no complete diffusers model."
        )
    try:
        model: nn.Module = cls.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise BaseError(
            f"{folder} cannot be read as {cls.__name__}: {str(error).splitlines()[0]}"
        ) from None
    return model.requires_grad_(False).eval()


def _text_encoders(
    folder: Path, family: Family, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    encoders: dict[str, nn.Module] = {}
    tokenizers: dict[str, Any] = {}
    for spec in family.text_encoders:
        cls = CLIPTextModelWithProjection if spec.pooled else CLIPTextModel
        encoders[spec.root] = _frozen(cls, folder / spec.folder, dtype)
        tokenizers[spec.root] = CLIPTokenizer.from_pretrained(
            folder / spec.tokenizer_folder, local_files_only=True
        )
    return encoders, tokenizers


def _refuse_other_pipelines(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise BaseError(f"{folder} has no model_index.json, so it is no diffusers model.")
    kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "")
    if kind not in {"StableDiffusionPipeline", "StableDiffusionXLPipeline"}:
        raise BaseError(
            f"{folder} is a {kind or 'model of unknown kind'}; Patina trains on Stable Diffusion 1, 2 and XL."
        )


def _family_of(folder: Path) -> Family:
    if (folder / "text_encoder_2").is_dir():
        return SDXL
    unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    return SD2 if unet.get("use_linear_projection") else SD1
