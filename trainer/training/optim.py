"""How the adapter's weights move: optimizers as a registry, the learning rate over time, an average of the weights.

A new optimizer is one entry of `OPTIMIZERS` (and its name in `trainer.config.sections.OptimConfig`).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from trainer.config import OptimConfig
from trainer.errors import ConfigError, RunError

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimizerEntry:
    """One way to move weights.

    Attributes:
        make: from parameter groups, each with its ``lr``, to an optimizer over fp32 parameters.
        usual_rate: what an unset learning rate becomes; None is the preset's.
        scheduled: whether ``optim.schedule`` applies; the others settle by themselves.
        one_rate: whether all parts of an adapter must learn at the same rate.
        exported: a parameter's value in the file, where it is not the one that gradients are taken at.
    """

    make: Callable[[Groups, OptimConfig], Optimizer]
    usual_rate: float | None = None
    scheduled: bool = True
    one_rate: bool = False
    exported: Callable[[Optimizer, Parameter], Tensor] | None = None


def _adamw(groups: Groups, config: OptimConfig) -> Optimizer:
    """Fused AdamW (Loshchilov and Hutter 2019); its state exists from the start, so that measuring counts it."""
    fused = groups[0]["params"][0].device.type in {"cpu", "cuda"}
    optimizer = torch.optim.AdamW(groups, **_common(config), fused=fused)
    for parameter in _all_of(optimizer):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _prodigy(groups: Groups, config: OptimConfig) -> Optimizer:
    """Prodigy (Mishchenko and Defazio, arXiv 2306.06101): finds its own step size; the rate is a factor on it."""
    # It prints a sentence about weight decay.
    with contextlib.redirect_stdout(io.StringIO()):
        made: Optimizer = _from_package("prodigyopt", "prodigy").Prodigy(
            groups, **_common(config), use_bias_correction=True, safeguard_warmup=True
        )
    return made


def _schedule_free(groups: Groups, config: OptimConfig) -> Optimizer:
    """Schedule-free AdamW (Defazio et al., arXiv 2405.15682): averages its own path instead of slowing down."""
    optimizer: Any = _from_package("schedulefree", "schedule_free_adamw").AdamWScheduleFree(groups, **_common(config))
    optimizer.train()
    return optimizer


def _averaged_path(optimizer: Optimizer, parameter: Parameter) -> Tensor:
    """x of schedule-free AdamW, from y, where gradients are taken, and z: y = beta1 x + (1 - beta1) z."""
    z = optimizer.state[parameter].get("z")
    beta1 = optimizer.param_groups[0]["betas"][0]
    return parameter.detach().clone() if z is None or beta1 == 0 else parameter.detach().lerp(z, 1 - 1 / beta1)


OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    "adamw": OptimizerEntry(_adamw),
    "prodigy": OptimizerEntry(_prodigy, usual_rate=1.0, one_rate=True),
    "schedule_free_adamw": OptimizerEntry(_schedule_free, scheduled=False, exported=_averaged_path),
}


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
        config,
    )


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Let every group learn at ``rate`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def learning_rate_at(step: int, *, peak: float, steps: int, warmup: int, schedule: str) -> float:
    """Learning rate of optimizer step ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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


def _from_package(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(
            f"optim.optimizer is {name!r}, which needs the package {module}: pip install {module}, or use 'adamw'."
        ) from None


def _all_of(optimizer: Optimizer) -> list[Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _kept(key: str, value: object) -> bool:
    """Whether a group's entry is part of its memory: numbers, but not those that the settings decide."""
    settings = {"lr", "factor", "eps", "weight_decay", "fused", "foreach", "maximize", "amsgrad", "capturable"}
    return key not in settings and isinstance(value, (bool, int, float))
