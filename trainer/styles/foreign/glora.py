"""GLoRA as LyCORIS writes it: ``alpha / r (W0 a1 a2 + b1 b2)``.

Its first versions named the factors the other way round, ``W0 a2 a1 + b2 b1``; their shapes tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = ("glora_a1", "glora_a2", "glora_b1", "glora_b2")


class GloraForm(Form):
    """a1 is (in, r), a2 (r, in), b1 (out, r) and b2 (r, in[, kh, kw]); a convolution's are all 4-D."""

    name: ClassVar[str] = "GLoRA"
    marks: ClassVar[frozenset[str]] = frozenset(_FACTORS)
    parts: ClassVar[frozenset[str]] = marks | {"alpha"}

    def odd(self, part: str, layer: Layer) -> str:
        if part == "glora_bm":
            return f"a Tucker core beside GLoRA in {layer.where}, which Patina does not read."
        return super().odd(part, layer)

    def check_shapes(self, layer: Layer) -> None:
        for part in _FACTORS:
            if part not in layer:
                layer.refuse(f"is incomplete: {layer.where} has no {part.removeprefix('glora_')}.")
        shapes = {part: layer.shape(part) for part in _FACTORS}
        if len({len(shape) for shape in shapes.values()}) != 1 or len(shapes["glora_a1"]) not in (2, 4):
            layer.disagree(*_FACTORS)
        a1, a2, b1, b2 = (shapes[part] for part in _order(shapes))
        rank = a2[0]
        kernels = {math.prod(shape[2:]) for shape in (a1, a2, b1)}
        if kernels != {1} or (a1[1], b1[1], b2[0]) != (rank, rank, rank) or (a1[0], b2[1]) != (a2[1], a2[1]):
            layer.disagree(*_FACTORS)
        if not rank or rank > min(b1[0], math.prod(b2[1:])):
            layer.disagree(*_FACTORS)
        check_size(layer, b1[0], math.prod(b2[1:]))

    def rank(self, layer: Layer) -> int:
        shapes = {part: layer.shape(part) for part in _FACTORS}
        return shapes[_order(shapes)[1]][0]

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        a1, a2, b1, b2 = (tensors[part] for part in _order({part: tuple(tensors[part].shape) for part in _FACTORS}))
        return LayerWeights(b2, b1, alpha, "glora", {"a1": a1.flatten(1), "a2": a2.flatten(1)})


def _order(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The factors as the formula has them; in the first versions each pair is turned round."""
    a1, a2, b1, b2 = (shapes[part] for part in _FACTORS)
    turned = a1[0] == a2[1] == b1[0] == b2[1]
    # Of a layer that is as wide as it is high both may hold; no rank is as large as the layer.
    turned = turned and not (a1[1] == a2[0] == b1[1] == b2[0] and a1[1] < a1[0])
    return ("glora_a2", "glora_a1", "glora_b2", "glora_b1") if turned else _FACTORS
