"""Who works on what: leases that end with the process that holds them.

A process is named by host, pid and start time, since pids are used again. On the same host a lease holds as long as
that very process lives, however long it was asleep (a closed laptop); only for an owner on another host, whose
processes cannot be seen (a shared folder, a container), the age of the heartbeat decides.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from functools import cache

import psutil

from trainer.studio.database import Database

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0


@dataclass(frozen=True)
class Owner:
    """A process on a host; ``started`` in Unix seconds."""

    host: str
    pid: int
    started: float

    def alive(self, heartbeat: float) -> bool:
        """Whether this process still lives, as far as can be told from here."""
        if self.host != platform.node():
            return time.time() - heartbeat < STALE_SECONDS
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 2.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


@cache
def _owner_of(pid: int) -> Owner:
    return Owner(platform.node(), pid, psutil.Process(pid).create_time())


def this_process() -> Owner:
    """The owner that the calling process is."""
    import os

    return _owner_of(os.getpid())


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and what they said about themselves (an address, say)."""

    owner: Owner
    detail: str


class Leases:
    """Leases by name, such as ``studio`` or ``run:<id>``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def take(self, name: str, owner: Owner, detail: str = "") -> Holder | None:
        """Take a lease that is free, is ours already, or whose owner is dead; otherwise return its holder."""
        with self._db.transaction():
            holder = self.holder(name)
            if holder is not None and holder.owner != owner:
                return holder
            self._db.write(
                "INSERT OR REPLACE INTO leases (name, host, pid, started, heartbeat, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (name, owner.host, owner.pid, owner.started, time.time(), detail),
            )
        return None

    def holder(self, name: str) -> Holder | None:
        """The living holder of a lease."""
        row = self._db.one("SELECT * FROM leases WHERE name = ?", (name,))
        if row is None:
            return None
        owner = Owner(row["host"], row["pid"], row["started"])
        return Holder(owner, row["detail"]) if owner.alive(row["heartbeat"]) else None

    def beat(self, owner: Owner) -> None:
        """Say that the owner lives; wanted every `HEARTBEAT_SECONDS`."""
        self._db.write(
            "UPDATE leases SET heartbeat = ? WHERE host = ? AND pid = ? AND started = ?",
            (time.time(), owner.host, owner.pid, owner.started),
        )

    def give_back(self, name: str, owner: Owner) -> None:
        """End a lease, if it is the owner's."""
        self._db.write(
            "DELETE FROM leases WHERE name = ? AND host = ? AND pid = ? AND started = ?",
            (name, owner.host, owner.pid, owner.started),
        )
