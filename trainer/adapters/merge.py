"""Merging: the adapters' updates inside the base's weights, for inference without any added latency.

    W = round(W0 + sum_i s_i scale_i B_i A_i)

computed in fp32 from a pristine copy and rounded once. Unmerging puts the copy back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.adapters.layers import GatedLayer
from trainer.errors import ConfigError, RunError


@dataclass(frozen=True)
class MergeReport:
    """What merging did.

    Attributes:
        layers: how many layers changed.
        strengths: what was merged.
        dtype: the weights' type.
        lost: share of the update that rounding to the weights' type took, ``||rounded - exact|| / ||update||`` over
            all layers: 0 in fp32, often a good part in bf16, where a small change vanishes between neighbouring values.
        worst_layer, worst_lost: the layer where it is largest, and how large.
    """

    layers: int
    strengths: Mapping[str, float]
    dtype: str
    lost: float
    worst_layer: str
    worst_lost: float

    def sentence(self) -> str:
        """The report for people."""
        text = f"Merged into {self.layers} layers in {self.dtype}"
        if self.dtype == "float32":
            return f"{text}."
        worst = f"at most {self.worst_lost:.1%}, in {self.worst_layer}"
        return f"{text}; rounding took {self.lost:.1%} of the update ({worst})."


def merge(bank: Bank, strengths: Mapping[str, float] | None = None) -> MergeReport:
    """Merge the bank's adapters into the weights; the low-rank path is skipped from then on.

    Args:
        strengths: by adapter, where those that are missing get 0; None takes those that are set.

    Raises:
        RunError: the bank is merged already, or holds nothing.
        ConfigError: the strengths that are set differ within the batch, or a name is unknown.
    """
    if bank.merged:
        raise RunError("The adapters are merged into the base already; unmerge first.")
    if not bank.layers:
        raise RunError("There is no adapter to merge.")
    if strengths is not None:
        bank.set_strengths(strengths)
    weights = {root: _one_row(bank, root) for root in bank.roots}
    size = lost = 0.0
    worst = ("", -1.0)
    dtype = torch.float32
    try:
        for path, layer in bank.layers.items():
            for one in layer.shares:
                if not one.method.changes_weights:
                    raise RunError(f"An adapter made with {one.method.name} cannot be merged into the base.")
            if "weight" not in dict(layer.base.named_parameters(recurse=False)):
                raise RunError(f"{path} is quantised; adapters cannot be merged into it.")
            dtype = layer.weight.dtype
            layer_size, layer_lost = _merge_layer(layer, weights[path.split(".", 1)[0]])
            size, lost = size + layer_size, lost + layer_lost
            share = (layer_lost / layer_size) ** 0.5 if layer_size else 0.0
            if share > worst[1]:
                worst = (path, share)
    except BaseException:
        unmerge(bank)
        raise
    return MergeReport(
        layers=len(bank.layers),
        strengths=weights[next(iter(bank.roots))],
        dtype=str(dtype).removeprefix("torch."),
        lost=(lost / size) ** 0.5 if size else 0.0,
        worst_layer=worst[0],
        worst_lost=worst[1],
    )


def unmerge(bank: Bank) -> None:
    """Put the pristine weights back, bit for bit. Does nothing when the bank is not merged."""
    for layer in bank.layers.values():
        layer.restore()


def _one_row(bank: Bank, root: str) -> dict[str, float]:
    rows = bank.strengths_of(root)
    if not bool((rows == rows[:1]).all()):
        raise ConfigError("The strengths differ within the batch; only one strength for each adapter can be merged.")
    return dict(zip(bank.names, rows[0].tolist(), strict=True))


def _merge_layer(layer: GatedLayer, strengths: Mapping[str, float]) -> tuple[float, float]:
    """Merge into one layer; the squared size of its update, and of what rounding took of it."""
    updates: dict[str, Tensor] = {}
    with torch.no_grad():
        for share in layer.shares:
            for name, update in share.method.merged(share.values(), layer.base, share.rank, share.alpha).items():
                scaled = strengths[share.adapter] * update
                updates[name] = updates[name] + scaled if name in updates else scaled
    size = lost = 0.0
    rounded: dict[str, Tensor] = {}
    for name, update in updates.items():
        pristine = layer.base.get_parameter(name).detach()
        exact = pristine.float() + update
        rounded[name] = exact.to(pristine.dtype)
        size += float(update.square().sum())
        lost += float((rounded[name].float() - exact).square().sum())
    layer.merge_in(rounded)
    return size, lost
