"""How other tools name the layers of a Stable Diffusion model, and what those names are here.

Here a layer is a root (``unet``, ``te``, ``te1``, ``te2``) and its dotted path in diffusers' and transformers' models,
where paths in text encoders always carry ``text_model.``, whatever the installed transformers calls its modules.

kohya flattens dots to underscores (``down_blocks_0_attentions_1``), and for SDXL it uses the names of Stability's
original code (``input_blocks_4_1``), whose blocks count through where diffusers' are nested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Every name of a module that has an underscore of its own, in diffusers, in the original code and in CLIP.
_COMPOUND = (
    "add_embedding",
    "conv_in",
    "conv_norm_out",
    "conv_out",
    "conv_shortcut",
    "down_blocks",
    "emb_layers",
    "final_layer_norm",
    "in_layers",
    "input_blocks",
    "k_proj",
    "label_emb",
    "layer_norm1",
    "layer_norm2",
    "linear_1",
    "linear_2",
    "mid_block",
    "middle_block",
    "out_layers",
    "out_proj",
    "output_blocks",
    "position_embedding",
    "proj_in",
    "proj_out",
    "q_proj",
    "self_attn",
    "skip_connection",
    "text_model",
    "text_projection",
    "time_emb_proj",
    "time_embed",
    "time_embedding",
    "to_k",
    "to_out",
    "to_q",
    "to_v",
    "token_embedding",
    "transformer_blocks",
    "up_blocks",
    "v_proj",
)
_WORD = re.compile("(?:" + "|".join(sorted(_COMPOUND, key=len, reverse=True)) + r"|[^_]+)(?=_|$)")

ORIGINAL_BLOCKS = ("input_blocks", "middle_block", "output_blocks")
_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE_BLOCKS = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)")


def flatten(path: str) -> str:
    """A dotted path as kohya writes it."""
    return path.replace(".", "_")


def unflatten(flat: str) -> str:
    """The dotted path behind a flattened one, without knowing the model: names with own underscores are known."""
    return ".".join(_WORD.findall(flat))


def from_original(path: str, layers_per_block: int = 2) -> str | None:
    """A dotted path of the original code's UNet in diffusers' names; None where it names no layer.

    Args:
        layers_per_block: residual layers per block of the UNet; 2 in every released Stable Diffusion.
    """
    if path in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[path]
    head, _, rest = path.partition(".")
    if head == "middle_block":
        part, _, rest = rest.partition(".")
        place = _MIDDLE.get(part)
        return None if place is None else _within(f"mid_block.{place}", rest)
    match = _BLOCK.fullmatch(path)
    if match is None:
        return None
    side, number, part, rest = match.group(1), int(match.group(2)), match.group(3), match.group(4)
    if side == "input_blocks":
        block, layer = divmod(number - 1, layers_per_block + 1)
        if rest == "op":
            return f"down_blocks.{block}.downsamplers.0.conv"
        stage = f"down_blocks.{block}"
    else:
        block, layer = divmod(number, layers_per_block + 1)
        if rest == "conv":
            return f"up_blocks.{block}.upsamplers.0.conv"
        stage = f"up_blocks.{block}"
    kinds = {"0": f"{stage}.resnets.{layer}", "1": f"{stage}.attentions.{layer}"}
    return _within(kinds[part], rest) if part in kinds else None


def text_path(path: str) -> str:
    """A text encoder's path with ``text_model.`` in front, where it belongs."""
    return path if path.startswith(("text_model.", "text_projection")) else f"text_model.{path}"


def installed_path(path: str, known: Iterable[str]) -> str | None:
    """The name that a path (without its root) has in a model at hand, or None when the model has no such module."""
    names = known if isinstance(known, set | frozenset | dict) else set(known)
    for candidate in (path, path.removeprefix("text_model."), f"text_model.{path}"):
        if candidate in names:
            return candidate
    return None


def root_at_hand(root: str, roots: Iterable[str]) -> str:
    """``te`` and ``te1`` are both the first text encoder: the one of them that ``roots`` has."""
    available = set(roots)
    other = {"te": "te1", "te1": "te"}.get(root)
    return other if root not in available and other is not None and other in available else root


def _within(place: str, rest: str) -> str:
    return f"{place}.{_RESNET.get(rest, rest)}" if ".resnets." in place else f"{place}.{rest}"
