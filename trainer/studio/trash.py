"""The trash: deleted runs and styles, which can be taken back for thirty days."""

from __future__ import annotations

import time

from trainer.studio.library import Library
from trainer.studio.preferences import Preferences
from trainer.studio.runs import Runs

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long what was deleted can be taken back."""
GAP_SECONDS = 7 * 24 * 3600.0
"""A studio that was not opened for so long leaves its trash alone for as long again."""


class Trash:
    """Both kinds of deleted things, and when they go for good.

    After a gap between two starts the clock may have jumped, or someone comes back from a holiday: then nothing is
    removed until the studio has been there for a while.
    """

    def __init__(self, preferences: Preferences, runs: Runs, library: Library) -> None:
        self._preferences = preferences
        self._runs = runs
        self._library = library

    def items(self) -> list[tuple[str, str, float]]:
        """(id, name, when it was deleted in Unix time), the last deleted first."""
        return sorted([*self._runs.trashed(), *self._library.trashed()], key=lambda item: -item[2])

    def empty(self, before: float | None = None) -> None:
        """Remove for good what was deleted before a time; None is all of it."""
        limit = time.time() if before is None else before
        self._runs.empty_trash(limit)
        self._library.empty_trash(limit)

    def tidy_up(self) -> None:
        """At a start: remove what is old, unless the studio was away for long; see `GAP_SECONDS`."""
        now = time.time()
        last, rests_until = self._preferences.trash_times() or (now, 0.0)
        if not 0 <= now - last <= GAP_SECONDS:
            rests_until = now + GAP_SECONDS
        # A clock that is set back must not make it rest for years.
        rests_until = min(rests_until, now + GAP_SECONDS)
        self._preferences.keep_trash_times(now, rests_until)
        if now >= rests_until:
            self.empty(now - KEPT_SECONDS)
