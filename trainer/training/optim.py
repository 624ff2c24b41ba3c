"""How an adapter's weights move: its optimizer and what that remembers, the learning rate, an average of the weights.

Which optimizers there are is in `trainer.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from trainer.config import OptimConfig
from trainer.errors import ConfigError, RunError
from trainer.optimizers import OPTIMIZERS, SCHEDULES


def make_optimizer(
    named: Iterable[tuple[str, Parameter]], config: OptimConfig, rate_factor: Callable[[str], float] = lambda key: 1.0
) -> Optimizer:
    """The configured optimizer over an adapter's trainable parameters, grouped by their rate factor.

    Args:
        named: parameters by key; those without gradients (frozen parts) are left out.
        rate_factor: of each key, relative to the learning rate (LoRA+ trains B faster than A).

    Raises:
        ConfigError: the optimizer's package is not installed, or it cannot train parts at rates of their own.
    """
    entry = OPTIMIZERS[config.optimizer]
    groups: dict[float, list[Parameter]] = {}
    for key, parameter in named:
        if parameter.requires_grad:
            groups.setdefault(float(rate_factor(key)), []).append(parameter)
    if entry.one_rate and len(groups) > 1:
        raise ConfigError(
            f"optim.optimizer is {config.optimizer!r}, which moves all parts of an adapter at one rate, but "
            "adapter.method asks for several: use 'adamw' with it."
        )
    rate = config.learning_rate or 0.0
    return entry.make(
        [{"params": parameters, "lr": rate * factor, "factor": factor} for factor, parameters in groups.items()],
        _common(config),
    )


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Let every group learn at ``rate`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def learning_rate_at(step: int, *, peak: float, steps: int, warmup: int, schedule: str) -> float:
    """Learning rate of optimizer step ``step`` (from 0): linear warm-up, then as the schedule says."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * SCHEDULES[schedule](min(1.0, progress))


def state_of(optimizer: Optimizer, named: Sequence[tuple[str, Parameter]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that an optimizer remembers: tensors by ``<key>.<what>``, and numbers of parameters and groups for JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for key, parameter in named:
        for what, value in optimizer.state.get(parameter, {}).items():
            place: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
            place[f"{key}.{what}"] = value
    groups = [{k: v for k, v in group.items() if _kept(k, v)} for group in optimizer.param_groups]
    return tensors, {"numbers": numbers, "groups": groups}


def restore_state(
    optimizer: Optimizer,
    named: Sequence[tuple[str, Parameter]],
    tensors: Mapping[str, Tensor],
    remembered: Mapping[str, Any],
) -> None:
    """Give an optimizer back what `state_of` took from it.

    Raises:
        RunError: it was taken from another kind of optimizer.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in {**tensors, **remembered.get("numbers", {})}.items():
        key, _, what = name.rpartition(".")
        found.setdefault(key, {})[what] = value
    for key, parameter in named:
        fresh, kept = optimizer.state.get(parameter, {}), found.get(key, {})
        if fresh and fresh.keys() != kept.keys():
            raise RunError("The checkpoint was made with another optimizer; its settings have been changed since.")
        if kept:
            optimizer.state[parameter] = {
                what: value.to(parameter.device, copy=True) if isinstance(value, Tensor) else value
                for what, value in kept.items()
            }
    for group, values in zip(optimizer.param_groups, remembered.get("groups", ()), strict=False):
        group.update(values)


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


def _common(config: OptimConfig) -> dict[str, Any]:
    """What every optimizer of Adam's kin is told."""
    return {
        "lr": config.learning_rate or 1.0,
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
        "weight_decay": config.weight_decay,
    }


def _kept(key: str, value: object) -> bool:
    """Whether a group's entry is part of its memory: numbers, but not those that the settings decide."""
    settings = {"lr", "factor", "eps", "weight_decay", "fused", "foreach", "maximize", "amsgrad", "capturable"}
    return key not in settings and isinstance(value, (bool, int, float))
