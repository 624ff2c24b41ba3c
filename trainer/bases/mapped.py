"""Weights as they lie in their files: mapped into memory, read when they are touched, let go of when they are copied.

What was touched counts as this process's memory for as long as the file is mapped, which is until the last of its
tensors is gone: a model that is copied tensor by tensor would be held twice in the end.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

T = TypeVar("T")
PIECE = 256 * 2**20
"""Bytes that are touched before what lies behind is let go of."""
_LET_GO = 4
"""MADV_DONTNEED of Linux: the pages of a mapped file leave, and are read again where they are touched again."""


def in_pieces(items: Iterable[T], weights: Callable[[T], Iterable[Tensor]]) -> Iterator[T]:
    """Each of ``items``, letting go of the files behind them after every `PIECE`.

    Args:
        weights: those of an item that the caller touches, as they are before it does.
    """
    touched: list[int] = []
    size = 0
    for item in items:
        for tensor in weights(item):
            if tensor.device.type == "cpu" and tensor.nbytes:
                touched.append(tensor.data_ptr())
                size += tensor.nbytes
        yield item
        if size >= PIECE:
            let_go(touched)
            touched, size = [], 0
    let_go(touched)


def own_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a module, without those of modules in it."""
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def let_go(addresses: Collection[int]) -> None:
    """Give back the memory of the mapped files in which these addresses lie; what is touched again is read again.

    Nobody may have written there: weights are copied before they are changed. On Linux; elsewhere nothing happens, and
    the system takes such pages when it needs them.
    """
    if sys.platform != "linux" or not addresses:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    lowest, highest = min(addresses), max(addresses)
    for start, stop in _mapped_files():
        if start <= highest and lowest < stop and any(start <= address < stop for address in addresses):
            libc.madvise(start, stop - start, _LET_GO)


def _mapped_files() -> Iterator[tuple[int, int]]:
    """First address, and the one behind the last, of every file that is mapped.

    A line reads ``7f00-7f80 rw-p 00000000 fe:00 1234  /path/model.safetensors``; the last number is 0 without a file.
    """
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        place, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            start, stop = (int(address, 16) for address in place.split("-"))
            yield start, stop
