"""Taking the keys of an adapter file apart, whoever wrote it: which layer, and which part of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from trainer.adapters.container import Header
from trainer.adapters.names import (
    ORIGINAL_BLOCKS,
    flatten,
    from_original,
    installed_path,
    root_at_hand,
    text_path,
    unflatten,
)
from trainer.adapters.unsupported import explain
from trainer.errors import AdapterFileError

_SIDES = {"down": "down", "up": "up", "A": "down", "B": "up"}
_UNET_PARTS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding.", "add_embedding.")
_KOHYA_KEY = re.compile(r"(lora_(?:unet|te|te1|te2)_[^.]+)\.lora_(down|up)\.weight")
_PEFT_KEY = re.compile(r"(.+)\.lora_(A|B)(?:\.[^.]+)?\.weight")
_OLD_KEY = re.compile(r"(.+)\.lora(?:_linear_layer)?\.(down|up)\.weight")
_OLD_ATTENTION = re.compile(r"(.+?)(\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight")
_ALPHA_KEY = re.compile(r"(.+)\.alpha")


def sort_keys(header: Header) -> tuple[dict[str, tuple[str, str, str]], list[str]]:
    """Key -> (module as named in the file, ``down`` | ``up`` | ``alpha``, style of naming), and notes."""
    parts: dict[str, tuple[str, str, str]] = {}
    odd: list[str] = []
    embeddings = 0
    for key in header.entries:
        if match := _KOHYA_KEY.fullmatch(key):
            parts[key] = (match[1], match[2], "kohya")
        elif match := _PEFT_KEY.fullmatch(key):
            parts[key] = (match[1], _SIDES[match[2]], "diffusers")
        elif match := _OLD_ATTENTION.fullmatch(key):
            inner = "self_attn" in match[1] and f"{match[3]}_proj"
            layer = inner or ("to_out.0" if match[3] == "out" else f"to_{match[3]}")
            parts[key] = (f"{match[1]}.{layer}", match[4], "diffusers, older")
        elif match := _OLD_KEY.fullmatch(key):
            parts[key] = (match[1], match[2], "diffusers, older")
        elif match := _ALPHA_KEY.fullmatch(key):
            parts[key] = (match[1], "alpha", "")
        elif key.startswith("bundle_emb."):
            embeddings += 1
        else:
            odd.append(key)
    if odd:
        reason = explain(header.path, header.entries)
        raise AdapterFileError(reason or f"{header.path} holds {odd[0]}, which is no part of a LoRA.")
    notes = [f"{embeddings} tensors of embeddings that came with it are left out."] if embeddings else []
    return parts, notes


class Places:
    """Finds where a module as a file names it is in Stable Diffusion's models."""

    def __init__(self, known: Mapping[str, frozenset[str]], *, two_encoders: bool) -> None:
        self._known = known
        self._flat = {
            root: {flatten(n if root == "unet" else text_path(n)): n for n in names} for root, names in known.items()
        }
        self._first_encoder = "te1" if two_encoders or "te1" in known else "te"
        self._layers_per_block = _layers_per_block(known.get("unet", frozenset()))
        self.original = False

    def find(self, module: str) -> str | None:
        """Root-qualified path, or None."""
        root, path = self._flattened(module) if module.startswith("lora_") else self._dotted(module)
        if path is None:
            return None
        if root in self._known:
            inner = installed_path(path, self._known[root])
            if inner is None:
                return None
            path = inner
        return f"{root}.{path if root == 'unet' else text_path(path)}"

    def _flattened(self, module: str) -> tuple[str, str | None]:
        root, _, flat = module.removeprefix("lora_").partition("_")
        root = root_at_hand(root, self._known) if self._known else root
        if root in self._flat and flat in self._flat[root]:
            return root, self._flat[root][flat]
        path = unflatten(flat)
        if root == "unet" and path.startswith((*ORIGINAL_BLOCKS, "time_embed.", "label_emb.", "out.")):
            self.original = True
            return root, from_original(path, self._layers_per_block)
        return root, path if root != "unet" or path.startswith(_UNET_PARTS) else None

    def _dotted(self, module: str) -> tuple[str, str | None]:
        module = module.removeprefix("base_model.model.")
        for prefix, root in (("unet.", "unet"), ("text_encoder_2.", "te2"), ("text_encoder.", self._first_encoder)):
            if module.startswith(prefix):
                return root_at_hand(root, self._known) if self._known else root, module.removeprefix(prefix)
        if module.startswith(("text_model.", "encoder.layers.")):
            return self._first_encoder, module
        return "unet", module if module.startswith(_UNET_PARTS) else None


def _layers_per_block(names: Iterable[str]) -> int:
    """Residual layers per block, from the first block's module names; 2 where nothing is known."""
    found = [int(m[1]) for name in names if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)", name))]
    return max(found) + 1 if found else 2
