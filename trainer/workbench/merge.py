"""Several styles as one: their weighted sum, exact side by side, or at a lower rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError, ConfigError
from trainer.styles.file import StyleFile
from trainer.workbench.lowrank import factors, spectrum
from trainer.workbench.made import Made, described, name_of, plain, same_family, source
from trainer.workbench.resize import check, reduced, told_ranks


@dataclass(frozen=True)
class Ingredient:
    """A style and how strongly it counts; 1 is as it was trained."""

    file: StyleFile
    strength: float = 1.0


def merge(
    ingredients: Sequence[Ingredient], *, rank: int | None = None, energy: float | None = None, name: str = ""
) -> Made:
    """One style whose update is the weighted sum of the others', as `Bank` blends them.

    Without a rank the factors stand side by side, which is exact; ranks add up. Where a layer has no room for them
    all, its directions are found anew, and still nothing is lost.

    Args:
        rank, energy: as of `trainer.workbench.resize.resize`.
        name: of the result; empty joins the styles' names.

    Raises:
        ConfigError: fewer than two styles, a strength that is no finite number, or a rank that cannot be.
        AdapterFileError: they are made for different bases, or a style's change depends on the base (DoRA).
    """
    if len(ingredients) < 2:
        raise ConfigError("Name two styles or more to merge.")
    for each in ingredients:
        if not math.isfinite(each.strength):
            raise ConfigError(f"The strength of {each.file.path} is {each.strength}, but should be a finite number.")
    if rank is not None or energy is not None:
        check(rank, energy)
    files = [each.file for each in ingredients]
    same_family(files)
    shares: dict[str, list[LayerWeights]] = {}
    for each in ingredients:
        for path, layer in plain(each.file, "merged").items():
            first = shares.setdefault(path, [])
            first.append(_weighted(each, path, layer, like=first[0] if first else layer))
    layers = {path: _side_by_side(parts) for path, parts in sorted(shares.items())}
    share = 0.0
    if rank is not None or energy is not None:
        layers, lost, total = reduced(layers, rank, energy)
        share = lost / total if total > 0 else 0.0
    settings = {key: value for key, value in (("rank", rank), ("energy", energy)) if value is not None}
    metadata = described(
        "merge",
        files,
        layers,
        of=[source(each.file, strength=each.strength) for each in ingredients],
        name=name or " + ".join(name_of(file) for file in files),
        settings=settings,
    )
    notes = [note for file in files for note in file.notes]
    bases = {base for file in files if (base := file.metadata.get("patina.base_sha256"))}
    if len(bases) > 1:
        notes.append("The styles were trained on different bases of one family; together they may look different.")
    told = "exact, side by side" if not settings else f"{share:.2%} of the energy is left out"
    notes.append(f"{len(files)} styles in {len(layers)} layers, rank {told_ranks(layers)}; {told}.")
    return Made(layers, metadata, tuple(dict.fromkeys(notes)), share)


def _weighted(each: Ingredient, path: str, layer: LayerWeights, *, like: LayerWeights) -> LayerWeights:
    """A layer with its strength and scale inside ``up``, in the form that the layer has in the first style."""
    down, up = layer.down.float(), layer.up.float() * (layer.scale * each.strength)
    if down.dim() != like.down.dim() and (down.dim() == 2 or down.shape[2:] == (1, 1)):
        down = down.flatten(1).reshape(down.shape[0], -1, *[1] * (like.down.dim() - 2))
        up = up.flatten(1).reshape(up.shape[0], -1, *[1] * (like.down.dim() - 2))
    if down.shape[1:] != like.down.shape[1:] or up.shape[0] != like.up.shape[0]:
        raise AdapterFileError(
            f"{each.file.path} is made for another base than the first style: {path} is {_size(layer)} in it, but "
            f"{_size(like)} there."
        )
    return LayerWeights(down, up, float(layer.rank))


def _side_by_side(parts: Sequence[LayerWeights]) -> LayerWeights:
    down = torch.cat([part.down for part in parts])
    up: Tensor = torch.cat([part.up for part in parts], dim=1)
    whole = LayerWeights(down, up, float(down.shape[0]))
    room = min(up.shape[0], down[0].numel())
    return spectrum(*factors(whole)).layer(room, down.shape[1:]) if down.shape[0] > room else whole


def _size(layer: LayerWeights) -> str:
    return f"{' x '.join(map(str, layer.down.shape[1:]))} to {layer.up.shape[0]}"
