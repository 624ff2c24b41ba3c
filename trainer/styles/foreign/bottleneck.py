"""Bottleneck adapters, which no other program writes: ``bottleneck_down`` (r, out) and ``bottleneck_up`` (out, r)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size

if TYPE_CHECKING:
    from torch import Tensor


class BottleneckForm(Form):
    """See `trainer.adapters.methods.bottleneck`; there is no alpha."""

    name: ClassVar[str] = "a bottleneck adapter"
    marks: ClassVar[frozenset[str]] = frozenset({"bottleneck_down", "bottleneck_up"})
    parts: ClassVar[frozenset[str]] = marks

    def check_shapes(self, layer: Layer) -> None:
        if not self.marks <= layer.entries.keys():
            layer.refuse(f"is incomplete: {layer.where} has one of a bottleneck adapter's two matrices.")
        down, up = layer.shape("bottleneck_down"), layer.shape("bottleneck_up")
        if len(down) != 2 or down != up[::-1] or down[0] > down[1]:
            layer.disagree("bottleneck_down", "bottleneck_up")
        check_size(layer, up[0], down[0])

    def rank(self, layer: Layer) -> None:
        return None

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        down, up = tensors["bottleneck_down"], tensors["bottleneck_up"]
        return LayerWeights(down, up, float(down.shape[0]), "bottleneck")
