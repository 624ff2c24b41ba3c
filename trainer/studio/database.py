"""The studio's SQLite file: its schema, how an older one is brought up to date, and how transactions are made.

The file is shared by the app and its worker (write-ahead log, so that readers never wait for a writer);
within a process one connection is shared by all threads behind a lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.errors import DiskFull, StudioError

# Entry i brings a file from version i to i + 1; entries are never changed once released, only added.
MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('draft', 'queued', 'training', 'paused', 'finished', 'failed', 'cancelled')),
        settings TEXT NOT NULL,             -- nested settings as JSON; what is absent is chosen at the start
        created REAL NOT NULL,
        updated REAL NOT NULL,
        position REAL,                      -- place in the queue; NULL unless queued
        wish TEXT NOT NULL DEFAULT '' CHECK (wish IN ('', 'pause', 'stop', 'cancel')),
        crashes INTEGER NOT NULL DEFAULT 0, -- deaths of the worker since the run last got further
        crash_step INTEGER NOT NULL DEFAULT -1,
        message TEXT NOT NULL DEFAULT '',   -- why it failed, for people
        trashed REAL                        -- when it was deleted; NULL while it is not
    ) STRICT;
    CREATE TABLE images (
        run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
        id TEXT NOT NULL,                   -- the file is images/<id>.png; the caption beside it <id>.txt
        name TEXT NOT NULL,                 -- the file's name as uploaded
        ordinal INTEGER NOT NULL,
        caption TEXT NOT NULL,
        removed INTEGER NOT NULL DEFAULT 0,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        source_sha256 TEXT NOT NULL,
        findings TEXT NOT NULL,             -- of the uploaded file, as JSON: its own are gone after re-encoding
        PRIMARY KEY (run, id)
    ) STRICT;
    CREATE TABLE leases (
        name TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started REAL NOT NULL,              -- when that process started: a pid alone is used again
        heartbeat REAL NOT NULL,
        detail TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE styles (                   -- files from elsewhere; the studio's own are finished runs
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        file TEXT NOT NULL,                 -- relative to the studio folder
        created REAL NOT NULL,
        facts TEXT NOT NULL,
        trashed REAL
    ) STRICT;
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('queued', 'working', 'done', 'failed', 'cancelled')),
        created REAL NOT NULL,
        request TEXT NOT NULL,
        message TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE pictures (
        job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        key TEXT NOT NULL,                  -- what decides the pixels; empty when it cannot be known
        file TEXT NOT NULL,                 -- relative to the studio folder
        PRIMARY KEY (job, ordinal)
    ) STRICT;
    CREATE INDEX pictures_by_key ON pictures(key) WHERE key != '';
    CREATE TABLE measured (                 -- what runs took on this machine, to tell the next one's time
        what TEXT PRIMARY KEY,
        seconds_per_step REAL NOT NULL,
        memory_bytes INTEGER NOT NULL,
        at REAL NOT NULL
    ) STRICT;
    """,
    """
    -- Locks of the system's own took the place of leases.
    DROP TABLE leases;
    -- SHA-256 of a style's tensors; empty where it is not known.
    ALTER TABLE styles ADD COLUMN weights TEXT NOT NULL DEFAULT '';
    CREATE TABLE past_runs (                -- what runs took on this machine, to tell the next one's time
        run TEXT PRIMARY KEY,
        kind TEXT NOT NULL,                 -- what decides how long a step takes
        seconds_per_step REAL NOT NULL,
        memory_bytes INTEGER NOT NULL,
        busy REAL NOT NULL,                 -- share of the run's own time that other programs took from it, 0 to 1
        at REAL NOT NULL
    ) STRICT;
    CREATE INDEX past_runs_by_kind ON past_runs(kind, at);
    INSERT INTO past_runs SELECT 'before ' || rowid, what, seconds_per_step, memory_bytes, 0, at FROM measured;
    DROP TABLE measured;
    """,
    """
    CREATE TABLE preferences (              -- what people told this studio to keep, as JSON
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    CREATE TABLE tags (
        style TEXT NOT NULL,                -- a run's or an imported style's id
        tag TEXT NOT NULL,
        PRIMARY KEY (style, tag)
    ) STRICT;
    """,
)


class Database:
    """One connection to the studio's file; every method may be called from any thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or make the file and bring it up to date.

        Args:
            read_only: open it as it is, of whatever version, and change nothing.

        Raises:
            StudioError: the file is no database, is damaged, or was made by a later Patina.
        """
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        try:
            address = f"file:{quote(path.absolute().as_posix())}?mode={'ro' if read_only else 'rwc'}"
            self._connection = sqlite3.connect(
                address, uri=True, timeout=20, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StudioError(f"The studio's file {path} cannot be opened: {error}.") from None
        try:
            self._connection.row_factory = sqlite3.Row
            if read_only:
                self.one("PRAGMA user_version")
                return
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if _is_full(error):
                raise DiskFull(_FULL.format(folder=path.parent)) from None
            raise StudioError(
                f"The studio's file {path} is damaged or no database ({error}). "
                "Move it away to start with an empty list; the runs' folders are kept and found again."
            ) from None
        except StudioError:
            self._connection.close()
            raise

    def _migrate(self, path: Path) -> None:
        with self.transaction():
            version = int(self.one("PRAGMA user_version")[0])
            if version > len(MIGRATIONS):
                raise StudioError(
                    f"The studio folder {path.parent} was used by a later version of Patina. "
                    "Update Patina, or set PATINA_HOME to another folder."
                )
            for script in MIGRATIONS[version:]:
                # executescript would commit first, and a half-made schema could be left behind.
                for statement in script.split(";\n"):
                    if statement.strip():
                        self.write(statement)
            self.write(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, against other processes too; one inside another joins it."""
        with self._lock:
            if self._depth:
                yield
                return
            self._execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                # SQLite ends some transactions by itself, that of a full disk among them.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; returns the number of rows it changed.

        Raises:
            DiskFull: there is no room for it; nothing is changed then.
        """
        with self._lock:
            return self._execute(statement, values).rowcount

    def all(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def one(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        with self._lock:
            return self._connection.execute(query, values).fetchone()

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise DiskFull(_FULL.format(folder=self._path.parent)) from None
            raise

    def close(self) -> None:
        """Close the connection; the object cannot be used afterwards."""
        with self._lock:
            self._connection.close()


_FULL = "The disk that holds {folder} is full. Free some space, then try again; nothing that was saved is lost."


def _is_full(error: sqlite3.Error) -> bool:
    # The write-ahead log's own files report a failed write rather than the reason for it.
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
