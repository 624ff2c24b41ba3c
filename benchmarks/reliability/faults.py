"""Faults at chosen moments of writing: a kill, a full or broken disk, a slow one.

What a process does to files below a folder is counted: opening one for writing, each write of bytes into it, each
fsync, each rename, each new folder. At the moments that are asked for, the fault happens, a write half way through.
`install` puts this under one process; a process that is started elsewhere (the studio's worker) gets it by its
environment, see `in_children`.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["none", "kill", "full", "readonly", "io", "slow", "fill"]
VARIABLE = "PATINA_TEST_FAULT"
"""Names the file with the plan for processes started with `in_children`."""
SLOW_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """What happens at which moments.

    Attributes:
        folder: only what lies below it counts.
        within: and only paths that hold this text.
        at: the moment, from 1 on.
        kind: ``kill``: the process ends as by ``kill -9``. ``full``: from that moment on nothing more can be written.
            ``readonly``: the same, as on a disk that turned read-only. ``io``: that one write fails. ``slow``: from
            then on each takes longer. ``fill``: the disk itself is filled at that moment, by a file named ``filler``
            beside the folder.
    """

    folder: str = ""
    within: str = ""
    at: int = 0
    kind: Kind = "none"


class Faults:
    """The counting of one process, and what happens at the planned moment."""

    def __init__(self, plan: Plan, source: Path | None = None) -> None:
        self.plan, self.source, self.moments = plan, source, 0
        self._read = 0
        self._busy = False
        self._open = io.open

    def moment(self, path: object, half: Callable[[], object] | None = None) -> None:
        """Something is written; ``half`` does the first half of it."""
        if self._busy or not self._counts(path):
            return
        self.moments += 1
        plan = self.plan
        if plan.kind == "none" or self.moments < plan.at or (self.moments > plan.at and plan.kind not in _LASTING):
            return
        if plan.kind == "slow":
            time.sleep(SLOW_SECONDS)
            return
        if plan.kind == "fill":
            self._fill()
            return
        if half is not None:
            half()
        if plan.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = {"io": errno.EIO, "readonly": errno.EROFS}.get(plan.kind, errno.ENOSPC)
        raise OSError(number, os.strerror(number), str(path))

    def _counts(self, path: object) -> bool:
        if self.source is not None:
            self._follow()
        if not isinstance(path, str | os.PathLike) or not self.plan.folder:
            return False
        text = os.fspath(path)
        return isinstance(text, str) and text.startswith(self.plan.folder + os.sep) and self.plan.within in text

    def _follow(self) -> None:
        """Take up another plan, from its first moment on."""
        assert self.source is not None
        try:
            changed = self.source.stat().st_mtime_ns
            if changed == self._read:
                return
            with self._open(self.source, encoding="utf-8") as file:
                self.plan = Plan(**json.load(file))
            self._read, self.moments = changed, 0
        except (OSError, ValueError):
            return

    def _fill(self) -> None:
        self._busy = True
        try:
            with self._open(Path(self.plan.folder).parent / "filler", "ab", buffering=0) as file:
                for size in (2**20, 2**12, 1):
                    while True:
                        try:
                            file.write(bytes(size))
                        except OSError:
                            break
        finally:
            self._busy = False


_LASTING = ("full", "readonly", "slow")


class _Counted(io.FileIO):
    """A file that reports each write before it is done."""

    def __init__(self, faults: Faults, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._faults, self._path = faults, path

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._faults.moment(self._path, lambda: super(_Counted, self).write(view[: len(view) // 2]))
        return super().write(data)


def install(faults: Faults, put: Callable[[object, str, object], object] = setattr) -> None:
    """Put the counting under this process.

    Args:
        put: sets an attribute; pytest's ``monkeypatch.setattr`` takes it back.
    """
    real_open, real_sync, real_replace, real_mkdir = io.open, os.fsync, os.replace, os.mkdir

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        writes = isinstance(file, str | os.PathLike) and set(mode) & set("wxa") and "+" not in mode
        if not writes or not faults._counts(file):
            return real_open(file, mode, buffering, *rest, **more)
        faults.moment(file)
        raw = _Counted(faults, os.fspath(file), mode.replace("b", "").replace("t", ""))
        if "b" in mode:
            return raw if buffering == 0 else io.BufferedWriter(raw)
        names = ("encoding", "errors", "newline")
        given = {**dict(zip(names, rest, strict=False)), **{name: more[name] for name in names if name in more}}
        return io.TextIOWrapper(io.BufferedWriter(raw), **given)

    def synced(descriptor: int) -> None:
        path = _path_of(descriptor)
        if path:
            faults.moment(path)
        real_sync(descriptor)

    def replaced(source: Any, target: Any, **more: Any) -> None:
        faults.moment(target)
        real_replace(source, target, **more)

    def made(path: Any, *rest: Any, **more: Any) -> None:
        faults.moment(path)
        real_mkdir(path, *rest, **more)

    put(io, "open", opened)
    put(builtins, "open", opened)
    put(os, "fsync", synced)
    put(os, "replace", replaced)
    put(os, "mkdir", made)


def _path_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


@contextmanager
def in_children(plan: Path, environment: dict[str, str] | None = None) -> Iterator[Callable[[Plan], None]]:
    """Have every Python that is started inside count by the plan in a file; yields what writes another plan.

    Args:
        plan: the file, which need not be there.
        environment: what is changed; None is this process's own.
    """
    target: Any = os.environ if environment is None else environment
    before: Mapping[str, str | None] = {name: target.get(name) for name in ("PYTHONPATH", VARIABLE)}
    site = Path(__file__).with_name("site")
    root = Path(__file__).resolve().parents[2]
    target["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), str(root), before["PYTHONPATH"])))
    target[VARIABLE] = str(plan)

    def write(wanted: Plan) -> None:
        scratch = plan.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(wanted)), encoding="utf-8")
        scratch.replace(plan)

    write(Plan())
    try:
        yield write
    finally:
        for name, value in before.items():
            if value is None:
                target.pop(name, None)
            else:
                target[name] = value


def flipped(path: Path, bit: int) -> None:
    """Turn one bit of a file over, counted from its first."""
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)
