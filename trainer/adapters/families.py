"""Which family of bases an adapter was made for, told by its layers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.adapters.formats import LayerWeights

TEXT_WIDTHS: Mapping[int, str] = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Width of the text features that cross-attention reads, and the family that has it."""


def text_width(layers: Mapping[str, LayerWeights]) -> int | None:
    """Width of the text features that an adapter was made for, where it adapts the layers that read them."""
    for path, layer in layers.items():
        if path.startswith("unet.") and path.endswith(("attn2.to_k", "attn2.to_v")):
            return int(layer.down.shape[1])
    return None


def likely_family(layers: Mapping[str, LayerWeights]) -> str | None:
    """The family of bases that an adapter was made for, for people; None where its layers do not tell."""
    width = text_width(layers)
    if width is not None and width in TEXT_WIDTHS:
        return TEXT_WIDTHS[width]
    if any(path.startswith("te2.") for path in layers):
        return "Stable Diffusion XL"
    return None


def made_for(layers: Mapping[str, LayerWeights]) -> str:
    """A sentence on what an adapter was made for, with a space in front; empty where its layers do not tell."""
    family = likely_family(layers)
    if family is not None:
        return f" It seems to be made for {family}."
    width = text_width(layers)
    return f" It is made for text features of width {width}." if width else ""
