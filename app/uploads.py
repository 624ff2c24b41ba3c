"""Files that a page says it has sent: believed only where they lie in the folder that uploads arrive in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def arrived(files: Iterable[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Those of the files that did arrive; ``folder`` is where uploads do."""
    paths = [Path(str(entry.get("path", ""))).resolve() for entry in files]
    return [path for path in paths if path.is_relative_to(folder.resolve()) and path.is_file()]
