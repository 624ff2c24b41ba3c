"""Adapter files as the library needs them: what is in one, and the same style in another layout or under another name.

This module needs torch; the worker runs it on the app's request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import FileLayout
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.write import write_style


def inspect(path: Path) -> dict[str, Any]:
    """Everything that can be said of a file without its base, as plain data.

    Raises:
        AdapterFileError: it is no adapter that can be used here.
    """
    read_style(path)
    return inspect_file(path).to_dict()


def convert(source: Path, target: Path, layout: FileLayout, name: str) -> dict[str, Any]:
    """Write a file's weights again as they are (same number format), titled ``name``.

    Raises:
        AdapterFileError: the source cannot be read.
    """
    file = read_style(source)
    metadata = {**file.metadata, "ss_output_name": name, "modelspec.title": name}
    dtype = next(iter(file.layers.values())).down.dtype
    target.parent.mkdir(parents=True, exist_ok=True)
    write_style(target, file.layers, layout=layout, metadata=metadata, dtype=dtype)
    return {"path": str(target)}
