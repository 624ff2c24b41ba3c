"""Tiny models of each family's exact architecture: real classes, the family's own configuration, small widths.

`save_folder` writes diffusers' layout, `save_single_file` the original one. The names of the original layout are
spelled out here once more, from the original code bases (latent-diffusion, OpenCLIP) and not from the product.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIGS = Path(__file__).resolve().parents[1] / "trainer" / "bases" / "configs"
FAMILIES = ("sd1", "sd2", "sd2_v", "sdxl")
SIDE = 64  # pixels; 8 latent cells, the least that four levels can halve

_UNET = {"block_out_channels": [32, 64, 64, 64], "sample_size": 8}
_SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {**_UNET, "cross_attention_dim": 32},
        "text_encoder": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3},
    },
    "sd2": {
        "unet": {**_UNET, "cross_attention_dim": 32, "attention_head_dim": [2, 4, 4, 4]},
        "text_encoder": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3},
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 64, 64],
            "sample_size": 8,
            "attention_head_dim": [2, 4, 4],
            "cross_attention_dim": 56,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
        "text_encoder": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3},
        "text_encoder_2": {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "projection_dim": 32},
    },
}
_SMALL["sd2_v"] = _SMALL["sd2"]


@dataclass
class TinyModel:
    """The modules of one tiny model; ``key`` is a name in `FAMILIES`."""

    key: str
    unet: Any
    vae: Any
    text_encoders: dict[str, Any]

    @property
    def settings(self) -> Path:
        return CONFIGS / self.key


def build(key: str, seed: int = 0) -> TinyModel:
    """A tiny model with random weights that depend on ``seed`` alone."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    small = _SMALL[key]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config({**_settings(key, "unet"), **small["unet"]})
        vae = AutoencoderKL.from_config(
            {**_settings(key, "vae"), "block_out_channels": [32] * 4, "layers_per_block": 1, "sample_size": SIDE}
        )
        encoders = {}
        for name in ("text_encoder", "text_encoder_2"):
            if name in small:
                values = {**_settings(key, name), **small[name]}
                values["intermediate_size"] = 2 * values["hidden_size"]
                cls = CLIPTextModelWithProjection if name.endswith("_2") else CLIPTextModel
                encoders[name] = cls(CLIPTextConfig(**values))
    for module in (unet, vae, *encoders.values()):
        module.requires_grad_(False).eval()
    return TinyModel(key, unet, vae, encoders)


def save_folder(model: TinyModel, folder: Path, *, variant: str | None = None) -> Path:
    """Write diffusers' layout; ``variant="fp16"`` writes every weight in half precision under that name."""
    half = variant == "fp16"
    save_settings(model, folder)
    for name, module in (("unet", model.unet), ("vae", model.vae), *model.text_encoders.items()):
        stored = {k: (v.half() if half else v).contiguous() for k, v in module.state_dict().items()}
        stem = "diffusion_pytorch_model" if name in ("unet", "vae") else "model"
        ending = f".{variant}" if variant else ""
        save_file(stored, folder / name / f"{stem}{ending}.safetensors", metadata={"format": "pt"})
    return folder


def save_settings(model: TinyModel, folder: Path) -> Path:
    """Write everything of diffusers' layout but the weights: also what ``base.config_folder`` takes."""
    shutil.copytree(model.settings, folder, dirs_exist_ok=True)
    for name, module in (("unet", model.unet), ("vae", model.vae)):
        module.save_config(folder / name)
    for name, module in model.text_encoders.items():
        module.config.save_pretrained(folder / name)
        place = folder / name.replace("text_encoder", "tokenizer")
        shutil.copytree(CONFIGS / "clip_tokenizer", place, dirs_exist_ok=True)
        # SD2's and SDXL's OpenCLIP encoders were trained with "!" behind the prompt.
        if name.endswith("_2") or model.key.startswith("sd2"):
            settings = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
            settings["pad_token"] = "!"
            (place / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def save_single_file(
    model: TinyModel,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    markers: tuple[str, ...] = (),
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the original layout, with what real files hold beside weights; ``markers`` adds keys like ``v_pred``."""
    tensors = {name: tensor.to(dtype).contiguous().clone() for name, tensor in original_tensors(model).items()}
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    tensors |= {marker: torch.zeros(0) for marker in markers}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return path


def original_tensors(model: TinyModel) -> dict[str, Tensor]:
    """Every tensor under its name in the original layout."""
    up_blocks = model.unet.config.up_block_types
    tensors = {
        f"model.diffusion_model.{original_unet_name(n, up_blocks)}": t for n, t in model.unet.state_dict().items()
    }
    tensors |= {f"first_stage_model.{n}": t for n, t in _original_vae(model.vae).items()}
    first = model.text_encoders["text_encoder"]
    if model.key == "sd1":
        tensors |= _original_clip("cond_stage_model.transformer.", first)
    elif model.key.startswith("sd2"):
        tensors |= _original_open_clip("cond_stage_model.model.", first, spare_layer=True)
    else:
        tensors |= _original_clip("conditioner.embedders.0.transformer.", first)
        second = model.text_encoders["text_encoder_2"]
        tensors |= _original_open_clip("conditioner.embedders.1.model.", second, spare_layer=False)
    return tensors


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_unet_name(name: str, up_block_types: Sequence[str]) -> str:
    """A UNet tensor's name in latent-diffusion's layout, for two resnets a level (three on the way up)."""
    module, kind = name.rsplit(".", 1)
    if module in _UNET_TOP:
        return f"{_UNET_TOP[module]}.{kind}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        place = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{place}.{_inner(match[1], match[3])}"
    if match := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", name):
        place = 1 + 3 * int(match[1]) + int(match[3])
        return f"input_blocks.{place}.{int(match[2] == 'attentions')}.{_inner(match[2], match[4])}"
    if match := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{3 * (int(match[1]) + 1)}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", name):
        place = 3 * int(match[1]) + int(match[3])
        return f"output_blocks.{place}.{int(match[2] == 'attentions')}.{_inner(match[2], match[4])}"
    match = re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.+)", name)
    assert match is not None, name
    behind = 2 if "CrossAttn" in up_block_types[int(match[1])] else 1
    return f"output_blocks.{3 * int(match[1]) + 2}.{behind}.conv.{match[2]}"


def _settings(key: str, component: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((CONFIGS / key / component / "config.json").read_text(encoding="utf-8"))
    return settings


def _inner(kind: str, inner: str) -> str:
    if kind == "attentions":
        return inner
    module, ending = inner.rsplit(".", 1)
    return f"{_RESNET[module]}.{ending}"


def _original_vae(vae: nn.Module) -> dict[str, Tensor]:
    levels = len(vae.config.block_out_channels)
    tensors = {}
    for name, tensor in vae.state_dict().items():
        new = name
        if match := re.search(r"decoder\.up_blocks\.(\d)\.", name):
            new = new.replace(match[0], f"decoder.up.{levels - 1 - int(match[1])}.")
        new = re.sub(r"encoder\.down_blocks\.(\d)\.", r"encoder.down.\1.", new)
        new = re.sub(r"(up|down)\.(\d)\.resnets\.(\d)\.", r"\1.\2.block.\3.", new)
        new = new.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_shortcut", "nin_shortcut")
        new = new.replace("conv_norm_out", "norm_out")
        if ".attn_1." in new:
            for old, original in (("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_", "")):
                new = new.replace(f".attn_1.{old}", f".attn_1.{original}")
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        tensors[new] = tensor
    return tensors


def _original_clip(prefix: str, encoder: nn.Module) -> dict[str, Tensor]:
    tensors = {f"{prefix}text_model.{n.removeprefix('text_model.')}": t for n, t in encoder.state_dict().items()}
    tensors[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return tensors


_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def _original_open_clip(prefix: str, encoder: nn.Module, *, spare_layer: bool) -> dict[str, Tensor]:
    state = {n.removeprefix("text_model."): t for n, t in encoder.state_dict().items()}
    width = encoder.config.hidden_size
    tensors = {new: state[old] for old, new in _OPEN_CLIP.items()}
    tensors["text_projection"] = (
        state["text_projection.weight"].T if "text_projection.weight" in state else torch.eye(width)
    )
    tensors["logit_scale"] = torch.tensor(4.6)
    layers = encoder.config.num_hidden_layers
    for number in range(layers):
        old, new = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            tensors[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"{old}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            )
            tensors[f"{new}.attn.out_proj.{kind}"] = state[f"{old}.self_attn.out_proj.{kind}"]
            for theirs, ours in (
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                tensors[f"{new}.{theirs}.{kind}"] = state[f"{old}.{ours}.{kind}"]
    if spare_layer:
        last = f"transformer.resblocks.{layers - 1}."
        spare = {
            n.replace(last, f"transformer.resblocks.{layers}."): t + 1 for n, t in tensors.items() if n.startswith(last)
        }
        tensors |= spare
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
