"""The studio folder: where runs, pictures and imported styles lie, and which names they have there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.errors import DiskFull, StudioError

SPARE_BYTES = 512 * 2**20
ROOM_BYTES = 256 * 2**20
"""How much must come free after the disk was full: a checkpoint and what comes with it."""
FULL_SECONDS = 600.0
"""After so long a full disk is tried again in any case: the free space does not tell of a quota."""


def studio_path() -> Path:
    """The folder in ``PATINA_HOME``, or the user's data folder for Patina."""
    chosen = os.environ.get("PATINA_HOME", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("patina", appauthor=False)


@contextmanager
def opened(home: StudioFolder, address: str = "") -> Iterator[None]:
    """Have the studio folder for this process alone; the system ends that with the process, however that ends.

    Args:
        address: told to whoever tries to open the folder meanwhile.

    Raises:
        StudioError: another studio has the folder open, or its disk knows no locks.
    """
    try:
        with FileLock(home.lock_file, timeout=0):
            with contextlib.suppress(OSError):
                home.opened_file.write_text(json.dumps({"pid": os.getpid(), "address": address}), encoding="utf-8")
            yield
            home.opened_file.unlink(missing_ok=True)
    except Timeout:
        raise StudioError(
            f"The studio folder {home.path} is open already{_by_whom(home)}. "
            "Use that one, or set PATINA_HOME to another folder."
        ) from None


def _by_whom(home: StudioFolder) -> str:
    try:
        said = json.loads(home.opened_file.read_text(encoding="utf-8"))
        at = f" at {said['address']}" if said["address"] else ""
        return f" (process {said['pid']}{at})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def new_id(prefix: str) -> str:
    """A name for a new run, job or style: sorts by time, is safe in file names, and cannot be guessed twice."""
    return f"{prefix}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class StudioFolder:
    """The studio folder's layout; `prepare` makes what is missing."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "studio.sqlite3"

    @property
    def lock_file(self) -> Path:
        """Held by the one studio that has the folder open; beside it lies what that one says of itself."""
        return self.path / "studio.lock"

    @property
    def opened_file(self) -> Path:
        return self.path / "opened.json"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    @property
    def begun(self) -> Path:
        """Pictures that people gave to begin with, each named by its bytes."""
        return self.path / "begun"

    @property
    def styles(self) -> Path:
        return self.path / "styles"

    @property
    def downloads(self) -> Path:
        return self.path / "downloads"

    @property
    def kept_captions(self) -> Path:
        """What models said of images, which a clean-up may remove with the other downloads."""
        return self.downloads / "captions"

    @property
    def trash(self) -> Path:
        return self.path / "trash"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def worker_log(self) -> Path:
        return self.logs / "worker.log"

    def run(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.runs / run_id

    def images(self, run_id: str) -> Path:
        """The run's own, re-encoded training images."""
        return self.run(run_id) / "images"

    def removed_images(self, run_id: str) -> Path:
        """Where an image waits after it was taken out of a draft, so that taking it out can be undone."""
        return self.run(run_id) / "removed"

    def whole_images(self, run_id: str) -> Path:
        """Images as they were before a person chose a part of them."""
        return self.run(run_id) / "whole"

    def masks(self, run_id: str) -> Path:
        """Which parts of the images count."""
        return self.run(run_id) / "masks"

    def preview(self, job_id: str) -> Path:
        """The folder of a preview's pictures."""
        return self.previews / job_id

    def prepare(self) -> StudioFolder:
        """Make the folders.

        Raises:
            StudioError: the place is not writable.
        """
        try:
            for folder in (self.runs, self.previews, self.styles, self.downloads, self.trash, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudioError(
                f"The studio folder {self.path} cannot be used ({error.strerror}). "
                "Set PATINA_HOME to a folder you can write to."
            ) from None
        return self

    def free_bytes(self) -> int:
        """Free space on the studio folder's disk."""
        return shutil.disk_usage(self.path).free

    def require_space(self, needed_bytes: int, purpose: str) -> None:
        """Refuse work that would fill the disk.

        Raises:
            StudioError: fewer than ``needed_bytes`` and a reserve of 512 MiB are free.
        """
        free = self.free_bytes()
        if free < needed_bytes + SPARE_BYTES:
            raise StudioError(
                f"{purpose} needs {(needed_bytes + SPARE_BYTES) / 2**30:.1f} GB of disk space, but only "
                f"{free / 2**30:.1f} GB are free in {self.path}. Delete old runs or free some space."
            )


class FullDisk:
    """Whether the studio's disk is full, and what could not be written down meanwhile.

    Whoever has it calls it from one thread at a time.
    """

    def __init__(self, home: StudioFolder) -> None:
        self._home = home
        self._since: float | None = None
        self._free_then = 0
        self._unwritten: list[Callable[[], object]] = []

    @property
    def is_full(self) -> bool:
        """Whether work waits for room."""
        return self._since is not None

    def found(self) -> None:
        """Somebody met a full disk."""
        if self._since is None:
            self._since, self._free_then = time.monotonic(), 0
            with contextlib.suppress(OSError):
                self._free_then = self._home.free_bytes()

    def write_down(self, write: Callable[[], object]) -> None:
        """Write something now, or when there is room for it, in the order of the calls."""
        if not self._unwritten:
            try:
                write()
                return
            except DiskFull:
                self.found()
        self._unwritten.append(write)

    def catch_up(self) -> None:
        """See whether there is room again, and then write what could not be written.

        Raises:
            DiskFull: there is none after all.
        """
        if self._since is not None:
            has_room = self._home.free_bytes() >= self._free_then + ROOM_BYTES
            if not has_room and time.monotonic() - self._since <= FULL_SECONDS:
                return
            self._since = None
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]
