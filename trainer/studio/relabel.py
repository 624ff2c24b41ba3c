"""Giving a style file another title without touching its weights (and without torch).

A safetensors file is eight bytes with the header's length, the header (JSON), and the tensors, whose places the header
counts from its own end; so a header of another length moves nothing that it names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from trainer.atomic import replace_file
from trainer.errors import AdapterFileError

TITLE_KEYS = ("ss_output_name", "modelspec.title")
_LARGEST_HEADER = 100_000_000  # bytes; the format's own limit


def copy_titled(source: Path, target: Path, title: str) -> None:
    """Write ``source`` as ``target`` with ``title`` in its metadata; the hash of its weights stays the same.

    Raises:
        AdapterFileError: the source is missing, is no safetensors file, or the copy cannot be written.
    """
    try:
        with source.open("rb") as reader:
            length = int.from_bytes(reader.read(8), "little")
            if not 2 <= length <= _LARGEST_HEADER:
                raise ValueError("no header")
            header: dict[str, Any] = json.loads(reader.read(length))
            metadata = {**(header.pop("__metadata__", None) or {}), **dict.fromkeys(TITLE_KEYS, title)}
            text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
            # Readers map the tensors into memory, which wants them aligned.
            text += b" " * (-len(text) % 8)
            target.parent.mkdir(parents=True, exist_ok=True)

            def write(file: Any) -> None:
                file.write(len(text).to_bytes(8, "little") + text)
                shutil.copyfileobj(reader, file, 1 << 20)

            replace_file(target, write)
    except (ValueError, AttributeError):
        raise AdapterFileError(f"{source} is no safetensors file; the style cannot be read.") from None
    except OSError as error:
        raise AdapterFileError(f"{source.name} cannot be copied ({error.strerror or error}).") from None
