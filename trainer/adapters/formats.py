"""Adapter files: reading what this and other tools write, and writing what they read.

Layouts read:

- kohya: ``lora_unet_<flattened path>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``, with diffusers' names or
  with those of Stability's original code; text encoders as ``lora_te_``, ``lora_te1_``, ``lora_te2_``.
- diffusers and PEFT: ``unet.<path>.lora_A.weight``, ``.lora_B.weight``; alpha only in the header, under
  ``lora_adapter_metadata``, or in an ``adapter_config.json`` beside the file; PEFT's ``base_model.model.`` in front.
- older diffusers: ``unet.<path>.lora.down.weight``, ``unet.<...attn1>.processor.to_q_lora.down.weight``.

Every reader applies ``alpha / rank``, so that is what `LayerWeights` holds, whatever the method was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from trainer.adapters import container, peft_config
from trainer.adapters.families import made_for
from trainer.adapters.keys import Places, sort_keys
from trainer.adapters.names import flatten, text_path
from trainer.adapters.unsupported import explain
from trainer.errors import AdapterFileError, RunError

Layout = Literal["kohya", "diffusers"]


@dataclass(frozen=True)
class LayerWeights:
    """One layer of an adapter.

    Attributes:
        down: A, (r, in) or (r, in, kh, kw).
        up: B, (out, r) or (out, r, 1, 1).
        alpha: the update counts ``alpha / r``.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """The factor on ``B A x`` at strength 1."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class AdapterFile:
    """What is in an adapter file.

    Attributes:
        path: the file.
        layout: how its tensors are named: ``kohya``, ``kohya, original names``, ``diffusers`` or ``diffusers, older``.
        layers: by root-qualified path, such as ``unet.mid_block...attn2.to_q`` or ``te1.text_model.encoder...``.
        metadata: the header's strings.
        notes: what a person should know about the reading.
    """

    path: Path
    layout: str
    layers: dict[str, LayerWeights]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()


def read_adapter(
    path: Path | str,
    model_names: Mapping[str, Iterable[str]] | None = None,
    *,
    check_values: bool = True,
) -> AdapterFile:
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
    header = container.read_header(path)
    known = {root: frozenset(names) for root, names in (model_names or {}).items()}
    parts, notes = sort_keys(header)
    places = Places(known, two_encoders=any("text_encoder_2." in module for module, _, _ in parts.values()))
    tensors = container.read_tensors(header, parts)
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
    return AdapterFile(path, layout, dict(sorted(layers.items())), header.metadata, tuple(notes))


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
            layer = LayerWeights(layer.down, layer.up.float() * (layer.alpha / alpha), alpha)
        level[path] = layer
    return level


def write_adapter(
    path: Path | str,
    weights: Mapping[str, LayerWeights],
    *,
    layout: Layout = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an adapter file atomically; the same adapter and metadata give the same bytes.

    Args:
        weights: by root-qualified path, as `Bank.weights_of` gives them.
        metadata: strings for the header; ``sshs_model_hash`` is added, and PEFT's settings are written anew.
        dtype: of the weights. fp32 is the default because a style's file is a few MB anyway, and because what is
            verified, shared or trained further is then exactly what was trained; fp16 halves it.

    Raises:
        RunError: there is nothing to write, or a value is not finite in ``dtype``.
    """
    path = Path(path)
    level = with_one_alpha(weights)
    if not level:
        raise RunError(f"{path} was not written: the adapter has no layers.")
    tensors: dict[str, Tensor] = {}
    for where, layer in sorted(level.items()):
        down, up = layer.down.detach().to("cpu", dtype), layer.up.detach().to("cpu", dtype)
        if not bool(torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise RunError(f"{path} was not written: the weights of {where} are not finite.")
        root, _, inner = where.partition(".")
        inner = inner if root == "unet" else text_path(inner)
        if layout == "kohya":
            stem = f"lora_{root}_{flatten(inner)}"
            tensors[f"{stem}.lora_down.weight"] = down
            tensors[f"{stem}.lora_up.weight"] = up
            tensors[f"{stem}.alpha"] = torch.tensor(float(layer.alpha))
        else:
            stem = f"{_DIFFUSERS_ROOT[root]}.{inner}"
            tensors[f"{stem}.lora_A.weight"] = down
            tensors[f"{stem}.lora_B.weight"] = up
    # A file in kohya's layout that also holds PEFT's settings is refused by diffusers, which finds alpha twice.
    header = {key: value for key, value in (metadata or {}).items() if key != peft_config.KEY}
    if layout == "diffusers":
        shapes = {where: (layer.rank, layer.alpha) for where, layer in level.items()}
        header[peft_config.KEY] = peft_config.compose(shapes, _DIFFUSERS_ROOT)
    container.write(path, tensors, header)


_DIFFUSERS_ROOT: Mapping[str, str] = {
    "unet": "unet",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
}


def _refuse_module(path: Path, module: str, key: str, known: Mapping[str, Any]) -> NoReturn:
    if reason := explain(path, [key]):
        raise AdapterFileError(reason)
    if not known:
        raise AdapterFileError(f"{path} adapts {module}, which is no layer of a Stable Diffusion model.")
    whole = read_adapter(path, check_values=False)
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
