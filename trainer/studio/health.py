"""What is wrong with a studio folder, what can be put right, and what takes its space.

The folder and its list are two things that a power cut, a full disk or a helpful file manager can tear apart. Every
trouble is a sentence for people; one that can be put right says how, and putting it right never deletes what cannot be
made again: that goes to the folder ``trash/lost``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from trainer.errors import StudioError
from trainer.safetensors_file import Header, read_header
from trainer.studio.database import Database
from trainer.studio.folder import SPARE_BYTES, StudioFolder
from trainer.studio.library import THUMBNAIL, unpack_thumbnail
from trainer.training.run_folder import RunFolder

WORK_SECONDS = 3600.0
UPLOAD_SECONDS = 24 * 3600.0
"""After so long an upload that was not taken in, or a file that was offered and not fetched, is left over."""
_LEFT_OVER = re.compile(r"\.export-.*|\.sheet-\d+\.tmp|\.[0-9a-f]{16}\.[0-9a-f]{32}|\.step-\d+\.\d+\.tmp")


@dataclass(frozen=True)
class Trouble:
    """Something that is not as it should be.

    Attributes:
        what: a sentence.
        repair: what would be done about it, as a sentence; empty where only a person can.
        mend: does it.
    """

    what: str
    repair: str = ""
    mend: Callable[[], object] | None = None


@dataclass(frozen=True)
class Space:
    """Bytes below the studio folder, by what they are for; ``spare`` is what a clean-up would free."""

    runs: int
    caches: int
    pictures: int
    styles: int
    trash: int
    downloads: int
    logs: int
    free: int

    @property
    def spare(self) -> int:
        return self.caches + self.downloads


class Health:
    """A studio folder's health.

    Args:
        home: the folder.
        database: its list; one that is open for reading only lets everything be looked at and nothing repaired.
        in_use: a studio works in the folder; what was changed within the hour may be its work of this moment.
    """

    def __init__(self, home: StudioFolder, database: Database | None, *, in_use: bool = False) -> None:
        self._home, self._db = home, database
        self._in_use = in_use

    def examine(self) -> list[Trouble]:
        """Everything that is wrong. Looks at every file's name; takes a second in a studio of thousands."""
        found = list(self._space())
        if self._db is not None:
            problem = self._db.one("PRAGMA quick_check")[0]
            if problem != "ok":
                return [*found, Trouble(f"The list {self._home.database} is damaged ({str(problem)[:100]}).")]
            for look in (self._runs, self._images, self._styles, self._pictures):
                found += look(self._db)
        return [*found, *self._left_over()]

    def repair(self, troubles: Iterable[Trouble] | None = None) -> list[str]:
        """Put right what can be put right; returns what was done, a sentence each.

        Args:
            troubles: from `examine`; None looks again.

        Raises:
            DiskFull: there is no room for it.
        """
        done = []
        for trouble in self.examine() if troubles is None else troubles:
            if trouble.mend is None:
                continue
            try:
                trouble.mend()
            except OSError as error:
                done.append(f"{trouble.what} This could not be put right: {error.strerror or error}.")
            else:
                done.append(f"{trouble.what} {trouble.repair}")
        return done

    def space(self) -> Space:
        """What takes the disk's space."""
        caches = sum(_size(run.cache) for run in self._with_spare_cache())
        return Space(
            runs=_size(self._home.runs) - caches,
            caches=caches,
            pictures=_size(self._home.previews) + _size(self._home.begun),
            styles=_size(self._home.styles),
            trash=_size(self._home.trash),
            downloads=_size(self._home.downloads),
            logs=_size(self._home.logs),
            free=self._home.free_bytes(),
        )

    def clean_up(self) -> int:
        """Remove what can be made again: downloads, and caches of finished runs. Returns the bytes that came free."""
        before = self.space().spare
        for each in self._home.downloads.iterdir():
            # A style in the making lies there, too, until it is in the library.
            if not (each.name.startswith(("rework", "convert")) and self._is_new(each)):
                shutil.rmtree(each, ignore_errors=True)
        for run in self._with_spare_cache():
            shutil.rmtree(run.cache, ignore_errors=True)
        remove_old_uploads(self._home)
        return max(0, before - self.space().spare)

    def _with_spare_cache(self) -> Iterator[RunFolder]:
        """Finished runs that hold their images, of which their cache can be made again."""
        rows = [] if self._db is None else self._db.all("SELECT id FROM runs WHERE state = 'finished'")
        for run in (RunFolder(self._home.run(row["id"])) for row in rows):
            if run.cache.is_dir() and any(run.images.glob("*.png")) and not run.is_held():
                yield run

    def _space(self) -> Iterator[Trouble]:
        with contextlib.suppress(OSError):
            free = self._home.free_bytes()
            if free < SPARE_BYTES:
                yield Trouble(
                    f"Only {free / 2**20:.0f} MB are free on the disk of {self._home.path}; runs pause below "
                    f"{SPARE_BYTES / 2**20:.0f} MB. Free some space, or clean up."
                )
        if not os.access(self._home.path, os.W_OK):
            yield Trouble(f"The studio folder {self._home.path} cannot be written to: change its rights.")

    # ---- the list against the folder

    def _runs(self, database: Database) -> Iterator[Trouble]:
        known = set()
        for row in database.all("SELECT id, name, state, trashed FROM runs"):
            known.add(row["id"])
            folder = RunFolder(self._home.trash / row["id"] if row["trashed"] else self._home.run(row["id"]))
            if row["state"] == "draft":
                continue
            if not folder.path.is_dir():
                yield Trouble(
                    f"The folder of the run {row['name']} is gone.",
                    "It was struck from the list.",
                    partial(database.write, "DELETE FROM runs WHERE id = ?", (row["id"],)),
                )
            elif row["state"] == "finished" and not folder.adapter_file.is_file():
                yield self._without_file(database, row["id"], row["name"], bool(folder.saved()))
        for path in _folders(self._home.runs):
            if path.name not in known and not RunFolder(path).exists() and not self._is_new(path):
                yield self._lost(path, f"{path} belongs to no run in the list and holds no settings of one.")

    def _without_file(self, database: Database, run: str, name: str, saved: bool) -> Trouble:
        if not saved:
            return Trouble(f"The file of the finished run {name} is gone, and so are its saved states.")
        return Trouble(
            f"The file of the finished run {name} is gone, but its saved states are there.",
            "It is paused now; resume it, and the file is made again.",
            lambda: database.write("UPDATE runs SET state = 'paused' WHERE id = ? AND state = 'finished'", (run,)),
        )

    def _images(self, database: Database) -> Iterator[Trouble]:
        query = (
            "SELECT images.id, run, images.name, removed, runs.name AS of_run, state"
            " FROM images JOIN runs ON runs.id = run WHERE trashed IS NULL"
        )
        for row in database.all(query):
            run, removed = row["run"], bool(row["removed"])
            place = (self._home.removed_images if removed else self._home.images)(run) / f"{row['id']}.png"
            other = (self._home.images if removed else self._home.removed_images)(run) / place.name
            if place.is_file():
                continue
            said = f"The image {row['name']} of {row['of_run']} is gone."
            if other.is_file():
                yield Trouble(said, "It lay in the wrong folder and was put back.", partial(_moved, other, place))
            elif row["state"] == "draft":
                yield Trouble(
                    said,
                    "It was struck from the draft; add it again.",
                    partial(database.write, "DELETE FROM images WHERE run = ? AND id = ?", (run, row["id"])),
                )
            # A run that has started goes on with what it made of the image, see `data.changed_images`.

    def _styles(self, database: Database) -> Iterator[Trouble]:
        known = set()
        for row in database.all("SELECT id, name, file FROM styles"):
            file = self._home.path / row["file"]
            known.add(file.parent.name)
            if not file.is_file():
                yield Trouble(
                    f"The file of the style {row['name']} is gone.",
                    "It was struck from the library; import it again.",
                    partial(database.write, "DELETE FROM styles WHERE id = ?", (row["id"],)),
                )
            elif not (file.parent / THUMBNAIL).is_file():
                yield from self._without_picture(file, row["name"])
        for row in database.all("SELECT id, name FROM runs WHERE state = 'finished' AND trashed IS NULL"):
            run = RunFolder(self._home.run(row["id"]))
            shown = any(run.samples.glob("*.png")) or (run.path / THUMBNAIL).is_file()
            if run.adapter_file.is_file() and not shown:
                yield from self._without_picture(run.adapter_file, row["name"])
        for path in _folders(self._home.styles):
            if path.name not in known and not self._is_new(path):
                yield self._lost(path, f"{path} belongs to no style in the library: an import that did not end.")

    def _without_picture(self, file: Path, name: str) -> Iterator[Trouble]:
        """A style's card has no picture, though its file brings one along."""
        try:
            header = read_header(file, StudioError)
        except StudioError as error:
            yield Trouble(str(error))
            return
        if header.metadata.get("modelspec.thumbnail", "").startswith("data:image/"):
            yield Trouble(
                f"The picture of the style {name} is gone.",
                "It was taken from the style's file again.",
                lambda: _unpacked(header, file.parent),
            )

    def _pictures(self, database: Database) -> Iterator[Trouble]:
        gone = [
            (row["job"], row["ordinal"])
            for row in database.all("SELECT job, ordinal, file FROM pictures")
            if not (self._home.path / row["file"]).is_file()
        ]
        if gone:
            yield Trouble(
                f"{_count(len(gone), 'picture')} of the gallery {'is' if len(gone) == 1 else 'are'} gone.",
                "They were struck from the gallery.",
                lambda: [database.write("DELETE FROM pictures WHERE job = ? AND ordinal = ?", key) for key in gone],
            )
        jobs = {row[0] for row in database.all("SELECT id FROM jobs")}
        shown = {str(row[0]).split("/")[1] for row in database.all("SELECT file FROM pictures") if "/" in str(row[0])}
        loose = [
            path for path in _folders(self._home.previews) if path.name not in jobs | shown and not self._is_new(path)
        ]
        if loose:
            yield Trouble(
                f"{_count(len(loose), 'folder')} of pictures {'belongs' if len(loose) == 1 else 'belong'} to no job.",
                "Removed.",
                partial(_removed, loose),
            )

    # ---- what was left behind

    def _left_over(self) -> Iterator[Trouble]:
        loose = [path for path in self._scratch() if path.exists() and not self._is_new(path)]
        if loose:
            yield Trouble(
                f"{_count(len(loose), 'half-written file')} {'was' if len(loose) == 1 else 'were'} left behind, "
                f"such as {loose[0]}.",
                "Removed.",
                partial(_removed, loose),
            )
        old = sum(1 for _ in old_uploads(self._home))
        if old:
            yield Trouble(
                f"{_count(old, 'upload')} {'was' if old == 1 else 'were'} never taken in.",
                "Removed.",
                lambda: remove_old_uploads(self._home),
            )
        if self._home.opened_file.is_file() and not _said_by_somebody(self._home.opened_file):
            yield Trouble(
                "A studio that did not end in order left its note behind.",
                "Removed.",
                lambda: self._home.opened_file.unlink(missing_ok=True),
            )

    def _scratch(self) -> Iterator[Path]:
        # An import leaves its half beside the folder that it was to become.
        yield from self._home.path.parent.glob(f".{self._home.path.name[:100]}.????????.import")
        exporting = time.time() - UPLOAD_SECONDS
        for path in self._home.path.glob(".export-*"):
            if path.stat().st_mtime < exporting:
                yield path
        places = [*_folders(self._home.styles), *_folders(self._home.previews), self._home.path]
        for run in map(RunFolder, _folders(self._home.runs)):
            if not run.is_held():
                places += [run.path, run.samples, run.images, run.checkpoints, run.cache, *_folders(run.cache)]
        for place in places:
            for path in place.glob(".*") if place.is_dir() else ():
                if _LEFT_OVER.fullmatch(path.name) and not path.name.startswith(".export-"):
                    yield path

    def _is_new(self, path: Path) -> bool:
        try:
            return self._in_use and time.time() - path.stat().st_mtime < WORK_SECONDS
        except OSError:
            return True

    def _lost(self, path: Path, said: str) -> Trouble:
        if not any(each.is_file() for each in path.rglob("*")):
            return Trouble(said, "It was empty and is removed.", lambda: shutil.rmtree(path, ignore_errors=True))
        target = self._home.trash / "lost" / path.name
        return Trouble(said, f"It was moved to {target}.", lambda: _moved(path, target))


def old_uploads(home: StudioFolder) -> Iterator[Path]:
    """What was uploaded and not taken in, or offered and not fetched, for a day."""
    before = time.time() - UPLOAD_SECONDS
    uploads = home.path / "uploads"
    for folder, _, files in os.walk(uploads):
        for name in files:
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                if max(path.stat().st_mtime, path.stat().st_ctime) < before:
                    yield path


def remove_old_uploads(home: StudioFolder) -> None:
    """Remove `old_uploads`, and folders that are empty then."""
    for path in list(old_uploads(home)):
        with contextlib.suppress(OSError):
            path.unlink()
    for folder, _, _ in os.walk(home.path / "uploads", topdown=False):
        with contextlib.suppress(OSError):
            if time.time() - Path(folder).stat().st_mtime > UPLOAD_SECONDS and Path(folder).name != "uploads":
                Path(folder).rmdir()


def _said_by_somebody(note: Path) -> bool:
    try:
        return psutil.pid_exists(int(json.loads(note.read_text(encoding="utf-8"))["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(each for each in path.iterdir() if each.is_dir() and not each.is_symlink())


def _size(path: Path) -> int:
    """Bytes of all files below a folder; a file with two names counts twice."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def _moved(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    caption = source.with_suffix(".txt")
    if source.suffix == ".png" and caption.is_file():
        caption.replace(target.with_suffix(".txt"))


def _unpacked(header: Header, folder: Path) -> None:
    if not unpack_thumbnail(header, folder):
        raise OSError("the picture in the file cannot be opened")


def _removed(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def list_of(home: StudioFolder, *, mend: bool) -> tuple[Database | None, list[Trouble]]:
    """The list of a studio folder that nobody has open, and what is wrong with its file.

    Args:
        mend: open it for repairs; otherwise it is read as it is.
    """
    if not home.database.is_file():
        return None, []
    try:
        return Database(home.database, read_only=not mend), []
    except StudioError as error:
        if "later version" in str(error):
            raise
    if not mend:
        return None, [Trouble(f"The list {home.database} cannot be read.", "It would be moved away.")]
    aside = home.path / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}.sqlite3"
    home.database.replace(aside)
    for name in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            Path(f"{home.database}{name}").unlink()
    said = f"The list {home.database} could not be read."
    return None, [
        Trouble(said, f"It was moved to {aside}; the next studio makes a new one of the runs' folders.", lambda: None)
    ]
