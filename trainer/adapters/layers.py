"""The gated low-rank layers that the bank puts in the place of frozen projections.

    y = W0 x + bias + B diag(g) A x

Shapes: b rows of the batch, R ranks of all adapters in this layer together, r rank of one.
    x (b, ..., in) or (b, in, H, W)    A (R, in[, kh, kw])    B (out, R[, 1, 1])    g (b or 1, R)

Everything that a forward pass reads is a parameter or a buffer of the layer, so gradient checkpointing, which runs
the forward pass again during backward and on CUDA in another thread, sees the same values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _in_fp32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` of `nn.Module._apply`, followed for device and memory format but never for the type."""

    def follow(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return follow


class LowRank(nn.Module):
    """One adapter's share of one layer.

    Attributes:
        adapter: the adapter's name.
        down: A, (r, in[, kh, kw]), fp32 whatever the model is cast to: in bf16 it would not move at 1e-4.
        up: B, (out, r[, 1, 1]), fp32.
        scale: factor on ``B A x`` at strength 1.
        dropout: probability that a direction is off for a row of the batch, while training.
    """

    def __init__(
        self, adapter: str, down: Tensor, up: Tensor, *, scale: float, dropout: float, trainable: bool
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.scale = scale
        self.dropout = dropout
        self.down = nn.Parameter(down, requires_grad=trainable)
        self.up = nn.Parameter(up, requires_grad=trainable)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LowRank:
        super()._apply(_in_fp32(fn), recurse)
        return self


class GatedLayer(nn.Module, ABC):
    """A frozen projection with the adapters that are loaded into it; see the module's docstring.

    Attributes:
        base: the frozen module, the very object that was in the model before.
        slots: one `LowRank` for each adapter, in the order of loading.
        gates: (1 or b, R), fp32, written by the bank.
        merged: the update is inside ``base.weight`` at present and the low-rank path is skipped.
    """

    gates: Tensor
    dropouts: Tensor

    def __init__(self, base: nn.Module, *, pad_rank: bool = False) -> None:
        super().__init__()
        self.base = base
        self.slots = nn.ModuleList()
        self.pad_rank = pad_rank
        self.merged = False
        self._pristine: Tensor | None = None
        self._packed: tuple[Tensor, Tensor] | None = None
        # Plain flags, so that a compiled layer does not depend on how many adapters share it.
        self._empty = True
        self._drops = False
        device = self.weight.device
        self.register_buffer("gates", torch.zeros(1, 0, device=device), persistent=False)
        self.register_buffer("dropouts", torch.zeros(0, device=device), persistent=False)
        self.train(base.training)

    @property
    def weight(self) -> Tensor:
        """The frozen weight; code in diffusers reads its device and type."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """R: all ranks together, rounded up to 8, 16, 32, 64 ... when ``pad_rank`` is set."""
        total = sum(slot.rank for slot in self.shares())
        return max(8, 1 << (total - 1).bit_length()) if self.pad_rank and total else total

    def shares(self) -> list[LowRank]:
        """The adapters in this layer, in the order of loading."""
        return list(self.slots)  # type: ignore[arg-type]

    def attach(self, slot: LowRank) -> None:
        """Add an adapter's share; the bank rewrites the gates afterwards."""
        self.slots.append(slot)
        self._slots_changed()

    def release(self, adapter: str) -> None:
        """Take an adapter's share out; the bank rewrites the gates afterwards."""
        self.slots = nn.ModuleList(slot for slot in self.shares() if slot.adapter != adapter)
        self._slots_changed()

    def pack(self, dtype: torch.dtype | None) -> None:
        """Stack and cast the factors once, for passes without gradients, until `unpack`."""
        with torch.inference_mode(False), torch.no_grad():
            self._packed = tuple(t.detach().clone() for t in self._stacked(dtype or self.weight.dtype))  # type: ignore[assignment]

    def unpack(self) -> None:
        """Read the parameters again in every pass."""
        self._packed = None

    def merge_in(self, merged: Tensor) -> None:
        """Overwrite the weight in place, keeping the pristine one beside it for `restore`."""
        self._pristine = self.weight.detach().to("cpu", copy=True)
        self.weight.data.copy_(merged)
        self.merged = True

    def restore(self) -> None:
        """Put the pristine weight back, bit for bit."""
        if self._pristine is not None:
            self.weight.data.copy_(self._pristine)
        self._pristine = None
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.merged or self._empty:
            return y
        if self._packed is not None and not torch.is_grad_enabled():
            down, up = self._packed
        else:
            down, up = self._stacked(x.dtype)
        h = self._down(x, down)
        g = self._open(h)
        # A product with the fp32 gates is rounded once; rounding the gates themselves would change the strength.
        return y + self._up((h * g).to(h.dtype), up)

    def extra_repr(self) -> str:
        return ", ".join(f"{slot.adapter}: rank {slot.rank}" for slot in self.shares())

    @abstractmethod
    def _down(self, x: Tensor, down: Tensor) -> Tensor:
        """``A x``."""

    @abstractmethod
    def _up(self, h: Tensor, up: Tensor) -> Tensor:
        """``B h``."""

    @abstractmethod
    def _spread(self, gates: Tensor, h: Tensor) -> Tensor:
        """Gates (b, R) in the shape that multiplies ``h``."""

    def _open(self, h: Tensor) -> Tensor:
        gates = self.gates
        if gates.shape[0] != 1 and gates.shape[0] != h.shape[0]:
            raise ValueError(
                f"the strengths have {gates.shape[0]} rows, but this batch has {h.shape[0]}: set one row, or one for "
                "each image (with classifier-free guidance, tile them as the batch is)"
            )
        if self.training and self._drops:
            kept = torch.rand(h.shape[0], gates.shape[1], device=gates.device) >= self.dropouts
            gates = gates * kept / (1.0 - self.dropouts)
        return self._spread(gates, h)

    def _stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        slots = self.shares()
        if len(slots) == 1 and not self.pad_rank:
            return slots[0].down.to(dtype), slots[0].up.to(dtype)
        downs: list[Tensor] = [slot.down for slot in slots]
        ups: list[Tensor] = [slot.up for slot in slots]
        missing = self.width - sum(slot.rank for slot in slots)
        if missing:
            downs.append(downs[0].new_zeros(missing, *downs[0].shape[1:]))
            ups.append(ups[0].new_zeros(ups[0].shape[0], missing, *ups[0].shape[2:]))
        return torch.cat(downs).to(dtype), torch.cat(ups, dim=1).to(dtype)

    def _slots_changed(self) -> None:
        self._packed = None
        slots = self.shares()
        chances = [slot.dropout for slot in slots for _ in range(slot.rank)]
        chances += [0.0] * (self.width - len(chances))
        self._empty = not slots
        self._drops = any(chances)
        with torch.inference_mode(False):
            self.dropouts = torch.tensor(chances, device=self.weight.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GatedLayer:
        if recurse:
            self.base._apply(fn)
            self.slots._apply(fn)
        super()._apply(_in_fp32(fn), recurse=False)
        self._packed = None
        return self


class GatedLinear(GatedLayer):
    """`GatedLayer` over a frozen `nn.Linear`."""

    base: nn.Linear

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def _down(self, x: Tensor, down: Tensor) -> Tensor:
        return F.linear(x, down)

    def _up(self, h: Tensor, up: Tensor) -> Tensor:
        return F.linear(h, up)

    def _spread(self, gates: Tensor, h: Tensor) -> Tensor:
        return gates.view(gates.shape[0], *[1] * (h.dim() - 2), gates.shape[1])


class GatedConv2d(GatedLayer):
    """`GatedLayer` over a frozen `nn.Conv2d` (one group, zero padding): A is a convolution like it, B a 1 x 1."""

    base: nn.Conv2d

    @property
    def in_channels(self) -> int:
        return self.base.in_channels

    @property
    def out_channels(self) -> int:
        return self.base.out_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.base.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        return self.base.stride

    @property
    def padding(self) -> Any:
        return self.base.padding

    def _down(self, x: Tensor, down: Tensor) -> Tensor:
        base = self.base
        return F.conv2d(x, down, None, base.stride, base.padding, base.dilation)

    def _up(self, h: Tensor, up: Tensor) -> Tensor:
        return F.conv2d(h, up)

    def _spread(self, gates: Tensor, h: Tensor) -> Tensor:
        return gates.view(*gates.shape, 1, 1)


def gated(module: nn.Module, *, pad_rank: bool) -> GatedLayer:
    """Wrap a frozen layer; the caller puts the wrapper into the model."""
    if isinstance(module, nn.Conv2d):
        return GatedConv2d(module, pad_rank=pad_rank)
    return GatedLinear(module, pad_rank=pad_rank)


def adaptable(module: nn.Module) -> bool:
    """Whether a layer can be adapted: linear, a convolution of one group with zero padding, or wrapped already."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear | GatedLayer)
