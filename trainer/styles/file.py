"""What was read from a style file, and which family of bases its layers point to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.adapters.methods import method_of
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import SDXL, Family, of_text_width


@dataclass(frozen=True)
class StyleFile:
    """What is in an adapter file.

    Attributes:
        path: the file.
        layout: how its tensors are named, such as ``kohya``, ``kohya, original names``, ``diffusers`` or ``ComfyUI``.
        layers: by root-qualified path, such as ``unet.mid_block...attn2.to_q`` or ``te1.text_model.encoder...``.
        metadata: the header's strings.
        notes: what a person should know about the reading.
        alpha_known: whether the file, or somebody, says how strongly it counts; else alpha is not a number.
    """

    path: Path
    layout: str
    layers: dict[str, LayerWeights]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    alpha_known: bool = True


def readers_of(layers: Mapping[str, LayerWeights]) -> tuple[str, ...]:
    """A sentence for each method that not every program reads."""
    methods = {layer.method: method_of(layer) for layer in layers.values()}
    return tuple(f"{methods[name].readers}." for name in sorted(methods) if methods[name].readers)


def text_width(layers: Mapping[str, LayerWeights]) -> int | None:
    """Width of the text features that an adapter was made for, where it adapts the layers that read them."""
    for path, layer in layers.items():
        if path.startswith("unet.") and path.endswith(("attn2.to_k", "attn2.to_v")):
            return method_of(layer).sides(layer)[1][0]
    return None


def likely_family(layers: Mapping[str, LayerWeights]) -> Family | None:
    """The family of bases that an adapter was made for; None where its layers do not tell."""
    width = text_width(layers)
    if width is not None and (family := of_text_width(width)) is not None:
        return family
    return SDXL if any(path.startswith("te2.") for path in layers) else None


def made_for(layers: Mapping[str, LayerWeights]) -> str:
    """A sentence on what an adapter was made for, with a space in front; empty where its layers do not tell."""
    family = likely_family(layers)
    if family is not None:
        return f" It seems to be made for {family.title}."
    width = text_width(layers)
    return f" It is made for text features of width {width}." if width else ""
