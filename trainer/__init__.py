"""Patina's library: from a folder of images to a style file for Stable Diffusion.

The public names load when they are first used, so that importing this package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PatinaError": "trainer.errors",
    "RunConfig": "trainer.config",
}

__all__ = ["PatinaError", "RunConfig"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
