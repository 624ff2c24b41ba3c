"""Waiting for what another thread, process or page does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
PATIENCE = 240.0
"""Seconds that anything may take: the machine may be busy with other tests."""


def until(true: Callable[[], T], what: str = "", seconds: float = PATIENCE, every: float = 0.05) -> T:
    """The first true answer; without one the test fails after ``seconds``, naming ``what``."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() >= end:
            pytest.fail(f"waited {seconds:.0f} s in vain{': ' if what else ''}{what}")
        time.sleep(every)
    return answer
