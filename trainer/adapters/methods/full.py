"""Full fine-tuning of the chosen layers: every value of their weights learns, as the measure of the other methods.

(W0 + D) x        D: (out, in[, kh, kw]), zero at the start
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.foreign import split, through
from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Full(Method):
    """Parts: ``change`` is D. In a file's weights one of the two matrices is D and the other the identity.

    The base stays as it is, so that the change has a strength and can be mixed; weight decay pulls the change, and not
    the weight, towards zero.
    """

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = (
        "trains the weights themselves instead of a low-rank update, which takes by far the most memory and the "
        "largest file"
    )
    source: ClassVar[str] = "full fine-tuning, the baseline of Hu et al. 2021, arXiv 2106.09685"
    readers: ClassVar[str] = (
        "It holds whole differences of weights, which Patina, ComfyUI, Forge, A1111 and LyCORIS read, and diffusers "
        "does not; patina resize makes a LoRA of it and says what that leaves out"
    )
    stacks: ClassVar[bool] = False
    ranked: ClassVar[bool] = False

    def start(self, site: Site) -> Parts:
        import torch

        return Parts({"change": torch.zeros(site.base.weight.shape, device="cpu")})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        moved = through(base, x, values["change"])
        return (moved * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        return {"weight": values["change"]}

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        down, up = split(values["change"])
        return LayerWeights(down, up, float(down.shape[0]), self.name)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        return Parts({"change": weights.scale * whole(weights)})

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        return replace(weights, method="lora")

    def rate_factor(self, part: str) -> float:
        # A step of LoRA's B moves a weight by about a tenth of what a step of the weight itself does.
        return 0.1


def whole(weights: LayerWeights) -> Tensor:
    """``B A`` in the layer's shape, (out, in[, kh, kw]), fp32."""
    import torch

    down, up = weights.down, weights.up
    tail = down.shape[1:]
    if up.shape[0] == up.shape[1] and torch.equal(up.flatten(1), torch.eye(up.shape[0], device=up.device).to(up.dtype)):
        return down.float()
    return (up.float().flatten(1) @ down.float().flatten(1)).view(up.shape[0], *tail)
