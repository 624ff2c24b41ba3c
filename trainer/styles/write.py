"""Writing style files that other tools read.

Layouts: ``kohya``, which nearly every program reads, and ``diffusers``, which diffusers reads alone
(`trainer.styles.consumers` knows more). Every reader applies ``alpha / rank``, so that is what `LayerWeights` holds,
whatever the method was. What a method needs beside two matrices is named by `trainer.styles.names.NATIVE_TENSORS`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trainer import safetensors_file
from trainer.adapters.methods import as_loras, method_of
from trainer.adapters.methods.full import whole
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import FAMILIES
from trainer.errors import RunError
from trainer.styles import peft_config, words
from trainer.styles.alpha import BEFORE_ASKED
from trainer.styles.alpha import KEY as ALPHA_KEY
from trainer.styles.file import likely_family
from trainer.styles.metadata import TITLE_KEYS, family_of
from trainer.styles.names import DIFFUSERS_ROOTS, NATIVE_TENSORS, diffusers_stem, kohya_stem
from trainer.styles.read import read_style

_KOHYA_ONLY = {
    "lora with bias": "a change of its bias",
    "dora by inputs": "DoRA's lengths of columns",
    "bottleneck": "a bottleneck adapter",
    "prefix": "keys and values of learned tokens",
}
"""Methods that only kohya's layout has a place for, and what of them."""

Layout = Literal["kohya", "diffusers"]


def laid_out(weights: Mapping[str, LayerWeights], layout: Layout) -> dict[str, LayerWeights]:
    """An adapter as a file in a layout holds it: the same update, with the alphas that the layout's readers expect.

    In diffusers' layout alpha is no tensor, and every program but diffusers takes it for the rank; so it is the rank,
    and the rest of the scale is multiplied into ``up``.
    """
    full = {path: layer for path, layer in weights.items() if layer.method == "full" and layout == "kohya"}
    weights = as_loras({path: layer for path, layer in weights.items() if path not in full})
    if layout == "kohya":
        return with_one_alpha(weights) | full
    return {
        path: layer
        if layer.alpha == layer.rank
        else dataclasses.replace(layer, up=layer.up.float() * layer.scale, alpha=float(layer.rank))
        for path, layer in weights.items()
    }


def with_one_alpha(weights: Mapping[str, LayerWeights]) -> dict[str, LayerWeights]:
    """The same adapter with one alpha for all layers of a model: what differs from the most common goes into ``up``.

    diffusers looks alphas of kohya's layout up under wrong names as soon as they differ, and then scales layers
    wrongly. Our own adapters have one alpha and stay bit for bit as they are.
    """
    common = {
        root: Counter(layer.alpha for path, layer in weights.items() if path.startswith(f"{root}.")).most_common(1)[0][
            0
        ]
        for root in {path.split(".", 1)[0] for path in weights}
    }
    level: dict[str, LayerWeights] = {}
    for path, layer in weights.items():
        alpha = common[path.split(".", 1)[0]]
        if layer.alpha != alpha:
            layer = dataclasses.replace(layer, up=layer.up.float() * (layer.alpha / alpha), alpha=alpha)
        level[path] = layer
    return level


def write_style(
    path: Path | str,
    weights: Mapping[str, LayerWeights],
    *,
    layout: Layout = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    layers_per_block: int = 2,
) -> None:
    """Write an adapter file atomically; the same adapter and metadata give the same bytes.

    Args:
        weights: by root-qualified path, as `Bank.weights_of` gives them. What other tools' methods do is written with
            two matrices, exactly. Words that were trained are an embedding file, whatever the layout.
        metadata: strings for the header; ``sshs_model_hash`` is added, and PEFT's settings are written anew.
        dtype: of the weights. fp32 is the default because a style's file is a few MB anyway, and because what is
            verified, shared or trained further is then exactly what was trained; fp16 halves it.
        layers_per_block: of the UNet, which the names of Stability's original code count by.

    Raises:
        RunError: there is nothing to write, a value is not finite in ``dtype``, or a layer depends on the base.
    """
    path = Path(path)
    level = laid_out(weights, layout)
    if not level:
        raise RunError(f"{path} was not written: the adapter has no layers.")
    for where, layer in level.items():
        if method_of(layer).needs_base:
            raise RunError(f"{path} was not written: what {layer.method} does to {where} depends on the base.")
        if layer.method in _KOHYA_ONLY and layout != "kohya":
            raise RunError(
                f"{path} was not written: {where} has {_KOHYA_ONLY[layer.method]}, for which the {layout} layout has "
                "no place; choose kohya's."
            )
    if words.holds_words(level):
        vectors = {name: tensor.to("cpu", dtype) for name, tensor in words.tensors_of(level).items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in vectors.values()):
            raise RunError(f"{path} was not written: the vectors of its words are not finite.")
        safetensors_file.write(path, vectors, words.metadata_of(level, metadata or {}))
        return
    original = has_original_names(level, metadata or {})
    tensors: dict[str, Tensor] = {}
    for where, layer in sorted(level.items()):
        down, up = layer.down.detach().to("cpu", dtype), layer.up.detach().to("cpu", dtype)
        native = {n: layer.extra[n.part].detach().to("cpu", dtype) for n in NATIVE_TENSORS if n.method == layer.method}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in (down, up, *native.values())):
            raise RunError(f"{path} was not written: the weights of {where} are not finite.")
        if layout == "kohya":
            stem = kohya_stem(where, original=original, layers_per_block=layers_per_block)
            if layer.method == "full":
                tensors[f"{stem}.diff"] = (layer.scale * whole(layer)).detach().to("cpu", dtype)
                continue
            if layer.method == "prefix":
                tensors |= {f"{stem}.prefix_keys": down, f"{stem}.prefix_values": up.T.contiguous()}
                continue
            if layer.method == "bottleneck":
                tensors |= {f"{stem}.bottleneck_down": down, f"{stem}.bottleneck_up": up}
                continue
            tensors[f"{stem}.lora_down.weight"] = down
            tensors[f"{stem}.lora_up.weight"] = up
            tensors[f"{stem}.alpha"] = torch.tensor(float(layer.alpha))
            if layer.method == "dora by inputs":
                lengths = layer.extra["magnitude"].detach().to("cpu", dtype)
                tensors[f"{stem}.dora_scale"] = lengths.reshape(1, -1, *[1] * (down.dim() - 2))
            if "bias" in layer.extra:
                tensors[f"{stem}.diff_b"] = layer.extra["bias"].detach().to("cpu", dtype)
            for each, value in native.items():
                tensors[f"{stem}.{each.kohya}"] = value.reshape(-1, *[1] * (down.dim() - 1))
        else:
            stem = diffusers_stem(where)
            tensors[f"{stem}.lora_A.weight"] = down
            tensors[f"{stem}.lora_B.weight"] = up
            for each, value in native.items():
                tensors[f"{stem}.{each.diffusers}"] = value.reshape(1, -1, 1, 1) if down.dim() == 4 else value
    # A file in kohya's layout that also holds PEFT's settings is refused by diffusers, which finds alpha twice.
    header = {key: value for key, value in (metadata or {}).items() if key not in (peft_config.KEY, ALPHA_KEY)}
    if layout == "diffusers":
        shapes = {where: (layer.rank, layer.alpha) for where, layer in level.items()}
        dora = any(layer.method == "dora" for layer in level.values())
        if "ss_network_alpha" in header:
            header["ss_network_alpha"] = header.get("ss_network_dim", "Dynamic")
        header[peft_config.KEY] = peft_config.compose(shapes, DIFFUSERS_ROOTS, dora=dora)
    safetensors_file.write(path, tensors, header)


def has_original_names(weights: Mapping[str, LayerWeights], metadata: Mapping[str, str]) -> bool:
    """Whether kohya's layout names these layers as Stability's original code does: by what is known of the base."""
    family = FAMILIES.get(family_of(metadata) or "") or likely_family(weights)
    return family is not None and family.original_names


def write_again(source: Path, target: Path, layout: Layout, title: str, *, half: bool = False) -> None:
    """Write a file's weights as they are (same number format, or fp16 with ``half``) in a layout, under a title.

    Raises:
        AdapterFileError: the source cannot be read.
    """
    file = read_style(source, alpha=BEFORE_ASKED)
    dtype = torch.float16 if half else next(iter(file.layers.values())).down.dtype
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {**file.metadata, **dict.fromkeys(TITLE_KEYS, title)}
    write_style(target, file.layers, layout=layout, metadata=metadata, dtype=dtype)
