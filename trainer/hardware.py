"""Where to compute and in which number format: what a device cannot do is said here, before anything starts."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch

from trainer.errors import DeviceError
from trainer.printable import cpu_name

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """A device with what it has: memory in bytes, and a name for people."""

    device: torch.device
    name: str
    total: int
    available: int

    def with_ours(self, held: int) -> int:
        """Bytes that this process may fill, of which it has held ``held`` at its peak; never more than there are.

        What was given back since the peak is in ``available`` already: pages of a loaded file, for instance.
        """
        return min(self.total, self.available + held)


def pick_device(wish: str) -> torch.device:
    """The device for ``train.device``; ``auto`` takes the first NVIDIA or AMD card, then Apple's GPU, then the CPU.

    Raises:
        DeviceError: the device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wish == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    device = torch.device(wish)
    if device.type == "cuda":
        if not cuda:
            raise DeviceError(
                f"train.device is {wish!r}, but this PyTorch ({torch.__version__}) finds no NVIDIA or AMD card: "
                "use 'auto' or 'cpu', or install a PyTorch build for your card."
            )
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise DeviceError(
                f"train.device is {wish!r}, but there are {torch.cuda.device_count()} cards, counted from 0."
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not mps:
        raise DeviceError("train.device is 'mps', but there is no Apple GPU here: use 'auto' or 'cpu'.")
    return device


def pick_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The frozen base's number format; ``auto`` is fp32 on the CPU and Apple, bf16 or fp16 by the card on CUDA.

    Raises:
        DeviceError: the device cannot compute in it.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("train.precision is 'fp16', which is not for CPUs: use 'auto', 'fp32' or 'bf16'.")
    return _DTYPES[precision]


def physical_cores() -> int:
    """Cores this process may use, without hyper-threads, at least 1."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def set_up_threads(threads: int) -> None:
    """One thread a core, and no time lost on numbers too small to matter."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


_MMAP_MAX, _MMAP_THRESHOLD, _TOP_PAD, _TRIM_THRESHOLD = -4, -3, -2, -1
"""Options of glibc's `mallopt`."""
_KEEPING = {_MMAP_MAX: 0, _TOP_PAD: 64 * 2**20, _TRIM_THRESHOLD: 2**31 - 1}
_GIVING_BACK = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TOP_PAD: 0, _TRIM_THRESHOLD: 64 * 2**20}
"""What glibc comes to by itself in a process that uses large blocks."""


def keep_freed_memory() -> None:
    """From now on what is freed stays with this process for what asks for as much again, as the steps of a training do.

    Otherwise every large activation goes back to the system, which hands out new pages, cleared, for the next one: half
    a million a step of Stable Diffusion 1.5 at 512 px. With glibc only; elsewhere nothing happens.
    """
    _set_up_malloc(_KEEPING)


def give_back_memory() -> None:
    """Hand what was freed back to the system, and do so with large blocks from now on: what follows asks for others."""
    libc = _set_up_malloc(_GIVING_BACK)
    if libc is not None:
        libc.malloc_trim(0)


def _set_up_malloc(options: Mapping[int, int]) -> ctypes.CDLL | None:
    libc = _glibc()
    if libc is not None:
        for option, value in options.items():
            libc.mallopt(option, value)
    return libc


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def machine(device: torch.device) -> Machine:
    """What the device has at this moment."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Machine(device, torch.cuda.get_device_name(device), total, free)
    memory = psutil.virtual_memory()
    name = "Apple GPU" if device.type == "mps" else cpu_name(physical_cores())
    return Machine(device, name, memory.total, memory.available)


def memory_in_use(device: torch.device) -> int:
    """Most bytes this process has held: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Most bytes of main memory this process has held, as the system counts them."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: there a child starts with the peak of the process that made it.
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if peak is not None:
            return int(peak.split()[1]) * 1024
    process = psutil.Process().memory_info()
    if hasattr(process, "peak_wset"):
        return int(process.peak_wset)
    try:
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
    except ImportError:
        return int(process.rss)
