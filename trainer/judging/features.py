"""What the denoiser itself sees in a picture: channel statistics of its features, and how far apart two pictures are.

Shapes: B pictures, C channels of a layer, h x w its cells, F all channels of all layers and noise levels together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Features:
    """Features of B pictures.

    Attributes:
        mean, deviation: channel means and standard deviations over a layer's cells, all layers and levels side by
            side: (B, F), fp32. They say how a picture is drawn, hardly what it shows.
        layout: the latents on a coarse grid, normalised: (B, D), fp32, each of length 1. It says what lies where.
    """

    mean: Tensor
    deviation: Tensor
    layout: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def rows(self, index: Sequence[int] | slice) -> Features:
        """Some of the pictures."""
        chosen = index if isinstance(index, slice) else torch.as_tensor(list(index), dtype=torch.long)
        return Features(self.mean[chosen], self.deviation[chosen], self.layout[chosen])

    @staticmethod
    def cat(parts: Sequence[Features]) -> Features:
        """Pictures of several parts, one after the other."""
        return Features(
            torch.cat([part.mean for part in parts]),
            torch.cat([part.deviation for part in parts]),
            torch.cat([part.layout for part in parts]),
        )


GRID = 8
"""Cells along a side of `Features.layout`."""


def layout(latents: Tensor) -> Tensor:
    """What lies where in pictures, (B, D), each row of length 1; ``latents`` (B, C, h, w)."""
    centred = latents.float() - latents.float().mean(dim=(2, 3), keepdim=True)
    return F.normalize(coarse(centred), dim=1)


def coarse(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) on the coarse grid, (B, D), so that pictures of other sides can be compared."""
    return F.adaptive_avg_pool2d(latents.float(), GRID).flatten(1)


def statistics(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Channel means and deviations of layers' outputs (B, C, h, w), side by side: (B, F) each.

    They are divided by the root of the layer's number of channels, so that wide layers do not drown narrow ones.
    """
    means, deviations = [], []
    for features in maps:
        cells = features.float().flatten(2)
        share = cells.shape[1] ** -0.5
        means.append(cells.mean(dim=2) * share)
        deviations.append(cells.std(dim=2, unbiased=False) * share)
    return torch.cat(means, dim=1), torch.cat(deviations, dim=1)


@contextmanager
def observed(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within this context the list holds each layer's newest output (B, C, h, w), in the order of ``layers``."""
    seen: list[Tensor] = [torch.empty(0)] * len(layers)

    def keeper(index: int) -> Callable[[nn.Module, object, object], None]:
        def keep(module: nn.Module, arguments: object, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            assert isinstance(tensor, Tensor)
            seen[index] = tensor.detach()

        return keep

    handles = [layer.register_forward_hook(keeper(index)) for index, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layout_distances(pictures: Features, references: Features) -> Tensor:
    """How differently two pictures are laid out, (B, N): 0 is the same picture, 1 nothing in common, at most 2."""
    return 1 - pictures.layout @ references.layout.T
