"""Files that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_SCRATCH = re.compile(r"\.[0-9a-f]{16}\.[0-9a-f]{32}")


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Give `path` the content that `write` puts into a file beside it, in one step.

    The content is on the disk before the name points to it; a reader sees the old file or the new.

    Raises:
        OSError: the folder is missing, full or may not be written.
        Exception: whatever `write` raises; `path` is then as it was.
    """
    # Not tempfile's, which only its owner could read after the move.
    scratch = path.with_name(f"{_scratch_prefix(path)}{uuid.uuid4().hex}")
    try:
        with scratch.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_folder(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """`replace_file` with a content that is at hand."""
    replace_file(path, lambda file: file.write(content))


def sync_folder(path: Path) -> None:
    """Make renames in a folder last through a power cut; a no-op where the system cannot (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of any file in `folder`; only where nobody else writes meanwhile."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _SCRATCH.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _scratch_prefix(path: Path) -> str:
    """Hidden, and short however long the file's own name is."""
    return f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}."
