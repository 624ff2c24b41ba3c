"""Textual inversion: the words of the trigger learn new vectors, and nothing else of the model moves.

    E(ids) + s v_k  wherever the trigger's tokens t_1 ... t_K stand side by side, for the k-th of them

Source: Gal et al. 2022, arXiv 2208.01618. There a new token starts from a known word's vector; here the trigger's own
tokens do, so that the update is zero at the start, has a strength, and adds up with others.
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
class TextualInversion(Method):
    """On the token embedding (V, D) of each text encoder.

    Parts: ``change`` is v, (K, D); ``tokens`` are the ids of the trigger's K tokens and ``first`` their vectors in the
    base, (K, D). Files hold ``first + change`` as ``down`` and the ids as ``up``, (1, K).
    """

    name: ClassVar[str] = "textual-inversion"
    summary: ClassVar[str] = (
        "leaves all layers alone and trains what the words of the trigger mean; its file has a few kilobytes"
    )
    source: ClassVar[str] = "Gal et al. 2022, arXiv 2208.01618"
    readers: ClassVar[str] = (
        "It is an embedding and no LoRA: A1111, Forge and ComfyUI open it from their folder of embeddings, where the "
        "file's name stands in the prompt for the trigger, and diffusers with load_textual_inversion"
    )
    site: ClassVar[Literal["layer", "attention", "words"]] = "words"
    stacks: ClassVar[bool] = False
    ranked: ClassVar[bool] = False
    changes_weights: ClassVar[bool] = False

    def start(self, site: Site) -> Parts:
        import torch

        tokens = torch.tensor(site.tokens, device="cpu")
        first = site.base.weight.detach()[tokens.to(site.base.weight.device)].float().cpu()
        return Parts({"change": torch.zeros_like(first)}, kept={"tokens": tokens.float(), "first": first})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        import torch.nn.functional as F

        change = values["change"]
        # By products with ones and zeros: the gradient is then the same in every order of adding up.
        chosen = F.one_hot(_places(x, values["tokens"].long()), len(change) + 1)[..., 1:].to(change.dtype)
        # The gates themselves may be written for other images before this pass is gone back through.
        return (chosen @ change * gates.clone().view(-1, 1, 1)).to(y.dtype)

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        tokens = values["tokens"]
        return LayerWeights(values["first"] + values["change"], tokens[None], float(len(tokens)), self.name)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        tokens = weights.up[0].long()
        first = base.weight.detach()[tokens.to(base.weight.device)].float().to(weights.down.device)
        return Parts({"change": weights.down.float() - first}, kept={"tokens": weights.up[0].float(), "first": first})

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        known = int(weights.up.max()) < shape[0]
        return weights if known and weights.down.shape[1:] == shape[1:] else None

    def norm(self, weights: LayerWeights) -> float:
        return float("nan")

    def rate_factor(self, part: str) -> float:
        # With LoRA's usual 1e-4 this is the 5e-3 that textual inversion is commonly trained at.
        return 50.0


def _places(ids: Tensor, tokens: Tensor) -> Tensor:
    """Which of the tokens (K,) stands where in texts ``ids`` (B, L), 1 to K, and 0 elsewhere: (B, L).

    Only whole, and from left to right where they would overlap.
    """
    import torch

    places = torch.zeros_like(ids)
    count, columns = len(tokens), ids.shape[1] - len(tokens) + 1
    if columns < 1:
        return places
    begins = (ids.unfold(1, count, 1) == tokens).all(dim=-1)
    for column in range(1, columns if count > 1 else 0):
        begins[:, column] &= ~begins[:, max(0, column - count + 1) : column].any(dim=1)
    for number in range(count):
        places[:, number : number + columns] += begins * (number + 1)
    return places
