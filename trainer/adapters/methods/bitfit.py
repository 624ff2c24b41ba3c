"""BitFit: nothing learns but the biases of the chosen layers.

Source: Ben Zaken et al. 2021, arXiv 2106.10199.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.method import Method, Parts, Site, Values, convolves
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BitFit(Method):
    """Parts: ``bias``, (out,), is what is added to the layer's own; ``inputs`` is the shape (in[, kh, kw]).

    Files hold it beside a LoRA of rank 1 that is zero, as differences of whole models hold theirs; read back it is
    ``lora with bias``.
    """

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "trains the layers' biases alone, which holds colours and contrast better than shapes"
    source: ClassVar[str] = "Ben Zaken et al. 2021, arXiv 2106.10199"
    readers: ClassVar[str] = "It changes biases, which Patina and ComfyUI read and other programs may leave out"
    stacks: ClassVar[bool] = False
    ranked: ClassVar[bool] = False
    layouts: ClassVar[tuple[str, ...]] = ("kohya",)

    def fits(self, base: Any) -> bool:
        return base.bias is not None

    def start(self, site: Site) -> Parts:
        import torch

        inputs = torch.tensor(site.base.weight.shape[1:], dtype=torch.float32, device="cpu")
        return Parts({"bias": torch.zeros(site.base.bias.shape, device="cpu")}, kept={"inputs": inputs})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        # Over a picture's two sides the channels come first, over tokens last.
        bias = values["bias"].view(-1, 1, 1) if convolves(base) else values["bias"]
        return (bias * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        return {"bias": values["bias"]}

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        bias, inputs = values["bias"], tuple(int(size) for size in values["inputs"])
        return LayerWeights(
            bias.new_zeros(1, *inputs),
            bias.new_zeros(len(bias), 1, *[1] * (len(inputs) - 1)),
            1.0,
            "lora with bias",
            {"bias": bias},
        )

    def rate_factor(self, part: str) -> float:
        # The paper's rates for biases are ten to a hundred times those for weights.
        return 10.0
