"""A style at a lower rank: of each layer's directions the strongest are kept."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError
from trainer.styles.file import StyleFile
from trainer.workbench.lowrank import NEGLIGIBLE, factors, norm, spectrum
from trainer.workbench.made import Made, described, name_of, plain, source


def resize(file: StyleFile, *, rank: int | None = None, energy: float | None = None, name: str = "") -> Made:
    """Lower the rank of each layer; the best approximation there is (Eckart and Young 1936).

    A layer that has no higher rank stays bit for bit as it is.

    Args:
        rank: most directions of a layer.
        energy: share of each layer's energy (squared norm) to keep, above 0 and at most 1; ranks then differ from
            layer to layer. With both, the smaller rank counts.
        name: of the result; empty is the style's own.

    Raises:
        ConfigError: neither is given, or one is out of range.
        AdapterFileError: the style's change depends on the base (DoRA).
    """
    check(rank, energy)
    layers, lost, total = reduced(plain(file, "resized"), rank, energy)
    settings = {key: value for key, value in (("rank", rank), ("energy", energy)) if value is not None}
    metadata = described("resize", [file], layers, of=[source(file)], name=name or name_of(file), settings=settings)
    share = lost / total if total > 0 else 0.0
    return Made(layers, metadata, (*file.notes, sentence(file.layers, layers, share)), share)


def reduced(
    layers: dict[str, LayerWeights], rank: int | None, energy: float | None
) -> tuple[dict[str, LayerWeights], float, float]:
    """Layers at lower ranks, the energy that was left out, and the energy there was."""
    found: dict[str, LayerWeights] = {}
    lost = total = 0.0
    for path, layer in layers.items():
        if energy is None and rank is not None and layer.rank <= rank:
            found[path] = layer
            total += norm(layer) ** 2
            continue
        directions = spectrum(*factors(layer))
        kept = min(layer.rank if rank is None else rank, layer.rank if energy is None else directions.rank_for(energy))
        found[path] = directions.layer(kept, layer.down.shape[1:])
        lost += directions.lost_below(kept)
        total += directions.energy
    return found, lost if lost > NEGLIGIBLE * total else 0.0, total


def check(rank: int | None, energy: float | None) -> None:
    """Refuse what no style can be resized to.

    Raises:
        ConfigError: neither is given, or one is out of range.
    """
    if rank is None and energy is None:
        raise ConfigError(
            "Say to what: a rank (--rank 8), or the share of each layer's energy to keep (--energy 0.95)."
        )
    if rank is not None and rank < 1:
        raise ConfigError(f"--rank is {rank}, but should be at least 1.")
    if energy is not None and not 0 < energy <= 1:
        raise ConfigError(f"--energy is {energy:g}, but should be above 0 and at most 1, such as 0.95.")


def sentence(before: dict[str, LayerWeights], after: dict[str, LayerWeights], lost: float) -> str:
    """What resizing did, for people."""
    sizes = sum(layer.size for layer in after.values()) / max(1, sum(layer.size for layer in before.values()))
    return (
        f"Rank {told_ranks(after)}; {lost:.2%} of the energy is left out, and the weights take {sizes:.0%} of the room."
    )


def told_ranks(layers: Mapping[str, LayerWeights]) -> str:
    """The rank of layers, or from which to which."""
    ranks = sorted({layer.rank for layer in layers.values()})
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
