"""Reading a single .safetensors checkpoint in the original layout, without any download.

Denoiser and VAE go through diffusers' ``from_single_file`` with a configuration that ships with Patina. The text
encoders are renamed here: CLIP's need a prefix removed; OpenCLIP's (SD2, SDXL's second) keep query, key and value in
one matrix and the projection transposed. Source: OpenAI's and OpenCLIP's text transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.bases.detect import DENOISER_PREFIX, VAE_PREFIX, detect_file, read_json
from trainer.bases.families.family import Family, TextEncoderSpec
from trainer.bases.folder import read_tokenizers, zero_empty_negative
from trainer.bases.parts import STORED_TYPES, Parts, first_line, stored_dtype
from trainer.errors import BaseError
from trainer.safetensors_file import Header, read_header

CONFIGS = Path(__file__).parent / "configs"
CLIP_TOKENIZER = CONFIGS / "clip_tokenizer"
_OPEN_CLIP_NAMES = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
OPEN_CLIP_LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def read_single_file(path: Path, config_folder: Path | None = None) -> Parts:
    """Read a checkpoint; its family is told by its tensors' names.

    Args:
        path: a .safetensors file.
        config_folder: configuration in diffusers' layout for a checkpoint whose layers differ from its family's.

    Raises:
        BaseError: it is no checkpoint of a known family, is incomplete, or differs from the configuration.
    """
    header = read_header(path, BaseError)
    detected = detect_file(header, path)
    family = detected.family
    configs = config_folder or CONFIGS / family.configs[detected.prediction or "v_prediction"]
    tensors = _read_tensors(path, header)
    scheduler = read_json(configs / "scheduler" / "scheduler_config.json")
    if detected.zero_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    notes = []
    if narrow := {name for name in header.dtypes.values() if name.startswith("F8")}:
        notes.append(f"{path.name} keeps its weights in 8 bits ({', '.join(sorted(narrow))}); a 16-bit file is better.")
    return Parts(
        detected=detected,
        denoiser=_converted(family.root, DENOISER_PREFIX, tensors, path, configs, family),
        vae=_converted("vae", VAE_PREFIX, tensors, path, configs, family),
        text_encoders={spec.root: _text_encoder(spec, tensors, path, configs, family) for spec in family.text_encoders},
        tokenizers=_tokenizers(configs, family),
        scheduler=scheduler,
        zero_empty_negative=zero_empty_negative(read_json(configs / "model_index.json"), family),
        notes=notes,
    )


def _read_tensors(path: Path, header: Header) -> dict[str, Tensor]:
    """Every tensor but the copies that some trainings keep beside (``model_ema``); mapped, not read, until used."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in header.shapes:
                if name.startswith("model_ema."):
                    continue
                tensor = file.get_tensor(name)
                wide = tensor.is_floating_point() and header.dtypes[name] not in STORED_TYPES
                tensors[_with_text_model(name)] = tensor.half() if wide else tensor
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseError(f"{path} cannot be read: {first_line(error)}") from None
    return tensors


def _with_text_model(name: str) -> str:
    """Some merge tools of 2022 dropped ``text_model`` from SD1's text encoder; every later reader expects it."""
    prefix = "cond_stage_model.transformer."
    inner = name.removeprefix(prefix)
    if inner != name and inner.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
        return f"{prefix}text_model.{inner}"
    return name


def _converted(
    component: str, prefix: str, tensors: Mapping[str, Tensor], path: Path, configs: Path, family: Family
) -> nn.Module:
    """Denoiser or VAE under diffusers' names."""
    opened = family.opened_class()
    cls: Any = opened.vae_class() if component == "vae" else opened.denoiser_class()
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        model: nn.Module = cls.from_single_file(
            own,
            config=str(configs),
            subfolder=component,
            local_files_only=True,
            torch_dtype=_dtype_of(own),
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise _differs(path, family, component, first_line(error)) from None
    unfilled = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if unfilled:
        raise _differs(path, family, component, f"it lacks {len(unfilled)} tensors, such as {unfilled[0]}")
    # The denoiser's names map one to one, so a surplus means layers that this configuration does not have.
    if component == family.root and len(own) > len(model.state_dict()):
        raise _differs(path, family, component, f"it has {len(own) - len(model.state_dict())} tensors too many")
    return model


def _text_encoder(
    spec: TextEncoderSpec, tensors: Mapping[str, Tensor], path: Path, configs: Path, family: Family
) -> nn.Module:
    from transformers import CLIPTextConfig

    own = {
        name.removeprefix(spec.original_prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(spec.original_prefix)
    }
    config = CLIPTextConfig.from_pretrained(configs / spec.folder, local_files_only=True)
    renamed = from_open_clip(own, config.num_hidden_layers) if spec.original_layout == "open_clip" else from_clip(own)
    if not spec.pooled:
        renamed.pop("text_projection.weight", None)
    try:
        model, report = (
            family.opened_class()
            .text_encoder_class(spec)
            .from_pretrained(None, config=config, state_dict=renamed, dtype=_dtype_of(own), output_loading_info=True)
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _differs(path, family, spec.folder, first_line(error)) from None
    if missing := sorted(report["missing_keys"]):
        raise _differs(path, family, spec.folder, f"it lacks {len(missing)} tensors, such as {missing[0]}")
    module: nn.Module = model
    return module


def from_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's CLIP as transformers first named it; old files also hold the position numbers, which are no weights."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}


def from_open_clip(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """OpenCLIP's text transformer under transformers' names; layers from ``layers`` on are left out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _OPEN_CLIP_NAMES:
            renamed[f"text_model.{_OPEN_CLIP_NAMES[name]}"] = tensor
        elif name == "text_projection":
            renamed["text_projection.weight"] = tensor.T.contiguous()
        elif name.startswith("transformer.resblocks."):
            number, inner = name.removeprefix("transformer.resblocks.").split(".", 1)
            if int(number) < layers:
                renamed.update(_open_clip_layer(f"text_model.encoder.layers.{number}", inner, tensor))
    return renamed


def _open_clip_layer(layer: str, inner: str, tensor: Tensor) -> dict[str, Tensor]:
    if inner.startswith("attn.in_proj_"):
        kind = inner.removeprefix("attn.in_proj_")
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{layer}.self_attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}
    module, _, kind = inner.rpartition(".")
    return {f"{layer}.{OPEN_CLIP_LAYER_NAMES.get(module, module)}.{kind}": tensor}


def _tokenizers(configs: Path, family: Family) -> dict[str, Any]:
    from transformers import CLIPTokenizer

    if (configs / "tokenizer").is_dir():
        return read_tokenizers(configs, family)
    return {
        spec.root: CLIPTokenizer.from_pretrained(CLIP_TOKENIZER, local_files_only=True, pad_token=spec.pad_token)
        for spec in family.text_encoders
    }


def _dtype_of(tensors: Mapping[str, Tensor]) -> torch.dtype:
    names = {dtype: name for name, dtype in STORED_TYPES.items()}
    return stored_dtype([names.get(tensor.dtype, "") for tensor in tensors.values()])


def _differs(path: Path, family: Family, component: str, detail: str) -> BaseError:
    return BaseError(
        f"{path}: its {component} differs from what {family.title} has ({detail.rstrip('.')}). For a distilled or "
        "special version, name a folder with its configuration (diffusers layout) in base.config_folder."
    )
