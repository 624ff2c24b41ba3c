"""How an adapter's weights can be moved: optimizers, and ways of the learning rate over time, a row each.

A new one is a row here: settings, help texts and training find it. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]
Common = Mapping[str, Any]
"""What every optimizer of Adam's kin is told: lr, betas, eps and weight_decay."""


@dataclass(frozen=True)
class OptimizerEntry:
    """One way to move weights.

    Attributes:
        summary: what a person sees of it, after its name.
        make: from parameter groups, each with its ``lr``, to an optimizer over fp32 parameters.
        usual_rate: what an unset learning rate becomes; None is the preset's.
        scheduled: whether ``optim.schedule`` applies; the others settle by themselves.
        one_rate: whether all parts of an adapter must learn at the same rate.
        exported: a parameter's value in the file, where it is not the one that gradients are taken at.
        spares: what it gives up for memory, as a sentence.
    """

    summary: str
    make: Callable[[Groups, Common], Optimizer]
    usual_rate: float | None = None
    scheduled: bool = True
    one_rate: bool = False
    exported: Callable[[Optimizer, Parameter], Tensor] | None = None
    spares: str = ""


def _adamw(groups: Groups, common: Common) -> Optimizer:
    """Fused AdamW (Loshchilov and Hutter 2019); its state exists from the start, so that measuring counts it."""
    import torch

    fused = groups[0]["params"][0].device.type in {"cpu", "cuda"}
    optimizer = torch.optim.AdamW(groups, **common, fused=fused)
    for parameter in _all_of(optimizer):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _adamw_8bit(groups: Groups, common: Common) -> Optimizer:
    """AdamW with 8 bits a value of its state, in blocks with a scale each (Dettmers et al., arXiv 2110.02861).

    Parts of fewer than 4,096 values keep 32 bits. The state exists from the start, so that measuring counts it.

    Raises:
        ConfigError: bitsandbytes is not installed, or has no kernels for the device.
    """
    library = _from_package("bitsandbytes.optim", "adamw_8bit")
    kind = groups[0]["params"][0].device.type
    if kind not in _DEVICES_WITH_8_BITS:
        raise ConfigError(
            f"optim.optimizer is 'adamw_8bit', which bitsandbytes cannot compute on {kind}: use 'adamw', or "
            "train.device 'cpu'."
        )
    optimizer: Any = library.AdamW8bit(groups, **common)
    for number, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            optimizer.init_state(group, parameter, number, index)
            state = optimizer.state[parameter]
            # One table for all parts is a single piece of memory, which a file of tensors cannot hold twice.
            state.update({key: value.clone() for key, value in state.items() if key.startswith("qmap")})
    made: Optimizer = optimizer
    return made


_DEVICES_WITH_8_BITS = ("cpu", "cuda", "xpu")


def _prodigy(groups: Groups, common: Common) -> Optimizer:
    """Prodigy (Mishchenko and Defazio, arXiv 2306.06101): finds its own step size; the rate is a factor on it."""
    # It prints a sentence about weight decay.
    with contextlib.redirect_stdout(io.StringIO()):
        made: Optimizer = _from_package("prodigyopt", "prodigy").Prodigy(
            groups, **common, use_bias_correction=True, safeguard_warmup=True
        )
    return made


def _schedule_free(groups: Groups, common: Common) -> Optimizer:
    """Schedule-free AdamW (Defazio et al., arXiv 2405.15682): averages its own path instead of slowing down."""
    optimizer: Any = _from_package("schedulefree", "schedule_free_adamw").AdamWScheduleFree(groups, **common)
    optimizer.train()
    return optimizer


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    """Half a cosine down to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _averaged_path(optimizer: Optimizer, parameter: Parameter) -> Tensor:
    """x of schedule-free AdamW, from y, where gradients are taken, and z: y = beta1 x + (1 - beta1) z."""
    z = optimizer.state[parameter].get("z")
    beta1 = optimizer.param_groups[0]["betas"][0]
    return parameter.detach().clone() if z is None or beta1 == 0 else parameter.detach().lerp(z, 1 - 1 / beta1)


OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    "adamw": OptimizerEntry("suits the presets' rates", _adamw),
    "adamw_8bit": OptimizerEntry(
        "is the same with a quarter of its memory, which tells where whole layers learn",
        _adamw_8bit,
        spares="The optimizer remembers in 8 bits a value instead of 32.",
    ),
    "prodigy": OptimizerEntry(
        "finds its own rate, so that the style shows without tuning but steps are slower",
        _prodigy,
        usual_rate=1.0,
        one_rate=True,
    ),
    "schedule_free_adamw": OptimizerEntry(
        "needs no schedule and is as good at any step you stop at",
        _schedule_free,
        scheduled=False,
        exported=_averaged_path,
    ),
}

SCHEDULES: Mapping[str, Callable[[float], float]] = {"constant": _constant, "cosine": _cosine}
"""Share of the peak rate after a share of the steps that follow the warm-up, both from 0 to 1."""


def _from_package(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ConfigError(
            f"optim.optimizer is {name!r}, which needs the package {package}: pip install {package}, or use 'adamw'."
        ) from None


def _all_of(optimizer: Optimizer) -> list[Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
