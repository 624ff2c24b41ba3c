"""Which directions two styles have in common, and how far a style turns up what the base already does.

Sources: Hu et al. 2021 (LoRA), arXiv 2106.09685, sections 7.2 and 7.3.

Shapes: out, in of a layer; r rank; an update is ``dW = scale B A`` (out, in).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.adapters.methods import as_loras, method_of
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError
from trainer.styles.file import StyleFile
from trainer.styles.fit import fit
from trainer.workbench.lowrank import factors, spectrum

Side = Literal["outputs", "inputs", "A"]
SIDES: Mapping[Side, str] = {
    "outputs": "what the update writes: the left singular vectors of B A",
    "inputs": "what the update reads: the right singular vectors of B A",
    "A": "the right singular vectors of A alone, as in the paper",
}
"""B starts at zero, so what an update writes was learned; A starts at random, and alike for two styles of one seed."""


@dataclass(frozen=True)
class Overlap:
    """What two styles share in the layers of one kind, on average.

    Attributes:
        kind: what the layers' names end with, such as ``attn2.to_q``.
        layers: their paths.
        similarity: phi(i, j), (r1, r2), from 0 (nothing) to 1 (one subspace within the other); entry [i - 1, j - 1] is
            of the i strongest directions of the one style and the j strongest of the other.
        by_chance: what it would be for random subspaces, (r1, r2).
    """

    kind: str
    layers: tuple[str, ...]
    similarity: Tensor
    by_chance: Tensor


def directions(layer: LayerWeights, side: Side = "outputs") -> Tensor:
    """A layer's directions, strongest first, as orthonormal rows: (r, in), or (r, out) of ``outputs``; fp64.

    A is random before training and stays close to that while B is small, so the order of A's own directions says
    little about a short training; that of ``B A`` is the order of what the style does.
    """
    up, down = factors(layer)
    if side == "A":
        return torch.linalg.svd(down, full_matrices=False).Vh
    found = spectrum(up, down)
    return found.right if side == "inputs" else found.left.T


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """``phi(i, j) = ||U_i^T V_j||_F^2 / min(i, j)`` of all leading subspaces (equation 4 of the paper), (r1, r2).

    Args:
        first, second: orthonormal rows, (r1, d) and (r2, d).
    """
    shared = (first @ second.T).square().cumsum(0).cumsum(1)
    rows = torch.arange(1, first.shape[0] + 1, dtype=shared.dtype)
    columns = torch.arange(1, second.shape[0] + 1, dtype=shared.dtype)
    return shared / torch.minimum(rows[:, None], columns)


def by_chance(first: int, second: int, width: int) -> Tensor:
    """What `similarity` is on average for random subspaces of a space of ``width`` dimensions: max(i, j) / width."""
    rows, columns = torch.arange(1, first + 1).double(), torch.arange(1, second + 1).double()
    return torch.maximum(rows[:, None], columns) / width


def overlaps(first: StyleFile, second: StyleFile, side: Side = "outputs") -> list[Overlap]:
    """What two styles share, layer kind by layer kind; layers of other shapes or in one style alone are left out.

    Raises:
        ConfigError: the styles have no layer in common.
    """
    one, other = as_loras(first.layers), as_loras(second.layers)
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for path in one:
        if path in other and _shape(one[path]) == _shape(other[path]) and _moves(one[path]) and _moves(other[path]):
            kinds[kind_of(path)].append(path)
    if not kinds:
        raise ConfigError("The two styles change no layer in common, so there are no directions to compare.")
    return [_overlap(kind, paths, one, other, side) for kind, paths in sorted(kinds.items())]


@dataclass(frozen=True)
class Amplification:
    """How far a style turns up what its layers hardly do (section 7.3 and table 7 of the paper); Frobenius norms.

    With U and V the update's singular vectors, ``||U^T W V||`` is what the frozen weight W does along the update's
    directions. All are means over the layers of a kind.

    Attributes:
        kind, layers: what the layers' names end with, and how many there are.
        rank: of the updates, a mean too.
        update, weight: ``||dW||`` and ``||W||``.
        along_update: ``||U^T W V||``.
        along_random: its root mean square for random U and V, ``||W|| r / sqrt(out in)``.
        along_own: that of W's own strongest directions, which no others exceed.
    """

    kind: str
    layers: int
    rank: float
    update: float
    weight: float
    along_update: float
    along_random: float
    along_own: float

    @property
    def factor(self) -> float:
        """``||dW|| / ||U^T W V||``, by how much the directions of the update are amplified."""
        return self.update / max(self.along_update, 1e-300)


def one_start(first: StyleFile, second: StyleFile) -> bool:
    """Whether both say that they began from one seed, so that their A were alike before any training."""
    seeds = [file.metadata.get("ss_seed") for file in (first, second)]
    return seeds[0] == seeds[1] is not None


def amplification(path: str, layer: LayerWeights, weight: Tensor, *, own: bool = True) -> Amplification:
    """`Amplification` of one layer.

    Args:
        weight: the frozen one, (out, in[, kh, kw]).
        own: whether to find W's own strongest directions, which takes a decomposition of all of W; else that is not a
            number.
    """
    found = spectrum(*factors(layer))
    frozen = weight.detach().double().flatten(1)
    rank = len(found.sizes)
    norm = float(torch.linalg.matrix_norm(frozen))
    return Amplification(
        kind=kind_of(path),
        layers=1,
        rank=rank,
        update=found.energy**0.5,
        weight=norm,
        along_update=float(torch.linalg.matrix_norm(found.left.T @ frozen @ found.right.T)),
        along_random=norm * rank / frozen.numel() ** 0.5,
        along_own=float(torch.linalg.svdvals(frozen)[:rank].norm()) if own else float("nan"),
    )


def amplifications(file: StyleFile, roots: Mapping[str, nn.Module]) -> list[Amplification]:
    """A style on a base, layer kind by layer kind.

    Args:
        roots: the base's models, as `trainer.bases.base.Base.roots`.

    Raises:
        AdapterFileError: the style does not fit the base.
    """
    fitted = as_loras(fit(file, roots)[0])
    kinds: defaultdict[str, list[Amplification]] = defaultdict(list)
    for path, layer in fitted.items():
        if _moves(layer):
            root, inner = path.split(".", 1)
            weight = roots[root].get_submodule(inner).weight
            assert isinstance(weight, Tensor)
            one = amplification(path, layer, weight)
            kinds[one.kind].append(one)
    return [_mean(found) for _, found in sorted(kinds.items())]


def _mean(found: Sequence[Amplification]) -> Amplification:
    numbers = ("rank", "update", "weight", "along_update", "along_random", "along_own")
    means = {name: fmean(getattr(one, name) for one in found) for name in numbers}
    return Amplification(kind=found[0].kind, layers=len(found), **means)


def _overlap(
    kind: str, paths: Sequence[str], one: Mapping[str, LayerWeights], other: Mapping[str, LayerWeights], side: Side
) -> Overlap:
    """The mean over layers, as far as the smallest ranks among them reach."""
    pairs = [(directions(one[path], side), directions(other[path], side)) for path in paths]
    rows, columns = min(len(a) for a, _ in pairs), min(len(b) for _, b in pairs)
    found = [similarity(a[:rows], b[:columns]) for a, b in pairs]
    chance = [by_chance(rows, columns, a.shape[1]) for a, _ in pairs]
    return Overlap(kind, tuple(paths), torch.stack(found).mean(0), torch.stack(chance).mean(0))


def _shape(layer: LayerWeights) -> tuple[int, int]:
    return layer.up.shape[0], layer.down[0].numel()


def _moves(layer: LayerWeights) -> bool:
    # A bottleneck adapter's two matrices are no factors of a change of the weight.
    return method_of(layer).changes_weights and bool(layer.up.any()) and bool(layer.down.any())


def kind_of(path: str) -> str:
    """What a layer's name ends with, such as ``attn2.to_q``."""
    within = path.rpartition("transformer_blocks.")[2].partition(".")[2]
    return within or path.rpartition(".")[2]
