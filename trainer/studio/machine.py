"""What this machine has, told without torch; a worker that was started has looked and knows better."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psutil

from trainer.printable import cpu_name
from trainer.studio.folder import StudioFolder
from trainer.studio.views import MachineView
from trainer.studio.worker.supervisor import Supervisor

DeviceKind = Literal["cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Device:
    """A device that training takes by itself; memory in bytes.

    Attributes:
        card: what CUDA calls an NVIDIA card in ``CUDA_VISIBLE_DEVICES``.
        count: how many cards there are with it.
    """

    kind: DeviceKind
    name: str
    total: int
    available: int
    card: str = ""
    count: int = 1


class Machine:
    """The machine with the worker on it."""

    def __init__(self, home: StudioFolder, supervisor: Supervisor) -> None:
        self._home, self._supervisor = home, supervisor

    def view(self) -> MachineView:
        """The machine, for the device chip."""
        state, hello, status = self._supervisor.worker_state()
        device = self.device()
        name, used = device.name if hello is None else hello.device_name, device.total - device.available
        if device.kind == "cuda" and len(found := cards()) > 1:
            device = _together(found)
            name, used = device.name, device.total - device.available
        elif device.kind != "cpu" and status is not None:
            used = status.memory_used
        return MachineView(
            device=device.kind,
            name=name,
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
    """The NVIDIA card with the most memory to spare, Apple's GPU, or the CPU."""
    if found := cards():
        return max(found, key=lambda card: card.available)
    memory = psutil.virtual_memory()
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Device("mps", "Apple GPU", memory.total, memory.available)
    return Device("cpu", cpu_name(cores()), memory.total, memory.available)


def cores() -> int:
    """Physical cores, at least 1."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def cards() -> tuple[Device, ...]:
    """The NVIDIA cards that may be used, by their driver's library; () without one, a driver, or the package for it."""
    try:
        import pynvml
    except ImportError:
        return ()
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            names = visible(pynvml.nvmlDeviceGetCount())
            return tuple(_card(pynvml, name, len(names)) for name in names)
        finally:
            pynvml.nvmlShutdown()
    return ()


def visible(count: int) -> tuple[str, ...]:
    """Which of ``count`` cards CUDA may see by ``CUDA_VISIBLE_DEVICES``: numbers, or names such as ``GPU-8a12``."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if told is None else (name.strip() for name in told.split(","))
    # CUDA sees none of what follows a name that is none.
    return tuple(itertools.takewhile(lambda name: name[:1].isalpha() or (name.isdigit() and int(name) < count), names))


def _card(pynvml: Any, name: str, count: int) -> Device:
    if name.isdigit():
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(name))
    else:
        every = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount()))
        # CUDA takes the beginning of a name, too; parts of a card (MIG) are not among these.
        whole = next((uuid for uuid in map(pynvml.nvmlDeviceGetUUID, every) if uuid.startswith(name)), name)
        handle = pynvml.nvmlDeviceGetHandleByUUID(whole)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    said = pynvml.nvmlDeviceGetName(handle)
    text = said.decode() if isinstance(said, bytes) else str(said)
    return Device("cuda", text.removeprefix("NVIDIA "), int(memory.total), int(memory.free), name, count)


def _together(found: Sequence[Device]) -> Device:
    """Several cards as one: all their memory, and a name such as ``2 x RTX 3060``."""
    names = Counter(card.name for card in found)
    name = " + ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items())
    return Device("cuda", name, sum(card.total for card in found), sum(card.available for card in found))
