"""Reading style files, whoever wrote them.

Layouts read:

- kohya: ``lora_unet_<flattened path>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``, with diffusers' names or
  with those of Stability's original code; text encoders as ``lora_te_``, ``lora_te1_``, ``lora_te2_``.
- diffusers and PEFT: ``unet.<path>.lora_A.weight``, ``.lora_B.weight``; alpha only in the header, under
  ``lora_adapter_metadata``, or in an ``adapter_config.json`` beside the file; PEFT's ``base_model.model.`` in front.
- older diffusers: ``unet.<path>.lora.down.weight``, ``unet.<...attn1>.processor.to_q_lora.down.weight``.

Every reader applies ``alpha / rank``, so that is what `LayerWeights` holds, whatever the method was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from trainer import safetensors_file
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.styles import peft_config
from trainer.styles.file import StyleFile, made_for
from trainer.styles.names import Places, sort_keys
from trainer.styles.unsupported import explain


def read_style(
    path: Path | str,
    model_names: Mapping[str, Iterable[str]] | None = None,
    *,
    check_values: bool = True,
) -> StyleFile:
    """Read an adapter file of any supported layout.

    Args:
        model_names: dotted module names by root (``unet``, ``te`` ...) of the models it is meant for. With them,
            names that no such model has are refused; without, names are taken apart by what is known of Stable
            Diffusion's models. Roots that are not among them are not checked.
        check_values: refuse files with values that are not finite.

    Raises:
        AdapterFileError: the file is no safetensors, is damaged, holds another method or model than LoRA for Stable
            Diffusion, or does not fit ``model_names``.
    """
    path = Path(path)
    header = safetensors_file.read_header(path)
    known = {root: frozenset(names) for root, names in (model_names or {}).items()}
    parts, notes = sort_keys(header)
    places = Places(known, two_encoders=any("text_encoder_2." in module for module, _, _ in parts.values()))
    tensors = safetensors_file.read_tensors(header, parts)
    found: dict[str, dict[str, Tensor]] = {}
    modules: dict[str, str] = {}
    for key, (module, side, _) in parts.items():
        where = places.find(module)
        if where is None:
            _refuse_module(path, module, key, known)
        if found.setdefault(where, {}).setdefault(side, tensors[key]) is not tensors[key]:
            raise AdapterFileError(f"{path} holds {where} twice, under two names.")
        modules[where] = module
    configs = peft_config.read(header)
    layers = {
        where: _layer(path, where, modules[where], sides, configs) for where, sides in found.items() if _real(sides)
    }
    if not layers:
        raise AdapterFileError(explain(path, header.entries) or f"{path} holds no LoRA weights.")
    if check_values:
        _refuse_non_finite(path, layers)
    styles = {style for _, _, style in parts.values() if style}
    layout = "kohya, original names" if places.original else " and ".join(sorted(styles))
    return StyleFile(path, layout, dict(sorted(layers.items())), header.metadata, tuple(notes))


def _refuse_module(path: Path, module: str, key: str, known: Mapping[str, Any]) -> NoReturn:
    if reason := explain(path, [key]):
        raise AdapterFileError(reason)
    if not known:
        raise AdapterFileError(f"{path} adapts {module}, which is no layer of a Stable Diffusion model.")
    whole = read_style(path, check_values=False)
    raise AdapterFileError(f"{path} does not fit this base: the base has no layer {module}.{made_for(whole.layers)}")


def _real(sides: Mapping[str, Tensor]) -> bool:
    """Some tools leave a bare alpha behind for layers they did not train."""
    return "down" in sides or "up" in sides


def _layer(
    path: Path, where: str, module: str, sides: Mapping[str, Tensor], configs: Mapping[str, Mapping[str, Any]]
) -> LayerWeights:
    missing = {"down", "up"} - sides.keys()
    if missing:
        raise AdapterFileError(f"{path} is incomplete: {where} has no {missing.pop()} matrix.")
    down, up = sides["down"], sides["up"]
    if down.dim() not in (2, 4) or down.dim() != up.dim() or up.shape[1] != down.shape[0] or not down.numel():
        raise AdapterFileError(
            f"{path} is damaged: the matrices of {where} are {tuple(down.shape)} and {tuple(up.shape)}, "
            "which do not go together."
        )
    if up.dim() == 4 and up.shape[2:] != (1, 1):
        raise AdapterFileError(f"{path} has an up-convolution of {tuple(up.shape)} in {where}, which is no LoRA.")
    rank = down.shape[0]
    if "alpha" in sides:
        alpha = float(sides["alpha"].float().reshape(-1)[0]) if sides["alpha"].numel() else float(rank)
    else:
        alpha = peft_config.alpha_of(path, configs, module, where, rank)
    return LayerWeights(down, up, alpha)


def _refuse_non_finite(path: Path, layers: Mapping[str, LayerWeights]) -> None:
    for where, layer in layers.items():
        values = torch.cat([layer.down.float().reshape(-1), layer.up.float().reshape(-1), torch.tensor([layer.alpha])])
        if not bool(torch.isfinite(values).all()):
            raise AdapterFileError(
                f"{path} is broken: the weights of {where} hold values that are not numbers or infinite, "
                "as from a training that diverged."
            )
