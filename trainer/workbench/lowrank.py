"""Arithmetic of low-rank updates: sizes, directions and the best approximation of a lower rank.

Shapes: out, in of a layer (``in`` times kernel height and width of a convolution), r rank, k at most min(out, in).
An update is U = up @ down with ``up`` (out, r), its scale inside, and ``down`` (r, in). All is computed in fp64, and no
(out, in) matrix is made where the factors are at hand.

The best approximation of rank k keeps the k largest singular values (Eckart and Young 1936); *energy* is the sum of
their squares, which is the squared Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.weights import LayerWeights

NEGLIGIBLE = 1e-12
"""Share of an update's energy that is rounding: what is below it is no direction of its own."""


@dataclass(frozen=True)
class Spectrum:
    """An update by its directions, strongest first.

    Attributes:
        left: (out, k), orthonormal columns.
        sizes: (k,), the singular values.
        right: (k, in), orthonormal rows.
    """

    left: Tensor
    sizes: Tensor
    right: Tensor

    @property
    def energy(self) -> float:
        return float(self.sizes.square().sum())

    def rank_for(self, share: float) -> int:
        """The fewest directions that hold ``share`` (above 0, at most 1) of the energy; at least 1."""
        total = self.energy
        if not total > 0:
            return 1
        held = self.sizes.square().cumsum(0) / total
        return min(int((held < share - NEGLIGIBLE).sum()) + 1, len(self.sizes))

    def lost_below(self, rank: int) -> float:
        """Energy of the directions from ``rank`` on."""
        return float(self.sizes[rank:].square().sum())

    def layer(self, rank: int, inputs: Sequence[int]) -> LayerWeights:
        """The ``rank`` strongest directions as a layer of scale 1, fp32, each factor with the root of the sizes.

        Args:
            inputs: shape of one output's weight: (in,) or (in, kh, kw).
        """
        rank = min(rank, len(self.sizes))
        root = self.sizes[:rank].sqrt()
        tail = (1,) * (len(inputs) - 1)
        down = (root[:, None] * self.right[:rank]).reshape(rank, *inputs)
        up = (self.left[:, :rank] * root).reshape(-1, rank, *tail)
        return LayerWeights(down.float().contiguous(), up.float().contiguous(), float(rank))


def factors(layer: LayerWeights) -> tuple[Tensor, Tensor]:
    """``up`` (out, r) with the layer's scale inside and ``down`` (r, in), fp64."""
    return layer.up.double().flatten(1) * layer.scale, layer.down.double().flatten(1)


def spectrum(up: Tensor, down: Tensor) -> Spectrum:
    """Directions of ``up @ down`` from the factors alone: two thin QRs and an SVD of (r, r)."""
    left, above = torch.linalg.qr(up)
    right, below = torch.linalg.qr(down.T)
    inner_left, sizes, inner_right = torch.linalg.svd(above @ below.T, full_matrices=False)
    return Spectrum(left @ inner_left, sizes, inner_right @ right.T)


def spectrum_of_matrix(update: Tensor) -> Spectrum:
    """Directions of an update that has no factors, (out, in), from the eigenvectors of its smaller Gram matrix.

    In fp64 that is exact to about 1e-8 of the largest direction, and much faster than an SVD of a wide layer.
    """
    wide = update.double()
    if wide.shape[0] > wide.shape[1]:
        turned = spectrum_of_matrix(wide.T)
        return Spectrum(turned.right.T, turned.sizes, turned.left.T)
    _, vectors = torch.linalg.eigh(wide @ wide.T)
    left = vectors.flip(1)
    along = left.T @ wide
    sizes = torch.linalg.vector_norm(along, dim=1)
    order = sizes.argsort(descending=True, stable=True)
    return Spectrum(left[:, order], sizes[order], along[order] / sizes[order].clamp_min(1e-300)[:, None])


def inner(first: LayerWeights, second: LayerWeights) -> float:
    """Sum over all entries of the product of two updates of one layer: <B1 A1, B2 A2> = <B1^T B2, A1 A2^T>."""
    (up, down), (other_up, other_down) = factors(first), factors(second)
    return float(((up.T @ other_up) * (down @ other_down.T)).sum())


def norm(layer: LayerWeights) -> float:
    """Frobenius norm of a layer's update at strength 1."""
    return max(inner(layer, layer), 0.0) ** 0.5
