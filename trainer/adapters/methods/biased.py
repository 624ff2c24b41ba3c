"""LoRA with a bias: ``alpha / r B A x + b``, as differences of whole layers have it, and PEFT's ``lora_bias``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.foreign import Foreign, through
from trainer.adapters.methods.method import Method, Parts, Values, convolves
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Biased(Foreign):
    """Parts: ``down`` and ``up`` as in LoRA; ``bias`` is b, (out,), beside alpha; ``scale`` is alpha / r."""

    name: ClassVar[str] = "lora with bias"
    summary: ClassVar[str] = "is LoRA that changes biases, too"
    source: ClassVar[str] = "differences of whole models; PEFT's lora_bias"
    parts: ClassVar[tuple[str, ...]] = ("bias",)
    readers: ClassVar[str] = "It also changes biases, which Patina and ComfyUI read and other programs may leave out"

    def gate_factors(self, rank: int, alpha: float) -> tuple[float, ...]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        import torch.nn.functional as F

        down, up = through(base, x, values["down"]), values["up"].to(x.dtype)
        moved = F.linear(down, up) if not convolves(base) else F.conv2d(down, up)
        bias = values["bias"].view(-1, *(1,) * (y.dim() - 2) if convolves(base) else ())
        return ((values["scale"] * moved + bias) * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        product = values["up"].flatten(1) @ values["down"].flatten(1)
        return {"weight": alpha / rank * product.view(base.weight.shape), "bias": values["bias"]}

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        import torch

        parts = super().read(weights, base)
        return Parts(parts.trained, derived={"scale": torch.tensor(weights.scale, device="cpu")})

    def norm(self, weights: LayerWeights) -> float:
        return Method.norm(self, weights)

    def product(self, weights: LayerWeights) -> Tensor:
        return weights.up.float().flatten(1) @ weights.down.float().flatten(1)
