"""Bottleneck adapters: a small network of its own behind each chosen layer, ``y + U gelu(D y)``.

Source: Houlsby et al. 2019, arXiv 1902.00751. There they stand behind the two projections that end a transformer
block's halves, which here are ``to_out.0`` and ``ff.net.2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.method import Method, Parts, Site, Values, convolves
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Bottleneck(Method):
    """Parts: ``down`` is D, (r, out); ``up`` is U, (out, r), zero at the start. y is the frozen layer's output, without
    what other adapters add, so that updates add up; at a strength s the update counts s times."""

    name: ClassVar[str] = "bottleneck"
    summary: ClassVar[str] = "puts a small network behind each layer; no other program reads its file"
    source: ClassVar[str] = "Houlsby et al. 2019, arXiv 1902.00751"
    readers: ClassVar[str] = (
        "It holds bottleneck adapters, which are no change of the base's weights: only Patina reads them, and they "
        "cannot be merged or written as LoRA"
    )
    stacks: ClassVar[bool] = False
    ranked: ClassVar[bool] = False
    changes_weights: ClassVar[bool] = False
    layouts: ClassVar[tuple[str, ...]] = ("kohya",)

    def start(self, site: Site) -> Parts:
        import torch

        out = site.base.weight.shape[0]
        if site.rank > out:
            raise ConfigError(f"adapter.rank is {site.rank}, but {site.path} has {out} outputs.")
        # Kaiming-uniform as LoRA's A, so that both learn at one rate.
        bound = out**-0.5
        down = torch.empty(site.rank, out, device="cpu").uniform_(-bound, bound, generator=site.generator())
        return Parts({"down": down, "up": torch.zeros(out, site.rank, device="cpu")})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        import torch.nn.functional as F

        down, up = values["down"].to(y.dtype), values["up"].to(y.dtype)
        if convolves(base):
            moved = F.conv2d(F.gelu(F.conv2d(y, down[:, :, None, None])), up[:, :, None, None])
        else:
            moved = F.linear(F.gelu(F.linear(y, down)), up)
        return (moved * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        return LayerWeights(values["down"], values["up"], float(rank), self.name)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        return Parts({"down": weights.down.float(), "up": weights.up.float()})

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        return weights if weights.up.shape[0] == shape[0] else None

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")
