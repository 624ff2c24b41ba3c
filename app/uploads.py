"""Files that a page says it has sent: believed only where they lie in the folder that uploads arrive in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def arrived(files: Iterable[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Those of the files that did arrive; ``folder`` is where uploads do."""
    paths = [_path(entry) for entry in files]
    return [path for path in paths if path.is_relative_to(folder.resolve()) and path.is_file()]


def folders_of(files: Iterable[Mapping[str, Any]]) -> dict[Path, str]:
    """By file, the name of the folder that it lay in where it came from; for those that say so."""
    return {_path(entry): str(entry["folder"]) for entry in files if entry.get("folder")}


def _path(entry: Mapping[str, Any]) -> Path:
    return Path(str(entry.get("path", ""))).resolve()
