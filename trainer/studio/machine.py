"""What this machine has, told without torch; a worker that was started has looked and knows better."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from dataclasses import dataclass
from typing import Literal

import psutil

from trainer.studio.folder import StudioFolder
from trainer.studio.views import MachineView
from trainer.studio.worker.supervisor import Supervisor

DeviceKind = Literal["cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Device:
    """The device that training takes by itself; memory in bytes."""

    kind: DeviceKind
    name: str
    total: int
    available: int


class Machine:
    """The machine with the worker on it."""

    def __init__(self, home: StudioFolder, supervisor: Supervisor) -> None:
        self._home, self._supervisor = home, supervisor

    def view(self) -> MachineView:
        """The machine, for the device chip."""
        state, hello, status = self._supervisor.worker_state()
        device = self.device()
        used = status.memory_used if status is not None and device.kind != "cpu" else device.total - device.available
        return MachineView(
            device=device.kind,
            name=hello.device_name if hello is not None else device.name,
            memory_used_bytes=used,
            memory_total_bytes=device.total,
            worker=state,
            disk_full=self._supervisor.disk_full,
        )

    def device(self) -> Device:
        """The device that trains: as the worker found it, or until one was started as it looks from here."""
        device = best_device()
        _, hello, status = self._supervisor.worker_state()
        if hello is None or hello.device == device.kind:
            return device
        used = status.memory_used if status is not None else 0
        return Device(hello.device, hello.device_name, hello.memory_total, hello.memory_total - used)

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, while there is one."""
        return self._supervisor.pid


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
