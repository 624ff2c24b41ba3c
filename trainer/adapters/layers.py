"""The gated layers that the bank puts in the place of frozen projections.

    y = W0 x + bias + B diag(g) A x

The low-rank updates of all adapters in a layer are stacked into one A and one B. A method whose update has another form
adds it to y by itself, see `trainer.adapters.methods.method`.

Shapes: b rows of the batch, R ranks of all adapters in this layer together, r rank of one.
    x (b, ..., in) or (b, in, H, W)    A (R, in[, kh, kw])    B (out, R[, 1, 1])    g (b or 1, R)

Everything that a forward pass reads is a parameter or a buffer of the layer, so gradient checkpointing, which runs
the forward pass again during backward and on CUDA in another thread, sees the same values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.adapters.methods.method import Method, Parts


def _in_fp32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` of `nn.Module._apply`, followed for device and memory format but never for the type."""

    def follow(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

    return follow


class Share(nn.Module):
    """One adapter's share of one layer: the tensors of its method, fp32 whatever the model is cast to.

    (In bf16 a parameter would not move at a learning rate of 1e-4.)

    Attributes:
        adapter: the adapter's name.
        dropout: probability that a gate is shut for a row of the batch, while training.
        block_factor: on its strength here (`Bank.weigh`).
    """

    def __init__(
        self, adapter: str, method: Method, parts: Parts, *, rank: int, alpha: float, dropout: float, trainable: bool
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.method = method
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.block_factor = 1.0
        self.parts = (*parts.trained, *parts.kept, *parts.derived)
        for name, tensor in parts.trained.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=trainable))
        for name, tensor in parts.kept.items():
            self.register_buffer(name, tensor)
        for name, tensor in parts.derived.items():
            self.register_buffer(name, tensor, persistent=False)

    def values(self) -> dict[str, Tensor]:
        """The tensors by part."""
        return {part: getattr(self, part) for part in self.parts}

    def gate_factors(self) -> Sequence[float]:
        """What each of its columns of gates is multiplied by at strength 1."""
        own = self.method.gate_factors(self.rank, self.alpha)
        return own if self.block_factor == 1 else [factor * self.block_factor for factor in own]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Share:
        super()._apply(_in_fp32(fn), recurse)
        return self


class GatedLayer(nn.Module):
    """A frozen layer with the adapters that are loaded into it; see the module's docstring.

    Attributes:
        base: the frozen module, the very object that was in the model before.
        width: R of the stacked factors, rounded up to 8, 16, 32, 64 ... when ``pad_rank`` is set.
        gates: (1 or b, columns), fp32, written by the bank: first those of the stacked factors, then the others'.
        merged: the update is inside ``base`` at present and the adapters are skipped.
    """

    gates: Tensor
    dropouts: Tensor

    def __init__(self, base: nn.Module, *, pad_rank: bool = False) -> None:
        super().__init__()
        self.base = base
        self._shares = nn.ModuleList()
        self.pad_rank = pad_rank
        self.merged = False
        self._pristine: dict[str, Tensor] = {}
        self._packed: tuple[Tensor, Tensor] | None = None
        # Plain flags, so that a compiled layer does not depend on how many adapters share it.
        self._empty = True
        self._drops = False
        self.width = 0
        # Shares that do not stack, each with its first and last column of gates.
        self._apart: list[tuple[Share, int, int]] = []
        device = self.device
        self.register_buffer("gates", torch.zeros(1, 0, device=device), persistent=False)
        self.register_buffer("dropouts", torch.zeros(0, device=device), persistent=False)
        self.train(base.training)

    @property
    def weight(self) -> Tensor:
        """The frozen weight; code in diffusers reads its device and type."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the frozen layer lies; asking a quantised one for its weight would compute it."""
        return place_of(self.base)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias  # type: ignore[return-value]

    @property
    def shares(self) -> list[Share]:
        """The adapters in this layer, in the order of loading."""
        return list(self._shares)  # type: ignore[arg-type]

    def columns(self) -> list[tuple[str | None, float]]:
        """Whose strength each column of gates carries, and times what; None is padding, always 0."""
        found: list[tuple[str | None, float]] = [
            (share.adapter, factor) for share in self._stacking() for factor in share.gate_factors()
        ]
        found += [(None, 0.0)] * (self.width - len(found))
        return found + [(share.adapter, factor) for share, _, _ in self._apart for factor in share.gate_factors()]

    def attach(self, share: Share) -> None:
        """Add an adapter's share; the bank rewrites the gates afterwards."""
        self._shares.append(share)
        self._shares_changed()

    def release(self, adapter: str) -> None:
        """Take an adapter's share out; the bank rewrites the gates afterwards."""
        self._shares = nn.ModuleList(share for share in self.shares if share.adapter != adapter)
        self._shares_changed()

    def follow_base(self) -> None:
        """Go to where the frozen module went while it was in the model by itself, and in its mode."""
        self._shares.to(self.device)
        self.train(self.base.training)

    def pack(self, dtype: torch.dtype | None) -> None:
        """Stack and cast the factors once, for passes without gradients, until `unpack`."""
        if self.width:
            with torch.inference_mode(False), torch.no_grad():
                down, up = self._stacked(dtype or self.weight.dtype)
                self._packed = down.detach().clone(), up.detach().clone()

    def unpack(self) -> None:
        """Read the parameters again in every pass."""
        self._packed = None

    def merge_in(self, merged: Mapping[str, Tensor]) -> None:
        """Overwrite parameters of the base in place, keeping the pristine ones beside them for `restore`."""
        for name, value in merged.items():
            parameter = self.base.get_parameter(name)
            self._pristine[name] = parameter.detach().to("cpu", copy=True)
            parameter.data.copy_(value)
        self.merged = True

    def restore(self) -> None:
        """Put the pristine parameters back, bit for bit."""
        for name, value in self._pristine.items():
            self.base.get_parameter(name).data.copy_(value)
        self._pristine = {}
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.merged or self._empty:
            return y
        gates = self._open(x.shape[0])
        total = y
        if self.width:
            if self._packed is not None and not torch.is_grad_enabled():
                down, up = self._packed
            else:
                down, up = self._stacked(x.dtype)
            h = self._down(x, down)
            g = self._spread(gates[:, : self.width] if self._apart else gates, h)
            # A product with the fp32 gates is rounded once; rounding the gates themselves would change the strength.
            total = y + self._up((h * g).to(h.dtype), up)
        for share, first, last in self._apart:
            total = total + share.method.update(share.values(), self.base, x, y, gates[:, first:last])
        return total

    def extra_repr(self) -> str:
        return ", ".join(f"{share.adapter}: {share.method.name} of rank {share.rank}" for share in self.shares)

    def _down(self, x: Tensor, down: Tensor) -> Tensor:
        """``A x``, of layers that methods with two matrices adapt."""
        raise NotImplementedError(f"nothing stacks on a {type(self.base).__name__}")

    def _up(self, h: Tensor, up: Tensor) -> Tensor:
        """``B h``; as `_down`."""
        raise NotImplementedError(f"nothing stacks on a {type(self.base).__name__}")

    def _spread(self, gates: Tensor, h: Tensor) -> Tensor:
        """Gates (b, R) in the shape that multiplies ``h``; as `_down`."""
        raise NotImplementedError(f"nothing stacks on a {type(self.base).__name__}")

    def _open(self, rows: int) -> Tensor:
        """The gates for a batch, (1 or b, columns)."""
        gates = self.gates
        if gates.shape[0] != 1 and gates.shape[0] != rows:
            raise ValueError(
                f"the strengths have {gates.shape[0]} rows, but this batch has {rows}: set one row, or one for "
                "each image (with classifier-free guidance, tile them as the batch is)"
            )
        if self.training and self._drops:
            kept = torch.rand(rows, gates.shape[1], device=gates.device) >= self.dropouts
            gates = gates * kept / (1.0 - self.dropouts)
        return gates

    def _stacking(self) -> list[Share]:
        return [share for share in self.shares if share.method.stacks]

    def _stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        pairs = [share.method.factors(share.values()) for share in self._stacking()]
        if len(pairs) == 1 and not self.pad_rank:
            return pairs[0][0].to(dtype), pairs[0][1].to(dtype)
        downs = [down for down, _ in pairs]
        ups = [up for _, up in pairs]
        missing = self.width - sum(down.shape[0] for down in downs)
        if missing:
            downs.append(downs[0].new_zeros(missing, *downs[0].shape[1:]))
            ups.append(ups[0].new_zeros(ups[0].shape[0], missing, *ups[0].shape[2:]))
        return torch.cat(downs).to(dtype), torch.cat(ups, dim=1).to(dtype)

    def _shares_changed(self) -> None:
        self._packed = None
        stacked = sum(len(share.gate_factors()) for share in self._stacking())
        self.width = max(8, 1 << (stacked - 1).bit_length()) if self.pad_rank and stacked else stacked
        self._apart = []
        last = self.width
        for share in self.shares:
            if not share.method.stacks:
                first, last = last, last + len(share.gate_factors())
                self._apart.append((share, first, last))
        self._empty = not self.shares
        dropouts = {share.adapter: share.dropout for share in self.shares} | {None: 0.0}
        chances = [dropouts[adapter] for adapter, _ in self.columns()]
        self._drops = any(chances)
        with torch.inference_mode(False):
            self.dropouts = torch.tensor(chances, device=self.device)

    def apply_to_own(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> None:
        """`nn.Module._apply` for the gates and the shares, without the frozen layer."""
        if recurse:
            self._shares._apply(fn)
        super()._apply(_in_fp32(fn), recurse=False)
        self._packed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GatedLayer:
        if recurse:
            self.base._apply(fn)
        self.apply_to_own(fn, recurse)
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


class GatedEmbedding(GatedLayer):
    """`GatedLayer` over a frozen `nn.Embedding`: x are ids (b, L), and y is (b, L, width)."""

    base: nn.Embedding


def gated(module: nn.Module, *, pad_rank: bool) -> GatedLayer:
    """Wrap a frozen layer; the caller puts the wrapper into the model."""
    if isinstance(module, nn.Embedding):
        return GatedEmbedding(module)
    if isinstance(module, nn.Conv2d):
        return GatedConv2d(module, pad_rank=pad_rank)
    return GatedLinear(module, pad_rank=pad_rank)


def place_of(module: nn.Module) -> torch.device:
    """The device of a layer's tensors."""
    return next(itertools.chain(module.parameters(), module.buffers())).device


def adaptable(module: nn.Module) -> bool:
    """Whether a layer can be adapted: linear, a convolution of one group with zero padding, or wrapped already."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear | GatedLinear | GatedConv2d)
