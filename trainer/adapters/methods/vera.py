"""VeRA: A and B are random and shared, and each layer learns only how strongly each direction and each output counts.

    alpha / r diag(b) B diag(d) A x

Source: Kopiczko et al. 2023, arXiv 2310.11454.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.lora import check_room
from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights
from trainer.randomness import stable_seed

if TYPE_CHECKING:
    from torch import Tensor

_HALF_OF_A_SEED = 1 << 16


@dataclass(frozen=True)
class Vera(Method):
    """Layers of one shape share A and B; in the paper all layers have one shape.

    Parts: ``directions`` is d, (r,), and ``outputs`` is b, (out,); ``shared_down`` is A, (r, in[, kh, kw]), and
    ``shared_up`` is B, (out, r). Checkpoints keep what A and B are drawn from: ``seed``, in two halves of 16 bits so
    that fp32 holds it, and ``inputs``, the shape (in[, kh, kw]).
    """

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "trains two short vectors a layer between random matrices, the fewest values of all"
    source: ClassVar[str] = "Kopiczko et al. 2023, arXiv 2310.11454"

    def start(self, site: Site) -> Parts:
        return self.begin([site])[0]

    def begin(self, sites: Sequence[Site]) -> list[Parts]:
        import torch

        drawn: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        parts = []
        for site in sites:
            check_room(site, site.rank)
            weight = site.base.weight
            out, inputs = weight.shape[0], tuple(weight.shape[1:])
            seed = stable_seed(site.seed, "vera")
            shape = (out, inputs, weight.device)
            if shape not in drawn:
                down, up = _matrices(seed, site.rank, out, inputs)
                drawn[shape] = down.to(weight.device), up.to(weight.device)
            down, up = drawn[shape]
            parts.append(
                Parts(
                    {
                        "directions": torch.full((site.rank,), 0.1, device="cpu"),
                        "outputs": torch.zeros(out, device="cpu"),
                    },
                    kept={
                        "seed": torch.tensor(divmod(seed, _HALF_OF_A_SEED), dtype=torch.float32, device="cpu"),
                        "inputs": torch.tensor(inputs, dtype=torch.float32, device="cpu"),
                    },
                    derived={"shared_down": down, "shared_up": up},
                )
            )
        return parts

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (alpha / rank,) * rank

    def factors(self, values: Values) -> tuple[Tensor, Tensor]:
        down, up = values["shared_down"], values["shared_up"]
        tail = (1,) * (down.dim() - 2)
        return (
            down * values["directions"].view(-1, 1, *tail),
            (up * values["outputs"][:, None]).view(*up.shape, *tail),
        )

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        if "shared_down" not in values:
            down, up = matrices_of(values, rank)
            values = {**values, "shared_down": down, "shared_up": up}
        return LayerWeights(*self.factors(values), alpha)

    def rate_factor(self, part: str) -> float:
        # A vector's step reaches every direction by a tenth (d) of what a step of LoRA's B does.
        return 10.0


def matrices_of(values: Values, rank: int) -> tuple[Tensor, Tensor]:
    """A (r, in[, kh, kw]) and B (out, r) of a layer, from what checkpoints keep of it."""
    high, low = (int(half) for half in values["seed"])
    inputs = tuple(int(size) for size in values["inputs"])
    return _matrices(high * _HALF_OF_A_SEED + low, rank, len(values["outputs"]), inputs)


def _matrices(seed: int, rank: int, out: int, inputs: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A and B, Kaiming-uniform for layers that are followed by a ReLU, as the paper has them."""
    import torch

    def drawn(name: str, rows: int, columns: tuple[int, ...]) -> Tensor:
        rng = torch.Generator().manual_seed(stable_seed(seed, name, rows, *columns))
        bound = math.sqrt(6.0 / math.prod(columns))
        return torch.empty(rows, *columns, device="cpu").uniform_(-bound, bound, generator=rng)

    return drawn("A", rank, inputs), drawn("B", out, (rank,))
