"""How the adapter's weights move: AdamW, its learning rate over time, clipping, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from trainer.config import OptimConfig


def learning_rate_at(step: int, *, peak: float, steps: int, warmup: int, schedule: str) -> float:
    """Learning rate of optimizer step ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(parameters: Sequence[Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019) over fp32 parameters; its state exists from the start."""
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate or 0.0,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type in {"cpu", "cuda"},
    )
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """Exponential moving average of an adapter's parameters, in fp32; decay ramps up as (1 + n) / (10 + n)."""

    def __init__(self, parameters: Sequence[Parameter], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[Parameter]) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)
        self.updates += 1

    def tensors(self) -> list[Tensor]:
        return self.values
