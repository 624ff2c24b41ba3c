"""Patina's library: from a folder of images to a style file for Stable Diffusion.

>>> from trainer import Bank, RunConfig, attach, generate, load_base, read_style, train

Everything raises `PatinaError`, whose message is a sentence for whoever has to mend it. The names load when they are
first used, so that importing this package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.version import __version__

if TYPE_CHECKING:
    from trainer.adapters.bank import Bank
    from trainer.config import RunConfig
    from trainer.errors import PatinaError
    from trainer.public import generate, load_base, train
    from trainer.styles.fit import attach
    from trainer.styles.read import read_style
    from trainer.styles.write import write_style

_HOME = {
    "Bank": "trainer.adapters.bank",
    "PatinaError": "trainer.errors",
    "RunConfig": "trainer.config",
    "attach": "trainer.styles.fit",
    "generate": "trainer.public",
    "load_base": "trainer.public",
    "read_style": "trainer.styles.read",
    "train": "trainer.public",
    "write_style": "trainer.styles.write",
}

__all__ = [
    "Bank",
    "PatinaError",
    "RunConfig",
    "__version__",
    "attach",
    "generate",
    "load_base",
    "read_style",
    "train",
    "write_style",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
