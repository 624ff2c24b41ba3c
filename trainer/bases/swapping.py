"""Weights of a frozen model that wait in main memory and come to the card a layer at a time, there and back.

While one layer computes, the next one's weight is copied on a stream of its own: which one that will be is learned from
the pass before. A few buffers as large as the largest layer are all that the card holds of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainer.bases.fetched import Fetched, FetchedConv2d, FetchedLinear

BUFFERS = 3
"""One that computes, one that is filled meanwhile, and one whose last use may not be over yet."""
ALIGNED = 512
"""Bytes at whose multiples the device's memory begins, as its fastest kernels want it."""


def swap(model: nn.Module, percent: int, device: torch.device) -> None:
    """Let this share of the weights of a model's numbered blocks wait in main memory, evenly spread; 0 lets none.

    Layers of other kinds, quantised ones among them, stay as they are. Weights that come home again are in main memory:
    moving the model brings them along.

    Args:
        model: frozen, with or without adapters.
        device: where it computes.
    """
    if swapped(model) == percent:
        return
    for module in model.modules():
        if isinstance(module, Swapped):
            module.come_home()
    layers = list(_layers(model))
    exchange = _Exchange(device)
    seen = away = 0
    for layer in layers:
        seen += layer.weight.nbytes
        if away + layer.weight.nbytes / 2 <= seen * percent / 100 and percent:
            away += layer.weight.nbytes
            layer.__class__ = _KINDS[type(layer)]
            layer.leave(exchange, percent)
            exchange.room = max(exchange.room, -(-layer.host.nbytes // ALIGNED) * ALIGNED)


def swapped(model: nn.Module) -> int:
    """The share of weights, in percent, that `swap` was told to keep away."""
    return next((module.percent for module in model.modules() if isinstance(module, Swapped)), 0)


def _layers(model: nn.Module) -> Iterator[Any]:
    for path, module in model.named_modules():
        if type(module) in _KINDS and any(part.isdecimal() for part in path.split(".")):
            yield module


class Swapped(Fetched):
    """A layer whose weight lies in main memory.

    Attributes:
        host: the weight there.
        percent: what `swap` was told.
    """

    host: Tensor
    percent: int
    _exchange: _Exchange
    _whole: list[nn.Parameter]

    def leave(self, exchange: _Exchange, percent: int) -> None:
        """Take the weight off the device; its Parameter is kept out of sight, so that nothing moves it."""
        parameter = self._parameters.pop("weight")
        assert parameter is not None
        parameter.data = _in_main_memory(parameter.data, exchange.device)
        self._whole, self.host = [parameter], parameter.data
        self._exchange, self.percent = exchange, percent
        # Says where the layer is, though it holds nothing there.
        self.register_buffer("place", torch.empty(0, device=exchange.device, dtype=self.host.dtype), persistent=False)

    def come_home(self) -> None:
        """Become the layer again that it was; its weight lies in main memory."""
        (parameter,) = self._whole
        plain = next(plain for plain, kind in _KINDS.items() if isinstance(self, kind))
        for name in ("_whole", "host", "_exchange", "percent", "place"):
            delattr(self, name)
        self.__class__ = plain  # type: ignore[assignment]
        self.register_parameter("weight", parameter)

    @property
    def weight(self) -> Tensor:
        """The weight on the device, for whoever wants to keep it."""
        return self.host.to(self._exchange.device, copy=True)

    def lent(self) -> Tensor:
        return self._exchange.lent(self)


class SwappedLinear(Swapped, FetchedLinear):  # type: ignore[override]
    """An `nn.Linear` whose weight lies in main memory."""


class SwappedConv2d(Swapped, FetchedConv2d):  # type: ignore[override]
    """An `nn.Conv2d` whose weight lies in main memory."""


_KINDS: dict[type[nn.Module], type[Swapped]] = {nn.Linear: SwappedLinear, nn.Conv2d: SwappedConv2d}


@dataclass(eq=False)
class _Buffer:
    """A piece of the device's memory, what it holds, and when that is there and no longer needed."""

    memory: Tensor
    layer: Swapped | None = None
    filled: torch.cuda.Event | None = None
    used: torch.cuda.Event | None = None

    def weight(self) -> Tensor:
        assert self.layer is not None
        host = self.layer.host
        flat = self.memory[: host.nbytes].view(host.dtype)
        return flat.as_strided(host.shape, host.stride())


@dataclass(eq=False)
class _Exchange:
    """Brings weights to the device, the next one while the last one is at work.

    Attributes:
        room: bytes of the largest weight.
    """

    device: torch.device
    room: int = 0
    _buffers: list[_Buffer] = field(default_factory=list)
    _lent: _Buffer | None = None
    _after: dict[tuple[int, int], Swapped] = field(default_factory=dict)
    _before: tuple[int, int] = (0, 0)
    _stream: torch.cuda.Stream | None = None

    def lent(self, layer: Swapped) -> Tensor:
        """The weight of a layer; what was lent before may be overwritten from now on."""
        if not self._buffers:
            made = torch.empty(BUFFERS, self.room, dtype=torch.uint8, device=self.device)
            self._buffers = [_Buffer(memory) for memory in made]
            if self.device.type == "cuda":
                self._stream = torch.cuda.Stream(self.device)
                self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if self._lent is not None and self._stream is not None:
            # Whatever used it has been asked for by now.
            self._lent.used = torch.cuda.current_stream(self.device).record_event()
        buffer = self._holding(layer) or self._fill(layer)
        if buffer.filled is not None:
            torch.cuda.current_stream(self.device).wait_event(buffer.filled)
        self._lent = buffer
        # Two layers tell the direction: what follows them on the way there is another one than on the way back.
        self._after[self._before] = layer
        self._before = self._before[1], id(layer)
        following = self._after.get(self._before)
        if following is not None and self._holding(following) is None:
            self._fill(following)
        return buffer.weight()

    def _holding(self, layer: Swapped) -> _Buffer | None:
        return next((buffer for buffer in self._buffers if buffer.layer is layer), None)

    def _fill(self, layer: Swapped) -> _Buffer:
        buffer = next(each for each in self._buffers if each is not self._lent)
        # The one that was filled longest ago comes first.
        self._buffers.remove(buffer)
        self._buffers.append(buffer)
        buffer.layer = layer
        if self._stream is None:
            buffer.weight().copy_(layer.host)
            return buffer
        if buffer.used is not None:
            self._stream.wait_event(buffer.used)
        with torch.cuda.stream(self._stream):
            buffer.weight().copy_(layer.host, non_blocking=True)
            buffer.filled = self._stream.record_event()
        return buffer


def _in_main_memory(weight: Tensor, device: torch.device) -> Tensor:
    """A copy there that the device can read by itself, where the system gives such memory."""
    host = weight.to("cpu", copy=True)
    if device.type != "cuda":
        return host
    try:
        return host.pin_memory()
    except RuntimeError:
        return host
