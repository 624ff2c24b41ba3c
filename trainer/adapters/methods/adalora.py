"""AdaLoRA: ``alpha / r P diag(l) Q x``, and a budget of ranks that goes to the layers that need them.

Source: Zhang et al. 2023, arXiv 2303.10512; its names are in parentheses below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.methods.lora import check_room
from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor

ORTHOGONALITY = 0.1
"""Weight of the penalty (gamma)."""
SMOOTHING = 0.85
"""Of importance and of its uncertainty, from step to step (beta 1 and beta 2)."""
WARM_UP, SETTLED = 0.1, 0.4
"""Shares of the run before the budget shrinks (t_i), and after it has its last size (t_f)."""

_TRAINED = ("left", "sizes", "right")


@dataclass(frozen=True)
class AdaLora(Method):
    """The rank asked for is what layers have in the end on average; they start with half as much again.

    P and Q start orthonormal, where the paper draws them from a narrow Gaussian: the penalty is then zero at the start
    instead of the largest part of the loss.

    Parts, R being the rank at the start: ``left`` is P, (out, R[, 1, 1]), ``sizes`` is l, (R,), and ``right`` is Q,
    (R, in[, kh, kw]). Of each of them ``<part>_importance`` and ``<part>_doubt`` are smoothed ``|w dL/dw|`` (I) and its
    uncertainty (U). ``open`` is 0 where a direction was given up for good, else 1.
    """

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "moves ranks to the layers that need them while it trains"
    source: ClassVar[str] = "Zhang et al. 2023, arXiv 2303.10512"

    def start(self, site: Site) -> Parts:
        import torch

        rank = _rank_at_start(site.rank)
        check_room(site, rank)
        weight = site.base.weight
        rng = site.generator()
        left, right = (
            torch.linalg.qr(torch.randn(size, rank, generator=rng, device="cpu")).Q
            for size in (weight.shape[0], weight[0].numel())
        )
        tail = (1, 1) if weight.dim() == 4 else ()
        trained = {
            "left": left.reshape(*left.shape, *tail).contiguous(),
            "sizes": torch.zeros(rank, device="cpu"),
            "right": right.T.reshape(rank, *weight.shape[1:]).contiguous(),
        }
        kept = {
            f"{part}_{what}": torch.zeros_like(trained[part]) for part in _TRAINED for what in ("importance", "doubt")
        }
        return Parts(trained, kept={**kept, "open": torch.ones(rank, device="cpu")})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (alpha / rank,) * _rank_at_start(rank)

    def factors(self, values: Values) -> tuple[Tensor, Tensor]:
        right = values["right"]
        return right * _along(values["sizes"] * values["open"], right), values["left"]

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        down, up = self.factors(values)
        used = (values["sizes"] * values["open"]).nonzero().flatten()
        if not len(used):
            # Readers of files want a layer to have a rank; the factor on x is zero.
            used = used.new_zeros(1)
        # One alpha for all layers, whatever their ranks, as diffusers needs it.
        return LayerWeights(down[used] * (len(used) / rank), up[:, used], alpha)

    def rate_factor(self, part: str) -> float:
        # Between orthonormal P and Q a step of l moves the update by the learning rate, where one of LoRA's B moves it
        # by about sqrt(out / 3) times that, which is 10 for the layers of Stable Diffusion.
        return 10.0 if part == "sizes" else 1.0

    def penalty(self, layers: Sequence[Values]) -> Tensor:
        import torch

        terms = []
        for values in layers:
            left, right = values["left"].flatten(1), values["right"].flatten(1)
            one = torch.eye(right.shape[0], device=right.device)
            terms.append((left.T @ left - one).square().sum() + (right @ right.T - one).square().sum())
        return ORTHOGONALITY * torch.stack(terms).mean()

    def after_step(self, layers: Sequence[Values], step: int, steps: int) -> None:
        import torch

        for values in layers:
            _follow_importance(values)
        widths = [len(values["sizes"]) for values in layers]
        count = budget(sum(widths), sum(2 * width // 3 for width in widths), step, steps)
        scores = torch.cat([_scores(values) for values in layers])
        chosen = torch.zeros_like(scores)
        chosen[scores.topk(count).indices] = 1.0
        last_choice = _last_choice(steps)
        for values, mask in zip(layers, chosen.split(widths), strict=True):
            if step == last_choice:
                values["open"].copy_(mask)
            values["sizes"].mul_(mask if step < last_choice else values["open"])


def budget(at_start: int, at_end: int, step: int, steps: int) -> int:
    """How many directions all layers have together after a step (b(t), equation 12 of the paper)."""
    begin, end = steps * WARM_UP, _last_choice(steps)
    left = 1 - min(1.0, max(0.0, (step - begin) / (end - begin)))
    return round(at_end + (at_start - at_end) * left**3)


def _last_choice(steps: int) -> int:
    """The step after which no direction is given up any more."""
    return math.ceil(steps * (1 - SETTLED))


def _rank_at_start(rank: int) -> int:
    return -(-3 * rank // 2)


def _follow_importance(values: Values) -> None:
    for part in _TRAINED:
        weight = values[part]
        if weight.grad is None:
            continue
        smoothed, doubt = values[f"{part}_importance"], values[f"{part}_doubt"]
        # A step that loss scaling skips has gradients that are not finite.
        importance = (weight * weight.grad).abs().nan_to_num(0.0, 0.0, 0.0)
        smoothed.lerp_(importance, 1 - SMOOTHING)
        doubt.lerp_((importance - smoothed).abs(), 1 - SMOOTHING)


def _scores(values: Values) -> Tensor:
    """Importance of each direction (S_i), (R,): that of its size, and the mean over its vectors."""
    left, sizes, right = (values[f"{part}_importance"] * values[f"{part}_doubt"] for part in _TRAINED)
    return left.flatten(1).mean(dim=0) + sizes + right.flatten(1).mean(dim=1)


def _along(vector: Tensor, matrix: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (matrix.dim() - 1))
