"""A base in diffusers' folder layout: making, reading and writing its parts."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tools.base import sizes

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SHARD = "16MB"
"""Weights are cut into files of at most this size."""


@dataclass
class Model:
    """The parts of a base on one device, fp32."""

    vae: Any
    text_encoder: Any
    unet: Any
    tokenizer: Any
    device: torch.device
    scheduler: dict[str, Any] = field(default_factory=sizes.scheduler_config)
    """The configuration of its ``DDIMScheduler``: noise schedule, prediction type and spacing of timesteps."""

    @property
    def prediction(self) -> str:
        """``epsilon`` or ``v_prediction``."""
        return str(self.scheduler["prediction_type"])

    def to(self, device: torch.device) -> Model:
        """Move the parts to a device; on CUDA convolutions get the layout that its matrix units read."""
        for part in (self.vae, self.text_encoder, self.unet):
            part.to(device)
        if device.type == "cuda":
            self.vae.to(memory_format=torch.channels_last)
            self.unet.to(memory_format=torch.channels_last)
        self.device = device
        return self


def new(size: sizes.Size, captions: Iterable[str], folder: Path) -> Model:
    """An untrained base with a vocabulary learnt from ``captions``; its tokenizer's files go to ``folder``."""
    tokenizer = sizes.write_tokenizer(captions, size, folder / "tokenizer")
    return Model(
        vae=sizes.new_autoencoder(size),
        text_encoder=sizes.new_text_encoder(size, len(tokenizer)),
        unet=sizes.new_unet(size),
        tokenizer=tokenizer,
        device=torch.device("cpu"),
    )


def load(folder: Path) -> Model:
    """Read a base's folder, its weights as fp32.

    Raises:
        OSError: a part is missing.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    return Model(
        vae=load_autoencoder(folder),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        device=torch.device("cpu"),
        scheduler=scheduler_config_of(folder),
    )


def load_autoencoder(folder: Path) -> Any:
    """A base's ``AutoencoderKL`` alone, in fp32, from its ``vae``.

    Raises:
        OSError: it is missing.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()


def scheduler_config_of(folder: Path) -> dict[str, Any]:
    """What a base's folder says of its scheduler, without diffusers' own notes."""
    found = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if not key.startswith("_")}


def save(model: Model, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a base as a folder that ``StableDiffusionPipeline.from_pretrained`` reads. The model stays as it is."""
    import diffusers
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    folder.mkdir(parents=True, exist_ok=True)
    index = MODEL_INDEX | {"_diffusers_version": diffusers.__version__}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    DDIMScheduler(**model.scheduler).save_pretrained(folder / "scheduler")
    model.tokenizer.save_pretrained(folder / "tokenizer")
    for name, part in (("vae", model.vae), ("text_encoder", model.text_encoder), ("unet", model.unet)):
        plain = copy.deepcopy(part).to("cpu", dtype, memory_format=torch.contiguous_format)
        plain.save_pretrained(folder / name, max_shard_size=SHARD)
    # transformers loads in the type that the configuration names; diffusers asks for fp32 unless told otherwise.
    # The pipeline's parts must agree, whatever type the files hold.
    _edit(folder / "text_encoder" / "config.json", dtype="float32")
    # diffusers notes the folder a part was once read from: nobody else's business.
    for name in ("vae", "unet"):
        _edit(folder / name / "config.json", _name_or_path=None)


def _edit(path: Path, **changes: str | None) -> None:
    """Set entries of a JSON file; None takes one out."""
    changed = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in changed.items() if key not in changes or value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
