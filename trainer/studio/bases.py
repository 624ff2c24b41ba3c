"""What the bases are that drafts name, asked without loading one and remembered for a while."""

from __future__ import annotations

import threading
import time

from trainer.bases.describe import BaseInfo, describe
from trainer.config import RunConfig

KNOWN_SECONDS = 60.0
PROBLEM_KNOWN_SECONDS = 5.0


class Bases:
    """Bases by source, revision and variant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str | None, str | None], tuple[float, BaseInfo]] = {}

    def check(self, source: str, revision: str | None = None, variant: str | None = None) -> BaseInfo:
        """What a base is, or what is wrong with it, without loading it; may ask the network for a hub id.

        Asked again after a minute, or after seconds when something was wrong with it.
        """
        key = (source, revision, variant)
        with self._lock:
            known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        info = describe(source, revision=revision, variant=variant)
        lasts = KNOWN_SECONDS if info.problem is None else PROBLEM_KNOWN_SECONDS
        with self._lock:
            self._known[key] = (time.monotonic() + lasts, info)
        return info

    def of(self, config: RunConfig) -> BaseInfo:
        """The base of a run."""
        return self.check(config.base.source, config.base.revision, config.base.variant)
