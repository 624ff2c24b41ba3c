"""DoRA whose lengths are those of the weight's columns, one for each input, as OneTrainer and LyCORIS write it, too.

    m (W0 + alpha / r B A) / ||W0 + alpha / r B A||    with norms over outputs and kernel

Source: LyCORIS and OneTrainer; DoRA itself is Liu et al. 2024, arXiv 2402.09353.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.foreign import Foreign, through
from trainer.adapters.methods.method import Parts, Values
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_NORM = 1e-8


@dataclass(frozen=True)
class DoraInputs(Foreign):
    """Parts: ``down`` and ``up`` as in LoRA; ``magnitude`` is m, (in,); ``scale`` is alpha / r."""

    name: ClassVar[str] = "dora by inputs"
    summary: ClassVar[str] = "is DoRA with a length for each input"
    source: ClassVar[str] = "LyCORIS, OneTrainer"
    readers: ClassVar[str] = (
        "It is DoRA with a length for each input, as OneTrainer and LyCORIS write it; Patina reads it as they do, and "
        "diffusers leaves the lengths out"
    )
    parts: ClassVar[tuple[str, ...]] = ("magnitude",)

    def gate_factors(self, rank: int, alpha: float) -> tuple[float, ...]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        moved = through(base, x, _change(values, base.weight))
        return (moved * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        return {"weight": _change(values, base.weight)}

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        import torch

        parts = super().read(weights, base)
        return Parts(parts.trained, derived={"scale": torch.tensor(weights.scale, device="cpu")})

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        fits = weights.extra["magnitude"].numel() == shape[1]
        return super().shaped(weights, shape) if fits else None

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")


def _change(values: Values, weight: Tensor) -> Tensor:
    """What is added to the weight at strength 1, in its shape, fp32."""
    import torch

    frozen = weight.detach().float()
    product = values["up"].flatten(1) @ values["down"].flatten(1)
    whole = frozen + values["scale"] * product.view(frozen.shape)
    with torch.no_grad():
        norms = torch.linalg.vector_norm(whole.transpose(0, 1).flatten(1), dim=1).clamp_min(_SMALLEST_NORM)
    return whole * (values["magnitude"] / norms).view(1, -1, *(1,) * (frozen.dim() - 2)) - frozen
