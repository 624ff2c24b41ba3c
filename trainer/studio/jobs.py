"""Preview jobs and the gallery: what was asked for, what came of it, and which pictures need not be made again."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from trainer.errors import StudioError
from trainer.preview.begin import NAME
from trainer.preview.order import PreviewOrder
from trainer.studio.database import Database
from trainer.studio.folder import StudioFolder
from trainer.studio.views import JobState

SHEET_NAME = "sheet.png"
KEEP_JOBS = 500
"""Older ones are removed when the studio opens, so that a slider's frames do not fill the disk."""

_NAMED = re.compile(rf'"({NAME.pattern})"')


@dataclass(frozen=True)
class JobRow:
    """A job as it is listed."""

    id: str
    state: JobState
    created: float
    order: PreviewOrder
    message: str


class Jobs:
    """Preview jobs; pictures are listed by the index of their row in the order."""

    def __init__(self, database: Database, home: StudioFolder) -> None:
        self._db = database
        self._home = home

    def add(self, job_id: str, order: PreviewOrder) -> None:
        """A new job, queued."""
        self._db.write(
            "INSERT INTO jobs (id, state, created, request) VALUES (?, 'queued', ?, ?)",
            (job_id, time.time(), order.line()),
        )

    def get(self, job_id: str) -> JobRow:
        """One job.

        Raises:
            StudioError: there is none of that id.
        """
        row = self._db.one("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if row is None:
            raise StudioError("This preview is not in the gallery any more. Make it again.")
        return JobRow(
            row["id"], row["state"], row["created"], PreviewOrder.model_validate_json(row["request"]), row["message"]
        )

    def settle(self, job_id: str, state: JobState, message: str = "") -> bool:
        """Change a job that is not over yet; returns whether it was so."""
        return bool(
            self._db.write(
                "UPDATE jobs SET state = ?, message = ? WHERE id = ? AND state IN ('queued', 'working')",
                (state, message, job_id),
            )
        )

    def add_picture(self, job_id: str, index: int, key: str, path: Path) -> None:
        """Note a picture; ``key`` is what decides its pixels, empty when that cannot be known."""
        file = path.relative_to(self._home.path).as_posix()
        self._db.write(
            # The job may have been deleted while its last picture was on the way.
            "INSERT OR REPLACE INTO pictures (job, ordinal, key, file) SELECT id, ?, ?, ? FROM jobs WHERE id = ?",
            (index, key, file, job_id),
        )

    def note_weights(self, job_id: str, weights: Sequence[str]) -> None:
        """Keep with a job which weights its styles were drawn with, one for each; none changes nothing."""
        with self._db.transaction():
            row = self._db.one("SELECT request FROM jobs WHERE id = ?", (job_id,))
            if row is None or not weights:
                return
            order = PreviewOrder.model_validate_json(row["request"]).drawn_with(weights)
            self._db.write("UPDATE jobs SET request = ? WHERE id = ?", (order.line(), job_id))

    def pictures(self, job_id: str) -> dict[int, Path]:
        """A job's pictures by index."""
        rows = self._db.all("SELECT ordinal, file FROM pictures WHERE job = ? ORDER BY ordinal", (job_id,))
        return {row["ordinal"]: self._home.path / row["file"] for row in rows}

    def made_before(self, key: str) -> Path | None:
        """A picture with that key that still lies there."""
        if not key:
            return None
        for row in self._db.all("SELECT DISTINCT file FROM pictures WHERE key = ?", (key,)):
            path = self._home.path / cast("str", row["file"])
            if path.is_file():
                return path
        return None

    def gallery(self, limit: int) -> list[str]:
        """Ids of jobs that have pictures, newest first."""
        rows = self._db.all(
            "SELECT id FROM jobs WHERE EXISTS (SELECT 1 FROM pictures WHERE job = jobs.id)"
            " ORDER BY created DESC, id DESC LIMIT ?",
            (limit,),
        )
        return [row["id"] for row in rows]

    def delete(self, job_id: str) -> None:
        """Remove a job and those of its pictures that no other job shows."""
        with self._db.transaction():
            files = {row["file"] for row in self._db.all("SELECT file FROM pictures WHERE job = ?", (job_id,))}
            self._db.write("DELETE FROM jobs WHERE id = ?", (job_id,))
            unused = [f for f in files if self._db.one("SELECT 1 FROM pictures WHERE file = ?", (f,)) is None]
        folders = {self._home.preview(job_id), *((self._home.path / file).parent for file in unused)}
        for file in unused:
            (self._home.path / file).unlink(missing_ok=True)
        for folder in folders:
            # A picture of this job may be shown by a later one, and the reverse.
            if all(path.name == SHEET_NAME for path in folder.glob("*.png")):
                shutil.rmtree(folder, ignore_errors=True)

    def tidy_up(self) -> None:
        """What an earlier studio left: open jobs are over, and only the newest `KEEP_JOBS` are kept."""
        self._db.write(
            "UPDATE jobs SET state = 'cancelled', message = 'The studio was closed before this was made.'"
            " WHERE state IN ('queued', 'working')"
        )
        for row in self._db.all("SELECT id FROM jobs ORDER BY created DESC, id DESC LIMIT -1 OFFSET ?", (KEEP_JOBS,)):
            self.delete(row["id"])
        kept = {name for (text,) in self._db.all("SELECT request FROM jobs") for name in _NAMED.findall(text)}
        for file in self._home.begun.glob("*.png"):
            if file.name not in kept:
                file.unlink(missing_ok=True)
