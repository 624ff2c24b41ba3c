"""What a study compares: its arms, each a few settings that differ from those all arms share.

The studies repeat tables 5 and 6 of the LoRA paper (Hu et al. 2021, arXiv 2106.09685, section 7) and its comparison of
methods by trained values (its figure 2) on a diffusion model. That of blocks asks of any base what B-LoRA asked of SDXL
(Frenkel et al. 2024, arXiv 2403.14572): where in the denoiser a style is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from trainer.adapters.methods import METHODS, methods_with
from trainer.adapters.targets import matching
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from trainer.bases.base import Base
    from trainer.config import RunConfig

Kind = Literal["placement", "blocks", "rank", "methods"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RANKS = (1, 2, 4, 8, 16, 64)
"""Of the paper's table 6."""

_PROJECTIONS = {"Wq": "to_q", "Wk": "to_k", "Wv": "to_v", "Wo": r"to_out\.0"}
_PAIRS = (("Wq", "Wk"), ("Wq", "Wv"), ("Wk", "Wv"), ("Wv", "Wo"))
_BLOCKS = {"down": r"down_blocks\.", "mid": r"mid_block\.", "up": r"up_blocks\."}


@dataclass(frozen=True)
class Arm:
    """One of the ways to train that a study compares.

    Attributes:
        name: unique in its study.
        changes: what differs from the common settings, by dotted path, such as ``adapter.rank``.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def arms_of(kind: Kind, base: Base, config: RunConfig, ranks: Sequence[int] = ()) -> list[Arm]:
    """The arms of a study.

    Args:
        base: whose layers are trained.
        config: the settings that all arms share; what it leaves open comes from its preset.
        ranks: of a study of ranks; none are `RANKS`.

    Raises:
        ConfigError: a setting that the study itself decides is set, or the base has nothing to compare.
    """
    _refuse_decided(kind, config)
    preset = base.family.presets[config.train.preset]
    return _MAKERS[kind](base.denoiser, config, preset.rank, tuple(ranks) or RANKS)


def placement(model: nn.Module, config: RunConfig, usual_rank: int, ranks: Sequence[int] = ()) -> list[Arm]:
    """Which matrices learn, all arms with about as many trained values: those of all four attention matrices.

    Ranks are whole numbers, so the budget is met as nearly as they allow; alpha stays what it is, as in the paper,
    so that ``alpha / r`` makes up for the rank.

    Args:
        model: the denoiser.
        usual_rank: the preset's; all four matrices together take half of it.
    """
    rank = config.adapter.rank or max(1, usual_rank // 2)
    alpha = config.adapter.alpha or float(usual_rank)
    everything = _attention("", "[12]", _PROJECTIONS)
    budget = rank * _values_per_rank(model, everything)[0]
    if not budget:
        raise ConfigError("This base has no attention layers named attn1 and attn2, so there is no placement to study.")
    places = {name: _attention("", "[12]", [name]) for name in _PROJECTIONS}
    places |= {" + ".join(pair): _attention("", "[12]", pair) for pair in _PAIRS}
    places |= {"all four": everything}
    places |= {f"all four, attn{number}": _attention("", number, _PROJECTIONS) for number in "12"}
    places |= {f"all four, {block}": _attention(path, "[12]", _PROJECTIONS) for block, path in _BLOCKS.items()}
    return _at_budget(model, places, budget, alpha)


def blocks(model: nn.Module, config: RunConfig, usual_rank: int, ranks: Sequence[int] = ()) -> list[Arm]:
    """Where in the denoiser a style is learned: each block of attention alone, at the trained values of `placement`.

    A block is what diffusers calls one, such as ``up_blocks.0.attentions.1``, with all transformer layers in it; it is
    named ``up_blocks.0 attn 1``, and ``study.json`` holds the pattern for ``adapter.targets``.
    """
    from trainer.adapters.layers import adaptable

    rank = config.adapter.rank or max(1, usual_rank // 2)
    alpha = config.adapter.alpha or float(usual_rank)
    everything = _attention("", "[12]", _PROJECTIONS)
    paths = matching(everything, [path for path, module in model.named_modules() if adaptable(module)])
    found = dict.fromkeys(path.rpartition(".transformer_blocks.")[0] for path in paths)
    places = {
        block.replace(".attentions.", " attn "): _attention(rf"{re.escape(block)}\.", "[12]", _PROJECTIONS)
        for block in found
        if block
    }
    if len(places) < 2:
        raise ConfigError("This base has no attention layers in several blocks, so there are none to compare.")
    budget = rank * _values_per_rank(model, everything)[0]
    return _at_budget(model, {**places, "all": everything}, budget, alpha)


def rank(model: nn.Module, config: RunConfig, usual_rank: int, ranks: Sequence[int] = RANKS) -> list[Arm]:
    """One method at several ranks; alpha stays what it is, as in the paper."""
    alpha = config.adapter.alpha or float(usual_rank)
    return [Arm(f"r = {each}", {"adapter.rank": each, "adapter.alpha": alpha}) for each in sorted(set(ranks))]


def methods(model: nn.Module, config: RunConfig, usual_rank: int, ranks: Sequence[int] = ()) -> list[Arm]:
    """Every method that can be trained, and LoRA's other starts, at one rank."""
    arms = [Arm(name, {"adapter.method": name}) for name in METHODS]
    if "lora" in methods_with("init"):
        arms += [
            Arm(f"lora, {init} start", {"adapter.method": "lora", "adapter.init": init})
            for init in ("gaussian", "pissa")
        ]
    return arms


_MAKERS: Mapping[Kind, Callable[[nn.Module, RunConfig, int, Sequence[int]], list[Arm]]] = {
    "placement": placement,
    "blocks": blocks,
    "rank": rank,
    "methods": methods,
}
_DECIDED = {
    "placement": ("targets",),
    "blocks": ("targets",),
    "rank": ("rank",),
    "methods": ("method", "init", "rate_ratio"),
}


def _refuse_decided(kind: Kind, config: RunConfig) -> None:
    fresh = type(config.adapter)()
    for name in _DECIDED[kind]:
        value = getattr(config.adapter, name)
        if value != getattr(fresh, name):
            raise ConfigError(
                f"adapter.{name} is {value!r}, but that is what a study of {kind} compares: leave it out"
                + (", or say which ranks with --ranks." if name == "rank" else ".")
            )


def _at_budget(model: nn.Module, places: Mapping[str, str], budget: int, alpha: float) -> list[Arm]:
    """An arm for each place that the model has, at the whole rank that comes nearest to a number of trained values."""
    arms = []
    for name, targets in places.items():
        each, room = _values_per_rank(model, targets)
        if each:
            fitting = min(room, max(1, round(budget / each)))
            arms.append(Arm(name, {"adapter.targets": targets, "adapter.rank": fitting, "adapter.alpha": alpha}))
    return arms


def _attention(block: str, which: str, matrices: Sequence[str] | Mapping[str, str]) -> str:
    kinds = "|".join(_PROJECTIONS[name] for name in matrices)
    return rf"{block}.*\.attn{which}\.({kinds})"


def _values_per_rank(model: nn.Module, targets: str) -> tuple[int, int]:
    """Trained values that each rank of LoRA takes on the layers, and the highest rank they have room for."""
    from trainer.adapters.layers import adaptable

    layers = {path: module for path, module in model.named_modules() if adaptable(module)}
    chosen = [layers[path].weight for path in matching(targets, list(layers))]
    sides = [(weight.shape[0], weight[0].numel()) for weight in chosen]
    return sum(map(sum, sides)), min(map(min, sides), default=0)
