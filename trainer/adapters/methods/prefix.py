"""Prefix keys and values: each cross-attention also looks at tokens that were learned for it.

    y + Wo softmax(q K^T / sqrt(d)) V        q = Wq x; K and V: (r, heads * d), V zero at the start

Source: Li and Liang 2021, arXiv 2101.00190. The tokens have a softmax of their own, as in Zhang et al. 2023
(LLaMA-Adapter), arXiv 2303.16199, so that the update is zero at the start and adds up with others, whatever its
strength; within the prompt's softmax even a token of no value would take weight from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prefix(Method):
    """Parts: ``keys`` is K and ``contents`` is V, both (r, heads * d): the rank is the number of tokens."""

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = (
        "lets each cross-attention look at learned tokens, as many as the rank; no other program reads its file"
    )
    source: ClassVar[str] = "Li and Liang 2021, arXiv 2101.00190"
    readers: ClassVar[str] = (
        "It holds keys and values of learned tokens, which are no change of the base's weights: only Patina reads "
        "them, and they cannot be merged or written as LoRA"
    )
    site: ClassVar[Literal["layer", "attention", "words"]] = "attention"
    stacks: ClassVar[bool] = False
    ranked: ClassVar[bool] = False
    changes_weights: ClassVar[bool] = False
    layouts: ClassVar[tuple[str, ...]] = ("kohya",)

    def fits(self, base: Any) -> bool:
        return bool(getattr(base, "is_cross_attention", False))

    def start(self, site: Site) -> Parts:
        import torch

        width = site.base.to_q.out_features
        # As large as a key that the frozen projection would make of a token of unit variance.
        keys = torch.empty(site.rank, width, device="cpu").uniform_(-1.0, 1.0, generator=site.generator())
        return Parts({"keys": keys, "contents": torch.zeros(site.rank, width, device="cpu")})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        import torch.nn.functional as F

        from trainer.adapters.attention import frozen

        heads = base.heads
        queries = frozen(base.to_q)(x).unflatten(-1, (heads, -1)).transpose(1, 2)
        keys, learned = (
            values[part].to(queries.dtype).unflatten(-1, (heads, -1)).transpose(0, 1).expand(x.shape[0], -1, -1, -1)
            for part in ("keys", "contents")
        )
        seen = F.scaled_dot_product_attention(queries, keys, learned, scale=base.scale).transpose(1, 2).flatten(2)
        out: Any = frozen(base.to_out[0])
        moved = out(seen) if out.bias is None else out(seen) - out.bias
        return (moved / base.rescale_output_factor * gates.view(-1, 1, 1)).to(y.dtype)

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        return LayerWeights(values["keys"], values["contents"].T.contiguous(), float(rank), self.name)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        return Parts({"keys": weights.down.float(), "contents": weights.up.float().T.contiguous()})

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        return weights if weights.up.shape[0] == shape[0] else None

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")

    def rate_factor(self, part: str) -> float:
        # The tokens' weights sum to one, where A's r directions add up; the paper's rates are higher by as much.
        return 10.0
