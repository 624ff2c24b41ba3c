"""Reading style files, whoever wrote them.

Names read:

- kohya: ``lora_unet_<flattened path>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``, with diffusers' names or
  with those of Stability's original code; text encoders as ``lora_te_``, ``lora_te1_``, ``lora_te2_``.
- diffusers and PEFT: ``unet.<path>.lora_A.weight``, ``.lora_B.weight``; alpha only in the header, under
  ``lora_adapter_metadata``, or in an ``adapter_config.json`` beside the file; PEFT's ``base_model.model.`` in front.
- older diffusers: ``unet.<path>.lora.down.weight``, ``unet.<...attn1>.processor.to_q_lora.down.weight``.
- LyCORIS's wrapper: ``lycoris_<flattened path>``.
- ComfyUI: ``diffusion_model.<original path>``, ``text_encoders.clip_l.transformer.<path>``.
- OneTrainer: ``lora_unet.<path>``, or ``unet.<original path>`` and ``clip_l.<path>``.
- embeddings of textual inversion: see `trainer.styles.words`; PEFT's VeRA: `trainer.styles.vera`.

What a layer is made with (LoRA, LoHa, LoKr ...) is a module each in `trainer.styles.foreign`. Every reader applies
``alpha / rank``, so that is what `LayerWeights` holds, whatever the method was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError, AlphaUnknown
from trainer.safetensors_file import Header, read_header, read_tensors
from trainer.styles import peft_config, vera, words
from trainer.styles.alpha import MAX_ALPHA, Alpha, usable
from trainer.styles.file import StyleFile, made_for
from trainer.styles.foreign import form_of
from trainer.styles.foreign.form import Form, Layer
from trainer.styles.keys import Place, layout_of, sort_keys, two_encoders
from trainer.styles.names import Places
from trainer.styles.peft_config import PeftConfig
from trainer.styles.unsupported import explain


def read_style(
    path: Path | str,
    model_names: Mapping[str, Iterable[str]] | None = None,
    *,
    check_values: bool = True,
    alpha: Alpha | None = None,
) -> StyleFile:
    """Read a style file of any supported layout and form. Takes as much memory as the file is large.

    Every update is as the file has it, nothing is rounded or left out but what the file's notes say. Layers that are
    neither LoRA nor DoRA keep their own method; `Method.as_lora` writes them with two matrices.

    Args:
        model_names: dotted module names by root (``unet``, ``te`` ...) of the models it is meant for. With them,
            names that no such model has are refused; without, names are taken apart by what is known of Stable
            Diffusion's models. Roots that are not among them are not checked.
        check_values: refuse files with values that are not finite, alphas that nothing can be scaled by, and alphas
            that are nowhere.
        alpha: what the file does not say itself; it is not asked where the file does.

    Raises:
        AlphaUnknown: alpha is nowhere, and ``alpha`` is None.
        AdapterFileError: the file is no safetensors, is damaged, holds something that is not read or a model other
            than Stable Diffusion, or does not fit ``model_names``.
    """
    path = Path(path)
    header = read_header(path, AdapterFileError)
    known = {root: frozenset(names) for root, names in (model_names or {}).items()}
    if (whole := _without_modules(header, known)) is not None:
        if check_values:
            for name, weights in whole.layers.items():
                _refuse_values(path, name, weights, alpha_known=True)
        return whole
    keys, notes = sort_keys(header)
    modules: dict[str, dict[str, str]] = {}
    for key, place in keys.items():
        if modules.setdefault(place.module, {}).setdefault(place.part, key) != key:
            raise AdapterFileError(f"{path} holds {place.part} of {place.module} twice, under two names.")
    norms = {module: parts for module, parts in modules.items() if _of_norm(header, parts)}
    places = Places(known, two_encoders=two_encoders(keys.values()))
    found: dict[str, tuple[Form, Layer, str]] = {}
    for module, parts in modules.items():
        if module in norms:
            continue
        where = places.find(module)
        if where is None:
            _refuse_module(header, module, parts, known)
        if where in found:
            raise AdapterFileError(f"{path} holds {where} twice, under two names.")
        # Some tools leave a bare alpha behind for layers they did not train.
        form = form_of(parts)
        if form is None and (lone := parts.keys() - {"alpha"}):
            raise AdapterFileError(f"{path} is incomplete: {where} has nothing but {min(lone)}.")
        if form is not None:
            layer = Layer(path, where, {part: header.entries[key] for part, key in parts.items()}, parts)
            found[where] = form, layer, module
    if not found:
        _refuse_empty(path, header, norms)
    for form, layer, _ in found.values():
        form.check(layer)
    configs = peft_config.read(header)
    answer = Alpha.kept(path, header.metadata) or alpha
    layers: dict[str, LayerWeights] = {}
    tensors = read_tensors(header, keys, raises=AdapterFileError)
    unknown = False
    for where, (form, layer, module) in sorted(found.items()):
        own = {part: tensors.pop(key) for part, key in layer.names.items()}
        stated = _stated_alpha(own, form.rank(layer), configs, module, where)
        if stated is None and _says_elsewhere(keys[key] for key in layer.names.values()):
            unknown = unknown or answer is None
            stated = math.nan if answer is None else _answered(answer, layer, form.rank(layer))
        layers[where] = _unfolded(where, form.build(own, float(form.rank(layer) or 1) if stated is None else stated))
        if check_values:
            _refuse_values(path, where, layers[where], alpha_known=not unknown)
    if unknown and check_values:
        raise AlphaUnknown(UNKNOWN_ALPHA.format(path=path))
    if norms:
        notes.append(_left_out(norms, tensors))
    layout = layout_of(keys.values(), original=places.original)
    return StyleFile(path, layout, layers, header.metadata, tuple(notes), alpha_known=not unknown)


def _without_modules(header: Header, known: Mapping[str, frozenset[str]]) -> StyleFile | None:
    """A file whose tensors are not those of a module each: an embedding, or PEFT's VeRA; None for any other."""
    if words.is_embedding(header):
        return StyleFile(header.path, words.LAYOUT, words.read(header), header.metadata)
    if vera.is_vera(header):
        return StyleFile(header.path, "PEFT", vera.read(header, Places(known, two_encoders=False)), header.metadata)
    return None


def _unfolded(where: str, layer: LayerWeights) -> LayerWeights:
    """LyCORIS keeps the factors of a convolution flat; which of the UNet's layers have a kernel is known."""
    if layer.method not in ("loha", "lokr") or layer.down.dim() != 2 or not _THREE_BY_THREE.fullmatch(where):
        return layer
    sides = (layer.down, layer.extra.get("down2", layer.down))
    if any(side.shape[1] % 9 for side in sides):
        return layer
    down, down2 = (side.unflatten(1, (-1, 3, 3)) for side in sides)
    return replace(layer, down=down, extra={**layer.extra, "down2": down2} if "down2" in layer.extra else layer.extra)


_THREE_BY_THREE = re.compile(r"unet\.(.*\.(conv1|conv2|(down|up)samplers\.\d+\.conv)|conv_in|conv_out)")

UNKNOWN_ALPHA = (
    "{path} does not say its alpha, by which its strength is counted: PEFT and diffusers keep it in the file's header "
    "or in an adapter_config.json beside it, and it is in neither. Say it to patina sample, or to patina convert, "
    "which writes it into a copy: --alpha and the number it was trained with, or --alpha rank, which is what diffusers "
    "takes; and --rslora where that was used."
)


def _stated_alpha(
    tensors: Mapping[str, Tensor], rank: int | None, configs: Mapping[str, PeftConfig], module: str, where: str
) -> float | None:
    """What a file says of a layer's alpha, in the convention of `Form.build`; None where it says nothing."""
    if "alpha" in tensors and rank is not None:
        return float(tensors["alpha"].float().reshape(-1)[0])
    return peft_config.alpha_of(configs, module, where, rank)


def _says_elsewhere(places: Iterable[Place]) -> bool:
    """Whether a layer is named as by a tool that keeps alpha outside of the tensors; others mean the rank by none."""
    return any(place.style == "diffusers" or place.module.startswith("base_model.model.") for place in places)


def _answered(answer: Alpha, layer: Layer, rank: int | None) -> float:
    if rank is None and answer.value is not None:
        layer.refuse(
            f"does not show the rank of {layer.where}, by which alpha counts: put its adapter_config.json beside it."
        )
    return answer.of_rank(rank or 1)


def _of_norm(header: Header, parts: Mapping[str, str]) -> bool:
    """Whether tensors change a normalisation layer, or nothing but a bias."""
    own = parts.keys() - {"alpha"}
    flat = "diff" not in parts or len(header.entries[parts["diff"]].shape) == 1
    return bool(own) and own <= {"w_norm", "b_norm", "diff", "diff_b"} and flat


def _left_out(norms: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    keys = [key for parts in norms.values() for part, key in parts.items() if part != "alpha"]
    most = max((float(tensors[key].float().abs().max()) for key in keys if tensors[key].numel()), default=0.0)
    return (
        f"It also changes {len(norms)} normalisation layers or lone biases, by at most {most:.2g}; "
        "these are left out, because their strength cannot be set here, so that pictures differ a little from those of "
        "other tools."
    )


def _refuse_empty(path: Path, header: Header, norms: Mapping[str, Any]) -> NoReturn:
    if norms:
        raise AdapterFileError(
            f"{path} changes nothing but {len(norms)} normalisation layers or biases, whose strength cannot be set "
            "here."
        )
    raise AdapterFileError(explain(path, header.entries) or f"{path} holds no LoRA weights.")


def _refuse_module(header: Header, module: str, parts: Mapping[str, str], known: Mapping[str, Any]) -> NoReturn:
    path = header.path
    if reason := explain(path, {key: header.entries[key] for key in parts.values()}):
        raise AdapterFileError(reason)
    if not known:
        raise AdapterFileError(f"{path} adapts {module}, which is no layer of a Stable Diffusion model.")
    whole = read_style(path, check_values=False)
    raise AdapterFileError(f"{path} does not fit this base: the base has no layer {module}.{made_for(whole.layers)}")


def _refuse_values(path: Path, where: str, layer: LayerWeights, *, alpha_known: bool) -> None:
    tensors = (layer.down, layer.up, *layer.extra.values())
    if not (all(map(_finite, tensors)) and (math.isfinite(layer.alpha) or not alpha_known)):
        raise AdapterFileError(
            f"{path} is broken: the weights of {where} hold values that are not numbers or infinite, "
            "as from a training that diverged."
        )
    if alpha_known and not usable(layer.alpha):
        raise AdapterFileError(
            f"{path} is broken: alpha of {where} is {layer.alpha:g}, but should be a number other than 0 and at most "
            f"{MAX_ALPHA:g}."
        )


def _finite(values: Tensor) -> bool:
    """In pieces, because in one it would take up to five times the memory of the file."""
    return all(bool(torch.isfinite(piece.float()).all()) for piece in values.reshape(-1).split(1 << 20))
