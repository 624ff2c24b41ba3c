"""VeRA as PEFT's files hold it: one A and one B for all layers, of which each takes as much as it is wide.

    diag(b) B[:out] diag(d) A[:, :in]

Source: Kopiczko et al. 2023, arXiv 2310.11454; the slices are PEFT's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.methods.foreign import Foreign, plain
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VeraShared(Foreign):
    """``down`` is diag(d) A, (r, in or more), and ``up`` is diag(b) B, (out, r).

    Only the base tells how many inputs a layer has.
    """

    name: ClassVar[str] = "vera of PEFT"
    summary: ClassVar[str] = "VeRA with one pair of matrices for all layers"
    source: ClassVar[str] = "Kopiczko et al. 2023, arXiv 2310.11454"
    parts: ClassVar[tuple[str, ...]] = ()
    needs_base: ClassVar[bool] = True

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        if base is None:
            raise ValueError("how wide a layer is stands in the base")
        return plain(weights, weights.down[:, : base.shape[1]].contiguous(), weights.up)

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        fits = len(shape) == 2 and weights.up.shape[0] == shape[0] and weights.down.shape[1] >= shape[1]
        return replace(weights, down=weights.down[:, : shape[1]]) if fits else None

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")
