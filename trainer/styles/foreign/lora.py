"""LoRA and what was built around it: LoCon with Tucker's core, DoRA's magnitudes, biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size
from trainer.styles.names import NATIVE_TENSORS

if TYPE_CHECKING:
    from torch import Tensor

_VECTORS = {native.part: native for native in NATIVE_TENSORS}


class LoraForm(Form):
    """``alpha / r B A``; with a core, A is the 1 x 1 convolution before it: ``A'[i] = sum_j core[i, j] A[j]``.

    A bias comes as ``diff_b`` (of ComfyUI's extraction, which alpha does not scale) or as PEFT's ``lora_B.bias``, which
    it does.
    """

    name: ClassVar[str] = "LoRA"
    marks: ClassVar[frozenset[str]] = frozenset({"down", "up", *_VECTORS})
    parts: ClassVar[frozenset[str]] = frozenset({"down", "up", "mid", "alpha", "diff_b", "lora_bias", *_VECTORS})

    def check_shapes(self, layer: Layer) -> None:
        for part in ("down", "up"):
            if part not in layer:
                layer.refuse(f"is incomplete: {layer.where} has no {part} matrix.")
        down, up = layer.shape("down"), layer.shape("up")
        if len(down) not in (2, 4) or len(down) != len(up) or up[1] != down[0] or not math.prod(down) * math.prod(up):
            layer.refuse(f"is damaged: the matrices of {layer.where} are {down} and {up}, which do not go together.")
        if up[2:] not in ((), (1, 1)):
            layer.refuse(f"has an up-convolution of {up} in {layer.where}, which is no LoRA.")
        kernel = down[2:]
        if "mid" in layer:
            kernel = layer.shape("mid")[2:]
            if len(down) != 4 or layer.shape("mid") != (down[0], down[0], *kernel) or down[2:] != (1, 1):
                layer.disagree("down", "up", "mid")
            check_size(layer, up[0], down[1] * math.prod(kernel))
        room = min(down[1] * math.prod(kernel), up[0])
        if down[0] > room:
            layer.refuse(
                f"has rank {down[0]} in {layer.where}, but the layer has room for {room} at most; a resized copy would "
                "hold the same."
            )
        for part in _VECTORS.keys() & layer.entries.keys():
            self._check_vector(layer, part, up[0])
        for part in {"diff_b", "lora_bias"} & layer.entries.keys():
            if layer.shape(part) != (up[0],):
                layer.refuse(
                    f"is damaged: {layer.names[part]} is {layer.shape(part)}, but should hold one value for each of "
                    f"{up[0]} outputs."
                )
            if _VECTORS.keys() & layer.entries.keys():
                layer.refuse(f"changes the bias of {layer.where} beside DoRA, which Patina does not read.")

    def rank(self, layer: Layer) -> int:
        return layer.shape("down")[0]

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        import torch

        down, up = tensors["down"], tensors["up"]
        if "mid" in tensors:
            down = torch.einsum("ijkl,jn->inkl", tensors["mid"].float(), down.float().flatten(1))
        for part, native in _VECTORS.items():
            if part in tensors:
                return LayerWeights(down, up, alpha, native.method, {part: tensors[part].flatten()})
        if "diff_b" in tensors or "lora_bias" in tensors:
            own = tensors.get("diff_b")
            scaled = tensors.get("lora_bias")
            bias = own if scaled is None else scaled.float() * (alpha / down.shape[0]) + (0 if own is None else own)
            return LayerWeights(down, up, alpha, "lora with bias", {"bias": bias})
        return LayerWeights(down, up, alpha)

    def _check_vector(self, layer: Layer, part: str, out: int) -> None:
        shape, name = layer.shape(part), layer.names[part].rpartition(".")[2]
        if layer.names[part].endswith(_VECTORS[part].kohya) and shape[:1] == (1,) != (out,):
            layer.refuse(
                f"has a {name} for each input of {layer.where}, as older versions of LyCORIS wrote it; Patina reads "
                "files with one for each output."
            )
        if math.prod(shape) != out:
            name = _VECTORS[part].kohya if name == _VECTORS[part].kohya else _VECTORS[part].diffusers
            layer.refuse(
                f"is damaged: {name} of {layer.where} is {shape}, but should hold one value for each of {out} outputs."
            )
