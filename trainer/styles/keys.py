"""Which layer a tensor of a style file belongs to, and what it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header
from trainer.styles.names import NATIVE_TENSORS
from trainer.styles.unsupported import explain

# What is left of a name when the layer is taken off, and the part that it is. PEFT may put an adapter's name between.
_BARE = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    **{native.kohya: native.kohya for native in NATIVE_TENSORS},
    **{f"hada_w{i}_{side}": f"hada_w{i}_{side}" for i in (1, 2) for side in "ab"},
    **{f"hada_t{i}": f"hada_t{i}" for i in (1, 2)},
    **{f"lokr_w{i}{side}": f"lokr_w{i}{side}" for i in (1, 2) for side in ("", "_a", "_b")},
    "lokr_t2": "lokr_t2",
    **{f"{half}.weight": f"glora_{half}" for half in ("a1", "a2", "b1", "b2", "bm")},
    "bottleneck_down": "bottleneck_down",
    "bottleneck_up": "bottleneck_up",
    "prefix_keys": "prefix_keys",
    "prefix_values": "prefix_values",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
}
_BARE_KEY = re.compile("(.+)\\.(" + "|".join(map(re.escape, sorted(_BARE, key=len, reverse=True))) + ")")
_PEFT_NATIVE = {native.diffusers: native.part for native in NATIVE_TENSORS}
_PEFT_KEY = re.compile(r"(.+)\.lora_(A|B)(?:\.[^.]+)?\.(weight|bias)")
_PEFT_NATIVE_KEY = re.compile(rf"(.+)\.({'|'.join(_PEFT_NATIVE)})(?:\.[^.]+){{0,2}}")
_OLD_KEY = re.compile(r"(.+)\.lora(?:_linear_layer)?\.(down|up)\.weight")
_OLD_ATTENTION = re.compile(r"(.+?)(\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight")

OLDER = "diffusers, older"
"""The naming that diffusers had before PEFT. It knew no alpha: the update always counted once."""


@dataclass(frozen=True)
class Place:
    """What a tensor is.

    Attributes:
        module: its layer as the file names it.
        part: what it is there: ``down``, ``up``, ``alpha``, ``hada_w1_a`` ...
        style: of naming, where the tensor's own name tells; else empty.
    """

    module: str
    part: str
    style: str = ""


def place_of(key: str) -> Place | None:
    """What a tensor is by its name; None where no tool that is known names one so."""
    if match := _PEFT_KEY.fullmatch(key):
        if match[3] == "bias":
            return Place(match[1], "lora_bias", "diffusers") if match[2] == "B" else None
        return Place(match[1], "down" if match[2] == "A" else "up", "diffusers")
    if match := _OLD_ATTENTION.fullmatch(key):
        inner = "self_attn" in match[1] and f"{match[3]}_proj"
        layer = inner or ("to_out.0" if match[3] == "out" else f"to_{match[3]}")
        return Place(f"{match[1]}.{layer}", match[4], OLDER)
    if match := _OLD_KEY.fullmatch(key):
        return Place(match[1], match[2], OLDER)
    if match := _PEFT_NATIVE_KEY.fullmatch(key):
        return Place(match[1], _PEFT_NATIVE[match[2]], "diffusers")
    if match := _BARE_KEY.fullmatch(key):
        return Place(match[1], _BARE[match[2]])
    return None


def sort_keys(header: Header) -> tuple[dict[str, Place], list[str]]:
    """What each tensor of a file is, by its name, and notes on what is left out.

    Raises:
        AdapterFileError: a tensor belongs to something that is not read here.
    """
    found: dict[str, Place] = {}
    embeddings = 0
    odd: list[str] = []
    for key in header.entries:
        if (place := place_of(key)) is not None:
            found[key] = place
        elif key.startswith("bundle_emb."):
            embeddings += 1
        else:
            odd.append(key)
    if odd:
        reason = explain(header.path, header.entries)
        raise AdapterFileError(reason or f"{header.path} holds {odd[0]}, which is no part of a LoRA.")
    return found, [f"{embeddings} tensors of embeddings that came with it are left out."] if embeddings else []


def two_encoders(places: Iterable[Place]) -> bool:
    """Whether a file has layers of a second text encoder."""
    second = ("text_encoder_2.", "text_encoders.clip_g.", "clip_g.", "lora_te2")
    return any(place.module.removeprefix("base_model.model.").startswith(second) for place in places)


def layout_of(places: Iterable[Place], *, original: bool) -> str:
    """How a file's tensors are named, for people.

    Args:
        original: whether layers have the names of Stability's original code.
    """
    styles = {_naming(place, original=original) for place in places} - {""}
    named = " and ".join(sorted(styles)) or "diffusers"
    return f"{named}, original names" if original and named == "kohya" else named


def _naming(place: Place, *, original: bool) -> str:
    module = place.module.removeprefix("base_model.model.")
    for naming, prefixes in _NAMINGS.items():
        if module.startswith(prefixes):
            return naming
    if original and module.startswith("unet."):
        return "OneTrainer"
    return place.style


_NAMINGS = {
    "kohya": ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"),
    "OneTrainer": ("lora_unet.", "lora_te.", "lora_te1.", "lora_te2.", "clip_l.", "clip_g."),
    "LyCORIS wrapper": ("lycoris_",),
    "ComfyUI": ("diffusion_model.", "text_encoders."),
}
