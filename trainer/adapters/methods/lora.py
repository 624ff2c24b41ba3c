"""LoRA: ``alpha / r * B A x``, with B zero and A random at the start.

Source: Hu et al. 2021, arXiv 2106.09685. The start from the base's own directions: PiSSA, Meng et al. 2024,
arXiv 2404.02948.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Init = Literal["kaiming", "gaussian", "pissa"]


@dataclass(frozen=True)
class Lora(Method):
    """Parts: ``down`` is A, (r, in[, kh, kw]); ``up`` is B, (out, r[, 1, 1]).

    PiSSA subtracts ``B0 A0``, with which A and B start, from the base, and trains what is left. Here the base stays as
    it is, and the update is ``B A - B0 A0 = (B - B0) A + B0 (A - A0)``: exactly zero at the start, and a LoRA of twice
    the rank. ``first_down`` and ``first_up`` are A0 and B0.

    Attributes:
        init: how A and B start: A Kaiming-uniform as in PEFT and kohya, A Gaussian as in the paper, or PiSSA.
    """

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = (
        "is what every program reads and the presets are made for, with an update scaled by alpha / rank"
    )
    source: ClassVar[str] = "Hu et al. 2021, arXiv 2106.09685"

    init: Init = "kaiming"

    def file_alpha(self, rank: int, alpha: float) -> float:
        """Alpha as readers of files understand it, who all apply ``alpha / rank``."""
        return alpha

    def start(self, site: Site) -> Parts:
        if self.init == "pissa":
            check_room(site, 2 * site.rank)
            down, up = principal(site, self.file_alpha(site.rank, site.alpha) / site.rank)
            return Parts({"down": down, "up": up}, kept={"first_down": down, "first_up": up})
        check_room(site, site.rank)
        return Parts({"down": random_down(site, self.init), "up": zero_up(site)})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (self.file_alpha(rank, alpha) / rank,) * (2 * rank if self.init == "pissa" else rank)

    def factors(self, values: Values) -> tuple[Tensor, Tensor]:
        import torch

        down, up = values["down"], values["up"]
        if self.init != "pissa":
            return down, up
        first_down, first_up = values["first_down"], values["first_up"]
        return torch.cat([down, down - first_down]), torch.cat([up - first_up, first_up], dim=1)

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        down, up = self.factors(values)
        return LayerWeights(down, up, self.file_alpha(rank, alpha) * down.shape[0] / rank)

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        return Parts({"down": weights.down.float(), "up": weights.up.float()})


def check_room(site: Site, rank: int) -> None:
    """Refuse a rank that the layer has no room for.

    Args:
        rank: of the update as files hold it, which may be more than was asked for.

    Raises:
        ConfigError: it has none.
    """
    weight = site.base.weight
    room = min(weight.shape[0], weight[0].numel())
    if rank > room:
        share = f"takes {rank} with these settings, and " if rank != site.rank else ""
        raise ConfigError(f"adapter.rank is {site.rank}, but {share}{site.path} has room for {room} at most.")


def random_down(site: Site, init: Init = "kaiming") -> Tensor:
    """A at the start, (r, in[, kh, kw])."""
    import torch

    weight = site.base.weight
    down = torch.empty(site.rank, *weight.shape[1:], dtype=torch.float32, device="cpu")
    if init == "gaussian":
        return down.normal_(std=1.0 / site.rank, generator=site.generator())
    # Kaiming-uniform with a = sqrt(5), as PEFT and kohya start: the bound is then 1 / sqrt(fan in).
    bound = 1.0 / weight[0].numel() ** 0.5
    return down.uniform_(-bound, bound, generator=site.generator())


def zero_up(site: Site) -> Tensor:
    """B at the start, (out, r[, 1, 1])."""
    import torch

    weight = site.base.weight
    return torch.zeros(weight.shape[0], site.rank, *((1, 1) if weight.dim() == 4 else ()), device="cpu")


def principal(site: Site, scale: float) -> tuple[Tensor, Tensor]:
    """A and B such that ``scale * B A`` is the best approximation of the base's weight at the rank asked for."""
    import torch

    weight = site.base.weight.detach().to("cpu", torch.float32)
    left, sizes, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = (sizes[: site.rank] / scale).sqrt()
    tail = (1, 1) if weight.dim() == 4 else ()
    down = (root[:, None] * right[: site.rank]).reshape(site.rank, *weight.shape[1:])
    return down.contiguous(), (left[:, : site.rank] * root).reshape(weight.shape[0], site.rank, *tail).contiguous()
