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

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.safetensors_file import Entry, read_header, read_tensors
from trainer.styles import peft_config
from trainer.styles.file import StyleFile, made_for
from trainer.styles.names import NATIVE_TENSORS, NativeTensor, Places, sort_keys
from trainer.styles.unsupported import explain


def read_style(
    path: Path | str,
    model_names: Mapping[str, Iterable[str]] | None = None,
    *,
    check_values: bool = True,
) -> StyleFile:
    """Read a style file of any supported layout. Takes as much memory as the file is large.

    Args:
        model_names: dotted module names by root (``unet``, ``te`` ...) of the models it is meant for. With them,
            names that no such model has are refused; without, names are taken apart by what is known of Stable
            Diffusion's models. Roots that are not among them are not checked.
        check_values: refuse files with values that are not finite, and alphas that nothing can be scaled by.

    Raises:
        AdapterFileError: the file is no safetensors, is damaged, holds another method or model than LoRA for Stable
            Diffusion, or does not fit ``model_names``.
    """
    path = Path(path)
    header = read_header(path, AdapterFileError)
    known = {root: frozenset(names) for root, names in (model_names or {}).items()}
    parts, notes = sort_keys(header)
    places = Places(known, two_encoders=any("text_encoder_2." in module for module, _, _ in parts.values()))
    found: dict[str, dict[str, str]] = {}
    modules: dict[str, str] = {}
    for key, (module, side, _) in parts.items():
        where = places.find(module)
        if where is None:
            _refuse_module(path, module, key, known)
        if found.setdefault(where, {}).setdefault(side, key) != key:
            raise AdapterFileError(f"{path} holds {where} twice, under two names.")
        modules[where] = module
    # Some tools leave a bare alpha behind for layers they did not train.
    layers = {where: sides for where, sides in sorted(found.items()) if sides.keys() & {"down", "up"}}
    if not layers:
        raise AdapterFileError(explain(path, header.entries) or f"{path} holds no LoRA weights.")
    for where, sides in layers.items():
        entries = {side: header.entries[key] for side, key in sides.items()}
        _check_layer(path, where, entries)
        for native in _native_of(sides):
            _check_native(path, where, native, entries, parts[sides[native.part]][2])
    configs = peft_config.read(header)
    tensors = read_tensors(
        header, [key for sides in layers.values() for key in sides.values()], raises=AdapterFileError
    )
    weights: dict[str, LayerWeights] = {}
    for where, sides in layers.items():
        down, up = tensors[sides["down"]], tensors[sides["up"]]
        if "alpha" in sides:
            alpha = float(tensors[sides["alpha"]].float().reshape(-1)[0])
        else:
            alpha = peft_config.alpha_of(configs, modules[where], where, down.shape[0])
        found_native = _native_of(sides)
        weights[where] = LayerWeights(
            down,
            up,
            alpha,
            found_native[0].method if found_native else "lora",
            {native.part: tensors[sides[native.part]].flatten() for native in found_native},
        )
        if check_values:
            _refuse_values(path, where, weights[where])
    styles = {style for _, _, style in parts.values() if style}
    layout = "kohya, original names" if places.original else " and ".join(sorted(styles))
    return StyleFile(path, layout, weights, header.metadata, tuple(notes))


def _refuse_module(path: Path, module: str, key: str, known: Mapping[str, Any]) -> NoReturn:
    if reason := explain(path, [key]):
        raise AdapterFileError(reason)
    if not known:
        raise AdapterFileError(f"{path} adapts {module}, which is no layer of a Stable Diffusion model.")
    whole = read_style(path, check_values=False)
    raise AdapterFileError(f"{path} does not fit this base: the base has no layer {module}.{made_for(whole.layers)}")


def _check_layer(path: Path, where: str, sides: Mapping[str, Entry]) -> None:
    """Refuse a layer by what the header says of it, before any of its values is read."""
    missing = {"down", "up"} - sides.keys()
    if missing:
        raise AdapterFileError(f"{path} is incomplete: {where} has no {missing.pop()} matrix.")
    for side, entry in sides.items():
        if not entry.dtype.startswith(("F", "BF")) and (side != "alpha" or entry.dtype[0] not in "IU"):
            raise AdapterFileError(
                f"{path} keeps {side} of {where} as {entry.dtype}; weights must be floating-point numbers, such as F16."
            )
    down, up = sides["down"].shape, sides["up"].shape
    if len(down) not in (2, 4) or len(down) != len(up) or up[1] != down[0] or not math.prod(down) * math.prod(up):
        raise AdapterFileError(
            f"{path} is damaged: the matrices of {where} are {down} and {up}, which do not go together."
        )
    if up[2:] not in ((), (1, 1)):
        raise AdapterFileError(f"{path} has an up-convolution of {up} in {where}, which is no LoRA.")
    room = min(math.prod(down[1:]), up[0])
    if down[0] > room:
        raise AdapterFileError(
            f"{path} has rank {down[0]} in {where}, but the layer has room for {room} at most; a resized copy would "
            "hold the same."
        )
    if "alpha" in sides and math.prod(sides["alpha"].shape) != 1:
        raise AdapterFileError(f"{path} is damaged: alpha of {where} should be one number.")


def _native_of(sides: Mapping[str, str]) -> list[NativeTensor]:
    return [native for native in NATIVE_TENSORS if native.part in sides]


def _check_native(path: Path, where: str, native: NativeTensor, sides: Mapping[str, Entry], style: str) -> None:
    out, shape = sides["up"].shape[0], sides[native.part].shape
    name = native.kohya if style == "kohya" else native.diffusers
    if style == "kohya" and shape[:1] == (1,) != (out,):
        raise AdapterFileError(
            f"{path} has a {name} for each input of {where}, as older versions of LyCORIS wrote it; Patina reads files "
            "with one for each output."
        )
    if math.prod(shape) != out:
        raise AdapterFileError(
            f"{path} is damaged: {name} of {where} is {shape}, but should hold one value for each of {out} outputs."
        )


def _refuse_values(path: Path, where: str, layer: LayerWeights) -> None:
    if not (math.isfinite(layer.alpha) and all(map(_finite, (layer.down, layer.up, *layer.extra.values())))):
        raise AdapterFileError(
            f"{path} is broken: the weights of {where} hold values that are not numbers or infinite, "
            "as from a training that diverged."
        )
    if not peft_config.usable(layer.alpha):
        raise AdapterFileError(
            f"{path} is broken: alpha of {where} is {layer.alpha:g}, but should be a number other than 0 and at most "
            f"{peft_config.MAX_ALPHA:g}."
        )


def _finite(values: Tensor) -> bool:
    """In pieces, because in one it would take up to five times the memory of the file."""
    return all(bool(torch.isfinite(piece.float()).all()) for piece in values.reshape(-1).split(1 << 20))
