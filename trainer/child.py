"""Our own modules as processes: found wherever this package lies, and never taken from where the user stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SPINS = "10000"
"""How often OpenMP's threads look whether the others have come before they sleep, unless the user says otherwise.

libgomp's own choice is so high that a thread whose partner has to wait for a core burns its whole slice of time; on a
machine with other work that makes a training many times slower (``python -m benchmarks.spinning``).
"""


def spins() -> dict[str, str]:
    """What libgomp is to be told, unless the user has; it reads that when torch is first imported."""
    return {} if os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} else {"GOMP_SPINCOUNT": SPINS}


def start(module: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run a module of ours in a fresh Python, as ``python -m`` does.

    Args:
        module: dotted name.
        options: as `subprocess.Popen` takes them, ``env`` being `environment` unless it is given; pipes carry bytes.

    Raises:
        OSError: the system starts no more processes.
    """
    # -P: a folder named as ours is, where the user stands, must not be taken for it.
    return subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], **{"env": environment(), **options})


def environment() -> dict[str, str]:
    """This process's environment, in which our packages are found where they lie, installed or not."""
    root = Path(__file__).resolve().parents[1]
    if root.name in {"site-packages", "dist-packages"}:
        return {**os.environ, **spins()}
    paths = (str(root), os.environ.get("PYTHONPATH"))
    return {**os.environ, **spins(), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
