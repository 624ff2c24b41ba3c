"""What a style does to each layer: how much, along how many directions, and against what the base does there.

Shapes: out, in of a layer; r rank; an update is ``dW = scale B A`` (out, in), of singular values s_1 >= s_2 >= ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.styles.file import StyleFile
from trainer.workbench.lowrank import Spectrum, factors, spectrum
from trainer.workbench.made import plain
from trainer.workbench.subspaces import amplification, kind_of

ENERGY = 0.99
"""Share of the squared norm that a smaller rank must keep to be worth a hint."""
MOST_SIZES = 64
"""Singular values of a layer that are told."""
OFFERED = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class LayerAnatomy:
    """One layer.

    Attributes:
        path, kind: root-qualified, and what its name ends with.
        rank: of the file's matrices.
        norm: ``||dW||``, Frobenius.
        sizes: the largest singular values, at most `MOST_SIZES`.
        effective: how many directions hold `ENERGY` of the squared norm.
        share: ``||dW|| / ||W||``; None without the base.
        factor: ``||dW|| / ||U^T W V||``, by how much the base's own work along the update's directions is turned up;
            likewise.
    """

    path: str
    kind: str
    rank: int
    norm: float
    sizes: tuple[float, ...]
    effective: int
    share: float | None = None
    factor: float | None = None


@dataclass(frozen=True)
class Anatomy:
    """All layers, in the file's order.

    Attributes:
        smaller: the smallest offered rank that keeps `ENERGY` of the whole, where that is less than the style has.
        kept: the share that it keeps.
    """

    layers: tuple[LayerAnatomy, ...]
    smaller: int | None
    kept: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def anatomy(file: StyleFile, weight_of: Callable[[str], Tensor | None] = lambda path: None) -> Anatomy:
    """Look at every layer of a style.

    Args:
        weight_of: the base's weight of a layer, (out, in[, kh, kw]), by root-qualified path; None where it is unknown.

    Raises:
        AdapterFileError: the style's change depends on the base, or is no change of its weights.
    """
    layers, spectra = [], []
    for path, layer in plain(file, "looked into").items():
        found = spectrum(*factors(layer))
        layers.append(_looked_at(path, layer, found, weight_of(path)))
        spectra.append(found)
    total = sum(found.energy for found in spectra)
    most = max(layer.rank for layer in layers)
    for rank in OFFERED:
        kept = 1 - sum(found.lost_below(rank) for found in spectra) / total if total > 0 else 1.0
        if rank < most and kept >= ENERGY:
            return Anatomy(tuple(layers), rank, kept)
    return Anatomy(tuple(layers), None, 1.0)


def by_kind(layers: tuple[LayerAnatomy, ...]) -> Mapping[str, list[LayerAnatomy]]:
    """The layers by what their names end with."""
    kinds: dict[str, list[LayerAnatomy]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    return dict(sorted(kinds.items()))


def _looked_at(path: str, layer: LayerWeights, found: Spectrum, weight: Tensor | None) -> LayerAnatomy:
    share = factor = None
    moves = found.energy > 0
    if weight is not None and weight[0].numel() == layer.down[0].numel() and weight.shape[0] == layer.up.shape[0]:
        share = found.energy**0.5 / max(float(weight.double().norm()), 1e-300)
        factor = amplification(path, layer, weight, own=False).factor if moves else None
    return LayerAnatomy(
        path=path,
        kind=kind_of(path),
        rank=layer.rank,
        norm=found.energy**0.5,
        sizes=tuple(found.sizes[:MOST_SIZES].tolist()),
        effective=found.rank_for(ENERGY) if moves else 0,
        share=share,
        factor=factor,
    )
