"""The whole studio folder in one file, and back: runs, styles, pictures and the list of them.

The file is an uncompressed tar archive, so that it never holds more than it is large: ``patina-studio.json``, then
``studio.sqlite3``, the files of the folder, and last ``patina-checksums.json`` with the SHA-256 of each. It can be made
while the studio runs and trains. The list is copied first (SQLite's backup): whatever it names was on the disk by then,
and what happens afterwards to a run that it calls *in training* is what a restart after a power cut finds, too.

What can be made again (downloads) and what belongs to one moment (uploads, locks, logs) is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import queue
import re
import shutil
import sqlite3
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

from trainer.atomic import replace_file
from trainer.errors import RunError, StudioError
from trainer.studio.database import MIGRATIONS, Database
from trainer.studio.folder import StudioFolder
from trainer.training.run_folder import RunFolder
from trainer.version import __version__

FORMAT = 1
ABOUT, SUMS, LIST = "patina-studio.json", "patina-checksums.json", "studio.sqlite3"
FOLDERS = ("runs", "previews", "begun", "styles", "trash")
MOST_FILES = 2_000_000
LONGEST_NAME = 1024
LARGEST_NOTE = 512 * 2**20
"""Bytes of either of the two JSON files; the checksums of two million files."""
logger = logging.getLogger(__name__)
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\:*?\"<>|]+")

Told = Callable[[int], None]


@dataclass
class Backup:
    """What was written or read: bytes of all files, their number, and the runs among them."""

    files: int = 0
    size: int = 0
    runs: set[str] = field(default_factory=set)

    def note(self, name: str, size: int) -> None:
        """Count a file."""
        self.files += 1
        self.size += size
        if name.startswith("runs/"):
            self.runs.add(name.split("/")[1])


# ---- out


def export(home: StudioFolder, target: Path, told: Told = lambda size: None) -> Backup:
    """Write the whole studio folder into a new file; the studio may run and train meanwhile.

    Args:
        told: the bytes written so far, now and then.

    Raises:
        StudioError: there is no studio, the file exists already, or lies inside the studio folder.
        OSError: the disk refuses.
    """
    if not home.database.is_file():
        raise StudioError(f"There is no studio in {home.path}: set PATINA_HOME, or name its folder with --home.")
    if target.exists():
        raise StudioError(f"{target} exists already: choose another name, so that no backup is overwritten.")
    if target.absolute().is_relative_to(home.path.absolute()):
        raise StudioError(f"{target} lies inside the studio folder: choose a place outside, on another disk at best.")
    if not target.absolute().parent.is_dir():
        raise StudioError(f"The folder {target.absolute().parent} does not exist: make it first.")
    done = Backup()
    replace_file(target.absolute(), lambda file: _Writer(home, file, done, told).write())
    return done


def stream(home: StudioFolder) -> Iterator[bytes]:
    """What `export` would write, piece by piece, for a download; no file is made of it here.

    Raises:
        StudioError: there is no studio.
    """
    if not home.database.is_file():
        raise StudioError(f"There is no studio in {home.path}: set PATINA_HOME, or name its folder with --home.")
    ahead: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
    given_up = threading.Event()

    def write() -> None:
        try:
            _Writer(home, cast("BinaryIO", _Ahead(ahead, given_up)), Backup(), lambda size: None).write()
        except (OSError, StudioError):
            # Whoever unpacks it finds that its end is missing.
            logger.exception("A copy of the studio was not finished.")
        finally:
            with contextlib.suppress(queue.Full):
                ahead.put(None, timeout=0 if given_up.is_set() else 60)

    threading.Thread(target=write, name="patina-copy", daemon=True).start()
    try:
        while (piece := ahead.get()) is not None:
            yield piece
    finally:
        given_up.set()


class _Ahead:
    """A file that is written into a queue; it ends in an error when nobody takes from that any more."""

    def __init__(self, ahead: queue.Queue[bytes | None], given_up: threading.Event) -> None:
        self._ahead, self._given_up, self._at = ahead, given_up, 0

    def write(self, data: bytes) -> int:
        while True:
            if self._given_up.is_set():
                raise BrokenPipeError("nobody takes the copy any more")
            with contextlib.suppress(queue.Full):
                self._ahead.put(bytes(data), timeout=1)
                self._at += len(data)
                return len(data)

    def tell(self) -> int:
        return self._at


class _Writer:
    def __init__(self, home: StudioFolder, file: BinaryIO, done: Backup, told: Told) -> None:
        self._home, self._done, self._told = home, done, told
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._sums: dict[str, str] = {}

    def write(self) -> None:
        about = {"format": FORMAT, "patina": __version__, "made": time.time(), "schema": 0}
        # Beside the studio, where links to its files are possible.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=self._home.path) as scratch:
            copy = Path(scratch) / LIST
            about["schema"] = _copy_list(self._home.database, copy)
            self._add_bytes(ABOUT, json.dumps(about).encode())
            self._add_file(LIST, copy)
            known = _known_runs(copy)
            for path in sorted(self._home.runs.iterdir()):
                # What is neither listed nor a run is left over from something that failed.
                if path.is_dir() and not path.is_symlink() and (path.name in known or RunFolder(path).exists()):
                    self._add_run(RunFolder(path), Path(scratch))
        for name in FOLDERS[1:]:
            self._add_tree(self._home.path / name, name)
        self._add_bytes(SUMS, json.dumps(self._sums).encode())
        self._tar.close()

    def _add_run(self, run: RunFolder, scratch: Path) -> None:
        name = f"runs/{run.path.name}"
        with contextlib.ExitStack() as held:
            # Nobody begins to train it meanwhile; one in training is copied as it stands.
            with contextlib.suppress(RunError, OSError):
                held.enter_context(run.held())
            self._add_tree(run.path, name, leave_out=(run.checkpoints, run.lock_file, run.events_file))
            # Later than what it tells of would be too early for it: a sample that is not copied is not missed.
            if (events := _whole_lines(run.events_file)) is not None:
                self._add_bytes(f"{name}/{run.events_file.name}", events)
            for _, saved in run.saved():
                with contextlib.suppress(OSError, ValueError, KeyError):
                    self._add_tree(_linked(saved, scratch / uuid.uuid4().hex), f"{name}/checkpoints/{saved.name}")

    def _add_tree(self, root: Path, name: str, leave_out: tuple[Path, ...] = ()) -> None:
        for folder, inner, files in os.walk(root):
            here = Path(folder)
            inner[:] = sorted(each for each in inner if not each.startswith(".") and here / each not in leave_out)
            for each in sorted(files):
                path = here / each
                if each.startswith(".") or path in leave_out or path.is_symlink():
                    continue
                # Deleted, or moved to the trash, since it was listed.
                with contextlib.suppress(FileNotFoundError):
                    self._add_file(f"{name}/{path.relative_to(root).as_posix()}", path)

    def _add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            self._add(name, status.st_size, status.st_mtime, file)

    def _add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, len(content), time.time(), io.BytesIO(content))

    def _add(self, name: str, size: int, modified: float, content: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(modified), 0o644
        reading = _Summed(content, size)
        self._tar.addfile(member, reading)
        self._sums[name] = reading.digest.hexdigest()
        self._done.note(name, size)
        self._told(self._done.size)


class _Summed(io.RawIOBase):
    """The first ``size`` bytes of a file that may grow meanwhile, summed up as they are read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        part = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(part)
        self.digest.update(part)
        return part


def _copy_list(source: Path, target: Path) -> int:
    """A copy of the studio's list as it is at one moment, whoever writes to it; returns its schema's version."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{_quoted(source)}?mode=ro", uri=True, timeout=20)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            # Whoever reads the copy needs no second file beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
            return int(copy.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StudioError(
            f"The studio's list {source} cannot be copied ({error}); patina doctor looks into it."
        ) from None


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(path.absolute().as_posix())


def _known_runs(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {str(row[0]) for row in connection.execute("SELECT id FROM runs")}


def _whole_lines(log: Path) -> bytes | None:
    """A log up to its last whole line."""
    try:
        content = log.read_bytes()
    except OSError:
        return None
    return content[: content.rfind(b"\n") + 1]


def _linked(saved: Path, scratch: Path) -> Path:
    """A checkpoint under a second name, so that it cannot be removed while it is copied.

    Raises:
        OSError, ValueError, KeyError: it is being removed already, or was never whole.
    """
    scratch.mkdir()
    for file in saved.iterdir():
        try:
            os.link(file, scratch / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            # A disk without links.
            shutil.copyfile(file, scratch / file.name)
    # Removed in any order: what was there a moment ago says nothing of the rest.
    for name in json.loads((scratch / "manifest.json").read_bytes())["files"]:
        (scratch / str(name)).stat()
    return scratch


# ---- in


def restore(source: Path, path: Path) -> Backup:
    """Make a studio folder of a file that `export` wrote; the folder is there whole or not at all.

    An older list is brought up to date. The file is looked at as if a stranger had made it.

    Args:
        path: the studio folder, which must be empty or not there.

    Raises:
        StudioError: the folder is not empty, or the file is no whole backup, names what lies outside of the folder,
            holds anything but plain files, or needs a later Patina.
        OSError: the disk refuses.
    """
    path = path.absolute()
    if path.exists() and (not path.is_dir() or any(each.is_file() for each in path.rglob("*"))):
        raise StudioError(
            f"{path} holds something already: a backup is unpacked into a new or empty folder only. Name one with "
            "--home, or move the old one away."
        )
    if not source.is_file():
        raise StudioError(f"There is no file {source}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.import")
    scratch.mkdir()
    try:
        with _refusing(source):
            done = _unpack(source, scratch)
        _check_list(source, scratch)
        StudioFolder(scratch).prepare()
        if path.exists():
            shutil.rmtree(path)
        scratch.rename(path)
        return done
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _refusing(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, LookupError, TypeError, RecursionError, FileExistsError) as error:
        raise StudioError(f"{source} is no whole backup of a studio ({str(error) or type(error).__name__}).") from None


def _unpack(source: Path, target: Path) -> Backup:
    free, done, sums = shutil.disk_usage(target).free, Backup(), dict[str, str]()
    if source.stat().st_size > free:
        raise StudioError(
            f"{source} needs {source.stat().st_size / 2**30:.1f} GB, but only {free / 2**30:.1f} GB are free there."
        )
    said: dict[str, str] | None = None
    # "r:" takes no compressed archive, which could hold more than fits any disk.
    with tarfile.open(source, "r:") as archive:
        for member in archive:
            name = _plain_name(source, member)
            if said is not None or done.files > MOST_FILES:
                raise ValueError("it goes on after its end")
            content = archive.extractfile(member)
            assert content is not None
            if not sums:
                _check_about(source, name, content.read(min(member.size, LARGEST_NOTE)))
                sums[name] = ""
                continue
            if name == SUMS:
                said = json.loads(content.read(min(member.size, LARGEST_NOTE)))
                continue
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            digest, size = hashlib.sha256(), 0
            # "x": a name that this disk takes for another's is no reason to overwrite it.
            with place.open("xb") as file:
                while part := content.read(2**20):
                    digest.update(part)
                    file.write(part)
                    size += len(part)
            if size != member.size:
                raise ValueError(f"{name} is cut off")
            os.utime(place, (member.mtime, member.mtime))
            sums[name] = digest.hexdigest()
            done.note(name, size)
    if said is None:
        raise ValueError("its end is missing")
    for name, digest_of in said.items():
        if name != ABOUT and sums.get(name) != digest_of:
            raise ValueError(f"{name} is not what was written")
    if len(said) != len(sums) or LIST not in sums:
        raise ValueError("files are missing")
    return done


def _plain_name(source: Path, member: tarfile.TarInfo) -> str:
    """A member's name, when it is a plain file that belongs into a studio folder."""
    name = member.name
    parts = name.split("/")
    belongs = name in (ABOUT, SUMS, LIST) or (len(parts) > 1 and parts[0] in FOLDERS)
    fine = all(_PLAIN.fullmatch(part) and part.strip(" .") and len(os.fsencode(part)) < 256 for part in parts)
    plain = member.isreg() and not member.issparse() and member.size >= 0 and 0 <= member.mtime < 2**40
    if not (belongs and fine and plain) or len(name) > LONGEST_NAME or any(part.startswith(".") for part in parts):
        from trainer.printable import printable

        raise StudioError(
            f"{source} holds {printable(name, 80)!r}, which no backup of a studio holds; nothing was unpacked."
        )
    return name


def _check_about(source: Path, name: str, content: bytes) -> None:
    if name != ABOUT:
        raise ValueError("it does not begin as one")
    about = json.loads(content)
    if about["format"] > FORMAT or about["schema"] > len(MIGRATIONS):
        raise StudioError(f"{source} was made by a later version of Patina ({about['patina']}). Update Patina.")


def _check_list(source: Path, folder: Path) -> None:
    """Bring the list up to date, and refuse one that holds more than a list of ours."""
    try:
        database = Database(folder / LIST)
    except StudioError:
        raise StudioError(
            f"{source} holds a damaged list of runs, or one of a later Patina; nothing was unpacked."
        ) from None
    try:
        strange = _stranger(database, folder)
    except sqlite3.Error as error:
        strange = str(error)
    finally:
        database.close()
    if strange:
        raise StudioError(f"{source} holds a list that Patina did not write ({strange}); nothing was unpacked.")


def _stranger(database: Database, folder: Path) -> str:
    """What in a list is not ours, or empty: its paths would be opened, and one day deleted."""
    if (problem := database.one("PRAGMA integrity_check")[0]) != "ok":
        return str(problem)[:200]
    fresh = folder / ".fresh.sqlite3"
    ours = Database(fresh)
    try:
        if _schema(database) != _schema(ours):
            return "its tables"
    finally:
        ours.close()
        for file in folder.glob(f"{fresh.name}*"):
            file.unlink()
    for table, columns in (("runs", ("id",)), ("images", ("run", "id")), ("jobs", ("id",)), ("styles", ("id",))):
        for row in database.all(f"SELECT {', '.join(columns)} FROM {table}"):
            for value in row:
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", str(value)):
                    return f"a name in {table}"
    for table, place in (("styles", "styles"), ("pictures", "previews")):
        for row in database.all(f"SELECT file FROM {table}"):
            parts = str(row[0]).split("/")
            if parts[0] != place or len(parts) < 3 or not all(_PLAIN.fullmatch(p) and p.strip(" .") for p in parts):
                return f"a file in {table}"
    return ""


def _schema(database: Database) -> set[tuple[str, str, str]]:
    rows = database.all("SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {(row[0], row[1], " ".join(row[2].split())) for row in rows}
