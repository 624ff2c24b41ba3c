"""What this machine has, told without torch: a worker that has looked knows better, but may not have been started."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from dataclasses import dataclass
from typing import Literal

import psutil

DeviceKind = Literal["cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Device:
    """The device that training takes by itself; memory in bytes."""

    kind: DeviceKind
    name: str
    total: int
    available: int


def best_device() -> Device:
    """The first NVIDIA card, Apple's GPU, or the CPU."""
    card = _nvidia()
    if card is not None:
        return card
    memory = psutil.virtual_memory()
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Device("mps", "Apple GPU", memory.total, memory.available)
    return Device("cpu", f"CPU, {cores()} cores", memory.total, memory.available)


def cores() -> int:
    """Physical cores, at least 1."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _nvidia() -> Device | None:
    """The first card by its driver's library; None without a card, a driver, or the package that asks it."""
    try:
        import pynvml
    except ImportError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            text = name.decode() if isinstance(name, bytes) else str(name)
            return Device("cuda", text.removeprefix("NVIDIA "), int(memory.total), int(memory.free))
        finally:
            pynvml.nvmlShutdown()
    return None
