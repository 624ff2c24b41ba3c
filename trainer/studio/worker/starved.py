"""Whether a worker that was killed was killed for want of memory.

The kernel sends such a process the signal that ``kill -9`` sends, and no word is left with it. But it counts: a group
of processes knows how many of its own an OOM killer ended (``memory.events`` of cgroup 2, ``memory.oom_control`` of
cgroup 1), the machine how many of all (``oom_kill`` in ``/proc/vmstat``); all since Linux 4.13. Programs that kill
before the kernel has to, such as earlyoom, and other systems are not counted there: they strike when hardly any memory
is free. Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
"""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path

import psutil

LOOKS = 10
"""How many looks back, at least a second apart, a kill is put down to what was seen."""
HARDLY_ANY = 0.05
"""Share of the machine's memory below which it counts as used up: where earlyoom kills without asking."""
KILLED = -9
"""The exit code of a process that the system ended, or somebody with ``kill -9``."""


class MemoryWatch:
    """Looks at memory while a worker lives.

    Args:
        root: where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counter = _counter(root)
        self._kills: deque[int] = deque(maxlen=LOOKS)
        self._free: deque[float] = deque(maxlen=LOOKS)
        self._note()

    def look(self) -> None:
        """Remember how many were killed until now, and how much is free; more than once a second it does nothing."""
        if time.monotonic() - self._at >= 1.0:
            self._note()

    def _note(self) -> None:
        self._at = time.monotonic()
        memory = psutil.virtual_memory()
        self._kills.append(_counted(self._counter))
        self._free.append(memory.available / memory.total)

    def ran_out(self) -> bool:
        """Whether a worker that was killed just now was killed for want of memory, by all that is known."""
        self._note()
        return self._kills[-1] > self._kills[0] or min(self._free) < HARDLY_ANY


def _counter(root: Path) -> Path:
    """The file that counts kills among as few others as possible: of our own group, else of the machine."""
    return next((file for file in _own_groups(root) if _counted(file) >= 0), root / "proc/vmstat")


def _own_groups(root: Path) -> list[Path]:
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path may be one that is seen from outside; what is mounted is then the group itself.
        for place in (path.lstrip("/"), ""):
            if not controllers:
                found.append(groups / place / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(groups / "memory" / place / "memory.oom_control")
    return found


def _counted(file: Path) -> int:
    """How many were killed, -1 where that is not counted."""
    try:
        found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return -1
    return int(found.group(1)) if found else -1
