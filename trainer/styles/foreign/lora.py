"""LoRA and what was built around it: LoCon with Tucker's core, DoRA's magnitudes, biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, Shape, check_size
from trainer.styles.names import NATIVE_TENSORS

if TYPE_CHECKING:
    from torch import Tensor

# By the names of their parts: kohya's own, because its shapes say more than those of diffusers.
_VECTORS = {part: native for native in NATIVE_TENSORS for part in (native.part, native.kohya)}


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
                columns = _of_inputs(part, tuple(tensors[part].shape), up.shape[0])
                method = "dora by inputs" if columns else native.method
                return LayerWeights(down, up, alpha, method, {native.part: tensors[part].flatten()})
        biases = [tensors["diff_b"].float()] if "diff_b" in tensors else []
        if "lora_bias" in tensors:
            biases.append(tensors["lora_bias"].float() * (alpha / down.shape[0]))
        if biases:
            return LayerWeights(down, up, alpha, "lora with bias", {"bias": torch.stack(biases).sum(0)})
        return LayerWeights(down, up, alpha)

    def _check_vector(self, layer: Layer, part: str, out: int) -> None:
        shape, inputs = layer.shape(part), layer.shape("down")[1]
        columns = _of_inputs(part, shape, out)
        name = part if part == _VECTORS[part].kohya else _VECTORS[part].diffusers
        if math.prod(shape) != (inputs if columns else out):
            layer.refuse(
                f"is damaged: {name} of {layer.where} is {shape}, but should hold one value for each of {out} outputs"
                + (f", or of {inputs} inputs." if columns else ".")
            )


def _of_inputs(part: str, shape: Shape, out: int) -> bool:
    """Whether lengths are those of columns, (1, in[, 1, 1]) in kohya's layout, where those of rows are (out, 1 ...)."""
    return part == "dora_scale" and len(shape) > 1 and shape[:1] == (1,) != (out,)
