"""LoKr as LyCORIS and PEFT write it: ``lokr_w1`` and ``lokr_w2``, each whole or as two factors ``_a`` and ``_b``.

``alpha / r w1 (x) w2``. r is that of the second pair, else of the first; where both are whole, LyCORIS counts them once
whatever alpha says, which some of its versions fill with anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.methods.foreign import split
from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size
from trainer.styles.foreign.loha import weight_decomposed, with_core

if TYPE_CHECKING:
    from torch import Tensor


class LokrForm(Form):
    """w1 is (p, q) and w2 (c, d[, kh, kw]); with a core, (r, r, kh, kw), w2_a is (r, c) and w2_b (r, d)."""

    name: ClassVar[str] = "LoKr"
    marks: ClassVar[frozenset[str]] = frozenset(f"lokr_{x}" for x in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"))
    parts: ClassVar[frozenset[str]] = marks | {"alpha"}

    def odd(self, part: str, layer: Layer) -> str:
        return weight_decomposed(self.name, part, layer) or super().odd(part, layer)

    def check_shapes(self, layer: Layer) -> None:
        p, q = self._outer(layer)
        c, block = self._block(layer)
        check_size(layer, p * c, q * block)

    def rank(self, layer: Layer) -> int | None:
        for factor in ("lokr_w2_b", "lokr_w1_b"):
            if factor in layer:
                return layer.shape(factor)[0]
        return None

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        outer = tensors["lokr_w1"] if "lokr_w1" in tensors else _product(tensors, "lokr_w1")
        if "lokr_t2" in tensors:
            down, up = with_core(tensors["lokr_t2"], tensors["lokr_w2_a"], tensors["lokr_w2_b"])
        elif "lokr_w2" in tensors:
            down, up = split(tensors["lokr_w2"])
        else:
            down, up = tensors["lokr_w2_b"], tensors["lokr_w2_a"]
        ranks = [tensors[factor].shape[0] for factor in ("lokr_w2_b", "lokr_w1_b") if factor in tensors]
        return LayerWeights(down, up, alpha / (*ranks, 1)[0] * down.shape[0], "lokr", {"outer": outer})

    def _outer(self, layer: Layer) -> tuple[int, int]:
        if "lokr_w1" in layer:
            if len(layer.shape("lokr_w1")) != 2 or {"lokr_w1_a", "lokr_w1_b"} & layer.entries.keys():
                layer.disagree(*(part for part in ("lokr_w1", "lokr_w1_a", "lokr_w1_b") if part in layer))
            p, q = layer.shape("lokr_w1")
            return p, q
        return self._pair(layer, "lokr_w1")

    def _block(self, layer: Layer) -> tuple[int, int]:
        """(c, d * kh * kw)."""
        if "lokr_w2" in layer:
            shape = layer.shape("lokr_w2")
            if len(shape) not in (2, 4) or {"lokr_w2_a", "lokr_w2_b", "lokr_t2"} & layer.entries.keys():
                layer.disagree(*(part for part in ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2") if part in layer))
            return shape[0], math.prod(shape[1:])
        if "lokr_t2" not in layer:
            return self._pair(layer, "lokr_w2")
        if not {"lokr_w2_a", "lokr_w2_b"} <= layer.entries.keys():
            layer.refuse(f"is incomplete: {layer.where} has no whole lokr_w2.")
        a, b, core = (layer.shape(part) for part in ("lokr_w2_a", "lokr_w2_b", "lokr_t2"))
        if len(a) != 2 or len(b) != 2 or len(core) != 4 or core[:2] != (a[0], b[0]):
            layer.disagree("lokr_w2_a", "lokr_w2_b", "lokr_t2")
        return a[1], b[1] * math.prod(core[2:])

    def _pair(self, layer: Layer, part: str) -> tuple[int, int]:
        if f"{part}_a" not in layer or f"{part}_b" not in layer:
            layer.refuse(f"is incomplete: {layer.where} has no whole {part}.")
        a, b = layer.shape(f"{part}_a"), layer.shape(f"{part}_b")
        if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
            layer.disagree(f"{part}_a", f"{part}_b")
        return a[0], b[1]


def _product(tensors: Mapping[str, Tensor], part: str) -> Tensor:
    return tensors[f"{part}_a"].float() @ tensors[f"{part}_b"].float()
