"""Whole differences of weights, as LyCORIS's ``full`` and ComfyUI's extraction write them: ``diff`` and ``diff_b``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.methods.foreign import split
from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size

if TYPE_CHECKING:
    from torch import Tensor


class Difference(Form):
    """diff is (out, in[, kh, kw]) and diff_b (out,); alpha does not count. Kept exactly, at the layer's full rank."""

    name: ClassVar[str] = "a whole difference"
    marks: ClassVar[frozenset[str]] = frozenset({"diff"})
    parts: ClassVar[frozenset[str]] = frozenset({"diff", "diff_b", "alpha"})

    def check_shapes(self, layer: Layer) -> None:
        shape = layer.shape("diff")
        if len(shape) not in (2, 4) or ("diff_b" in layer and layer.shape("diff_b") != shape[:1]):
            layer.disagree(*(part for part in ("diff", "diff_b") if part in layer))
        check_size(layer, shape[0], math.prod(shape[1:]))

    def rank(self, layer: Layer) -> None:
        return None

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        down, up = split(tensors["diff"])
        if "diff_b" in tensors:
            return LayerWeights(down, up, float(down.shape[0]), "lora with bias", {"bias": tensors["diff_b"]})
        return LayerWeights(down, up, float(down.shape[0]), "full")
