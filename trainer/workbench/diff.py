"""What differs between two styles: settings, layers, and size and direction of their updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.adapters.methods import as_loras
from trainer.adapters.weights import LayerWeights
from trainer.styles.file import StyleFile
from trainer.workbench.lowrank import inner, norm
from trainer.workbench.made import name_of

# They tell the moment or the bytes, or are shown by themselves.
_UNTOLD = ("sshs_", "modelspec.thumbnail", "modelspec.hash_sha256", "lora_adapter_metadata")


@dataclass(frozen=True)
class LayerDifference:
    """One layer that both styles have.

    Attributes:
        norms: Frobenius norms of the two updates at strength 1.
        angle: between the two updates as vectors, radians: 0 is one direction, pi / 2 has nothing in common.
        distance: norm of the difference of the two updates.
    """

    path: str
    ranks: tuple[int, int]
    norms: tuple[float, float]
    angle: float
    distance: float


@dataclass(frozen=True)
class Difference:
    """What differs between two styles, A and B.

    Attributes:
        names: of the styles.
        settings: metadata key -> what A and what B say, where they differ; None is nothing.
        only_first, only_second: layers that one of them has alone.
        layers: the layers that both have; those of other methods than LoRA by their low-rank part alone.
        norms, angle, distance: over all layers, where a layer that is missing has an update of zero.
        notes: sentences for people.
    """

    names: tuple[str, str]
    settings: Mapping[str, tuple[str | None, str | None]]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    layers: tuple[LayerDifference, ...]
    norms: tuple[float, float]
    angle: float
    distance: float
    notes: tuple[str, ...] = ()

    @property
    def same_update(self) -> bool:
        """Whether both change a base in the same way, to seven digits."""
        return self.distance <= 1e-7 * max(self.norms)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def diff(first: StyleFile, second: StyleFile) -> Difference:
    """Compare two styles layer by layer, from their factors alone, in fp64."""
    first = replace(first, layers=as_loras(first.layers))
    second = replace(second, layers=as_loras(second.layers))
    shared = sorted(first.layers.keys() & second.layers.keys())
    fitting = [path for path in shared if _sides(first.layers[path]) == _sides(second.layers[path])]
    notes = []
    if len(fitting) < len(shared):
        notes.append(
            f"{len(shared) - len(fitting)} layers have other widths in the two styles, which are made for different "
            "bases, and are not compared."
        )
    odd = {layer.method for file in (first, second) for layer in file.layers.values()} - {"lora"}
    if odd:
        notes.append(f"Of layers made with {', '.join(sorted(odd))} only the low-rank part is compared.")
    layers = []
    squares, product = [0.0, 0.0], 0.0
    for index, file in enumerate((first, second)):
        squares[index] = sum(norm(layer) ** 2 for layer in file.layers.values())
    for path in fitting:
        one, other = first.layers[path], second.layers[path]
        norms, between = (norm(one), norm(other)), inner(one, other)
        product += between
        layers.append(
            LayerDifference(path, (one.rank, other.rank), norms, _angle(norms, between), _away(norms, between))
        )
    norms = (squares[0] ** 0.5, squares[1] ** 0.5)
    return Difference(
        names=(name_of(first), name_of(second)),
        settings=_settings(first.metadata, second.metadata),
        only_first=tuple(sorted(first.layers.keys() - second.layers.keys())),
        only_second=tuple(sorted(second.layers.keys() - first.layers.keys())),
        layers=tuple(layers),
        norms=norms,
        angle=_angle(norms, product),
        distance=_away(norms, product),
        notes=tuple(notes),
    )


def _sides(layer: LayerWeights) -> tuple[int, int]:
    return layer.up.shape[0], layer.down[0].numel()


def _angle(norms: tuple[float, float], product: float) -> float:
    size = norms[0] * norms[1]
    if not size > 0:
        return 0.0 if norms[0] == norms[1] else math.pi / 2
    return math.acos(max(-1.0, min(1.0, product / size)))


def _away(norms: tuple[float, float], product: float) -> float:
    return max(norms[0] ** 2 + norms[1] ** 2 - 2 * product, 0.0) ** 0.5


def _settings(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    keys = sorted(key for key in first.keys() | second.keys() if not key.startswith(_UNTOLD))
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}
