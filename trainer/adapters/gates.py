"""All gates of one model in one block of memory, so that new strengths cost two small kernels, not two per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.layers import GatedLayer

# Compiled kernels read vectors of 16 bytes; blocks that start on 64 keep every layer's gates aligned alike.
_ALIGN = 16


@dataclass(frozen=True)
class _Plan:
    """Where each gate of a batch of so many rows comes from: ``block = strengths.flatten()[index] * scale``."""

    block: Tensor
    index: Tensor
    scale: Tensor
    views: tuple[Tensor, ...]


class GateBoard:
    """Writes ``g = s[:, owner] * scale`` into the gate buffers of all layers of one model.

    For every number of rows the addresses stay the same for as long as the set of adapters does, so compiled and
    captured graphs go on reading the right place. Layers that were moved to another device are found and linked again.

    Args:
        layers: the wrapped layers of the model.
        names: the adapters, in the order of the columns of a strengths tensor.
    """

    def __init__(self, layers: Sequence[GatedLayer], names: Sequence[str]) -> None:
        self._layers = list(layers)
        self._names = list(names)
        self._plans: dict[int, _Plan] = {}
        self.strengths: Tensor = torch.zeros(1, len(self._names))

    def write(self, strengths: Tensor) -> None:
        """Set the strengths, (rows, adapters), from now on. Not to be called between a forward and its backward."""
        with torch.inference_mode(False), torch.no_grad():
            self.strengths = strengths.detach().to("cpu" if not self._layers else self._device, torch.float32).clone()
            if not self._layers:
                return
            rows = strengths.shape[0]
            plan = self._plans.get(rows)
            if plan is None or plan.block.device != self._device:
                plan = self._plans[rows] = self._lay_out(rows)
            torch.index_select(self.strengths.reshape(-1), 0, plan.index, out=plan.block)
            plan.block.mul_(plan.scale)
            for layer, view in zip(self._layers, plan.views, strict=True):
                if layer.gates is not view:
                    layer.gates = view

    @property
    def _device(self) -> torch.device:
        return self._layers[0].device

    def _lay_out(self, rows: int) -> _Plan:
        index: list[int] = []
        scale: list[float] = []
        spans: list[tuple[int, int]] = []
        for layer in self._layers:
            columns = layer.columns()
            start = len(index)
            for row in range(rows):
                index.extend(
                    row * len(self._names) + (self._names.index(owner) if owner is not None else 0)
                    for owner, _ in columns
                )
                scale.extend(factor for _, factor in columns)
            spans.append((start, len(columns)))
            gap = -len(index) % _ALIGN
            index.extend([0] * gap)
            scale.extend([0.0] * gap)
        device = self._device
        block = torch.zeros(len(index), device=device)
        views = tuple(block[start : start + rows * width].view(rows, width) for start, width in spans)
        return _Plan(block, torch.tensor(index, device=device), torch.tensor(scale, device=device), views)
