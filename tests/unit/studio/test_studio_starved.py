"""A kill for want of memory is told from another one by what the system counts and by what was free."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from trainer.studio.worker import starved
from trainer.studio.worker.starved import LOOKS, MemoryWatch

VMSTAT = "nr_free_pages 5\noom_kill {}\npgfault 7\n"
EVENTS = "low 0\nhigh 0\nmax 3\noom 1\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The machine's memory, half of it free, and looks that need no time between them."""
    memory = SimpleNamespace(total=100, available=50)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    clock = itertools.count()
    monkeypatch.setattr(starved, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    return memory


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("0::/user.slice/app", "sys/fs/cgroup/user.slice/app/memory.events", EVENTS),
        ("0::/seen/from/outside", "sys/fs/cgroup/memory.events", EVENTS),
        ("4:cpu,memory:/docker/a:b\n0::/", "sys/fs/cgroup/memory/docker/a:b/memory.oom_control", CONTROL),
        ("0::/", "proc/vmstat", VMSTAT),
    ],
)
def test_a_count_that_rises_is_memory(tmp_path: Path, free: SimpleNamespace, group: str, file: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", f"{group}\n")
    write(tmp_path, "proc/vmstat", VMSTAT.format(3))
    write(tmp_path, file, text.format(3))
    watch = MemoryWatch(tmp_path)
    assert not watch.ran_out()
    write(tmp_path, file, text.format(4))
    assert watch.ran_out()
    for _ in range(LOOKS):
        watch.look()
    assert not watch.ran_out(), "what was killed long ago says nothing of this one"


def test_what_was_killed_in_another_group_says_nothing(tmp_path: Path, free: SimpleNamespace) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/app\n")
    write(tmp_path, "sys/fs/cgroup/app/memory.events", EVENTS.format(0))
    write(tmp_path, "proc/vmstat", VMSTAT.format(0))
    watch = MemoryWatch(tmp_path)
    write(tmp_path, "proc/vmstat", VMSTAT.format(9))
    assert not watch.ran_out()


def test_without_a_count_it_is_memory_when_hardly_any_was_free(tmp_path: Path, free: SimpleNamespace) -> None:
    watch = MemoryWatch(tmp_path)
    assert not watch.ran_out()
    free.available = 4
    watch.look()
    free.available = 60
    assert watch.ran_out(), "what was held is free again once the process is gone"


def test_this_machine_can_be_looked_at() -> None:
    MemoryWatch().look()
