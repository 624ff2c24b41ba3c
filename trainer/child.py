"""Our own modules as processes: found wherever this package lies, and never taken from where the user stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(module: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run a module of ours in a fresh Python, as ``python -m`` does.

    Args:
        module: dotted name.
        options: as `subprocess.Popen` takes them; pipes carry bytes.

    Raises:
        OSError: the system starts no more processes.
    """
    # -P: a folder named as ours is, where the user stands, must not be taken for it.
    return subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], env=environment(), **options)


def environment() -> dict[str, str]:
    """This process's environment, in which our packages are found where they lie, installed or not."""
    root = Path(__file__).resolve().parents[1]
    if root.name in {"site-packages", "dist-packages"}:
        return dict(os.environ)
    paths = (str(root), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
