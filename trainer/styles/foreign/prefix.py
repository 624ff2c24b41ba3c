"""Keys and values of learned tokens, which no other program writes; both are (r, width)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size

if TYPE_CHECKING:
    from torch import Tensor


class PrefixForm(Form):
    """See `trainer.adapters.methods.prefix`; there is no alpha."""

    name: ClassVar[str] = "learned tokens"
    marks: ClassVar[frozenset[str]] = frozenset({"prefix_keys", "prefix_values"})
    parts: ClassVar[frozenset[str]] = marks

    def check_shapes(self, layer: Layer) -> None:
        if not self.marks <= layer.entries.keys():
            layer.refuse(f"is incomplete: {layer.where} has keys without values, or values without keys.")
        keys = layer.shape("prefix_keys")
        if len(keys) != 2 or keys != layer.shape("prefix_values"):
            layer.disagree("prefix_keys", "prefix_values")
        check_size(layer, *keys)

    def rank(self, layer: Layer) -> None:
        return None

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        keys, values = tensors["prefix_keys"], tensors["prefix_values"]
        return LayerWeights(keys, values.T.contiguous(), float(keys.shape[0]), "prefix")
