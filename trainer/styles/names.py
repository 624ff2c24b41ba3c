"""How other tools name the layers of a Stable Diffusion model, and what those names are here.

Here a layer is a root (``unet``, ``te``, ``te1``, ``te2``) and its dotted path in diffusers' and transformers' models,
where paths in text encoders always carry ``text_model.``, whatever the installed transformers calls its modules.

kohya flattens dots to underscores (``down_blocks_0_attentions_1``), and for SDXL it uses the names of Stability's
original code (``input_blocks_4_1``), whose blocks count through where diffusers' are nested.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
_MOST_BLOCKS = 16
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_RESNET_BACK = {ours: theirs for theirs, ours in _RESNET.items()}
_PLACES = {
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}
# An upsampler comes last in its block: third behind an attention, second where there is none.
_UPSAMPLER = re.compile(r"(output_blocks\.\d+)\.1\.conv")

_UNET_PARTS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding.", "add_embedding.")


@dataclass(frozen=True)
class NativeTensor:
    """A tensor that a layer of some method has in a file beside its two matrices.

    Attributes:
        method, part: of `LayerWeights.method` and `LayerWeights.extra`; a vector with one value for each output.
        kohya: its name in kohya's layout, where it is (out, 1[, 1, 1]).
        diffusers: its name in diffusers' and PEFT's, where it is (out,), or (1, out, 1, 1) of a convolution.
    """

    method: str
    part: str
    kohya: str
    diffusers: str


NATIVE_TENSORS = (NativeTensor("dora", "magnitude", kohya="dora_scale", diffusers="lora_magnitude_vector"),)


def flatten(path: str) -> str:
    """A dotted path as kohya writes it."""
    return path.replace(".", "_")


def unflatten(flat: str) -> str:
    """The dotted path behind a flattened one, without knowing the model: names with own underscores are known."""
    return ".".join(_WORD.findall(flat))


DIFFUSERS_ROOTS: Mapping[str, str] = {
    "unet": "unet",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
}
"""What diffusers' files put in front of each model's layers."""


def kohya_stem(where: str, *, original: bool = False, layers_per_block: int = 2) -> str:
    """What kohya's layout calls a layer, by its root-qualified path.

    Args:
        original: name the UNet's layers as Stability's original code does, which SDXL's files do.
        layers_per_block: as for `to_original`.
    """
    root, _, inner = where.partition(".")
    if original and root == "unet":
        inner = to_original(inner, layers_per_block) or inner
    return f"lora_{root}_{flatten(_in_files(root, inner))}"


def diffusers_stem(where: str) -> str:
    """What diffusers' layout calls a layer, by its root-qualified path."""
    root, _, inner = where.partition(".")
    return f"{DIFFUSERS_ROOTS.get(root, root)}.{_in_files(root, inner)}"


def as_in_files(where: str) -> str:
    """A root-qualified path of a model at hand as files name it: those of text encoders have ``text_model.``."""
    root, _, inner = where.partition(".")
    return f"{root}.{_in_files(root, inner)}"


def _in_files(root: str, inner: str) -> str:
    return text_path(inner) if root in ("te", "te1", "te2") else inner


def from_original(path: str, layers_per_block: int = 2) -> str | None:
    """A dotted path of the original code's UNet in diffusers' names; None where it names no layer.

    Args:
        layers_per_block: residual layers per block of the UNet; 2 in every released Stable Diffusion.
    """
    return _renamed(_UPSAMPLER.sub(r"\1.2.conv", path), _places(layers_per_block), _RESNET)


def to_original(path: str, layers_per_block: int = 2) -> str | None:
    """A dotted path of diffusers' UNet in the original code's names, the inverse of `from_original`.

    An upsampler is named as behind an attention, which is so in every block of SDXL that has one.
    """
    return _renamed(path, _places_back(layers_per_block), _RESNET_BACK)


@functools.cache
def _places_back(layers_per_block: int) -> Mapping[str, str]:
    return {ours: theirs for theirs, ours in _places(layers_per_block).items()}


@functools.cache
def _places(layers_per_block: int) -> Mapping[str, str]:
    """The original code's place of every part of a UNet -> diffusers'."""
    places = dict(_PLACES)
    for block in range(_MOST_BLOCKS):
        first, last = (layers_per_block + 1) * block, (layers_per_block + 1) * block + layers_per_block
        for layer in range(layers_per_block + 1):
            for part, kind in enumerate(("resnets", "attentions")):
                if layer < layers_per_block:
                    places[f"input_blocks.{first + layer + 1}.{part}"] = f"down_blocks.{block}.{kind}.{layer}"
                places[f"output_blocks.{first + layer}.{part}"] = f"up_blocks.{block}.{kind}.{layer}"
        places[f"input_blocks.{last + 1}.0.op"] = f"down_blocks.{block}.downsamplers.0.conv"
        places[f"output_blocks.{last}.2.conv"] = f"up_blocks.{block}.upsamplers.0.conv"
    return places


def _renamed(path: str, places: Mapping[str, str], leaves: Mapping[str, str]) -> str | None:
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        place, leaf = ".".join(parts[:end]), ".".join(parts[end:])
        if place in places:
            if "resnets" in place or "resnets" in places[place]:
                return f"{places[place]}.{leaves[leaf]}" if leaf in leaves else None
            return f"{places[place]}.{leaf}" if leaf else places[place]
    return None


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


class Places:
    """Finds where a module as a file names it is in Stable Diffusion's models."""

    def __init__(self, known: Mapping[str, frozenset[str]], *, two_encoders: bool) -> None:
        self._known = known
        self._flat = {
            root: {flatten(n if root == "unet" else text_path(n)): n for n in names} for root, names in known.items()
        }
        self._first_encoder = "te1" if two_encoders or "te1" in known else "te"
        self._layers_per_block = count_layers_per_block(known.get("unet", frozenset()))
        self.original = False

    def find(self, module: str) -> str | None:
        """Root-qualified path, or None."""
        module = module.removeprefix("base_model.model.")
        flat = module.startswith(("lora_", "lycoris_")) and "." not in module
        root, path = self._flattened(module) if flat else self._dotted(module)
        if path is None:
            return None
        if root in self._known:
            inner = installed_path(path, self._known[root])
            if inner is None:
                return None
            path = inner
        return f"{root}.{path if root == 'unet' else text_path(path)}"

    def _flattened(self, module: str) -> tuple[str, str | None]:
        if module.startswith("lycoris_"):
            flat = module.removeprefix("lycoris_")
            root = self._first_encoder if flat.startswith("text_model_") else "unet"
        else:
            root, _, flat = module.removeprefix("lora_").partition("_")
        root = root_at_hand(root, self._known) if self._known else root
        if root in self._flat and flat in self._flat[root]:
            return root, self._flat[root][flat]
        path = unflatten(flat)
        return root, path if root != "unet" else self._in_unet(path)

    def _dotted(self, module: str) -> tuple[str, str | None]:
        for prefix, root in _DOTTED_ROOTS.items():
            if module.startswith(prefix):
                path = module.removeprefix(prefix)
                root = root or self._first_encoder
                root = root_at_hand(root, self._known) if self._known else root
                return root, path if root != "unet" else self._in_unet(path)
        if module.startswith(("text_model.", "encoder.layers.")):
            return self._first_encoder, module
        return "unet", self._in_unet(module)

    def _in_unet(self, path: str) -> str | None:
        if path.startswith((*ORIGINAL_BLOCKS, "time_embed.", "label_emb.", "out.")):
            self.original = True
            return from_original(path, self._layers_per_block)
        return path if path.startswith(_UNET_PARTS) else None


# Models as files with dotted names call them; None is the first text encoder, whichever that is.
_DOTTED_ROOTS: Mapping[str, str | None] = {
    "unet.": "unet",
    "lora_unet.": "unet",
    "diffusion_model.": "unet",
    "text_encoder_2.": "te2",
    "text_encoder.": None,
    "text_encoders.clip_l.transformer.": None,
    "text_encoders.clip_h.transformer.": None,
    "text_encoders.clip_g.transformer.": "te2",
    "clip_l.": None,
    "clip_g.": "te2",
    "lora_te.": None,
    "lora_te1.": "te1",
    "lora_te2.": "te2",
}


def count_layers_per_block(names: Iterable[str]) -> int:
    """Residual layers per block, from the first block's module names; 2 where nothing is known."""
    found = [int(m[1]) for name in names if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)", name))]
    return max(found) + 1 if found else 2
