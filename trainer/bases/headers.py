"""The header of a safetensors file, read without its weights (and without torch).

Format: eight bytes little-endian length, then that many bytes of JSON: tensor name to ``dtype``, ``shape`` and
``data_offsets``, plus ``__metadata__`` with strings. Source: the safetensors format description.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import BaseError

_LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
_PICKLE_ENDINGS = {".ckpt", ".pt", ".pth", ".bin"}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself.

    Attributes:
        shapes: tensor name to shape.
        dtypes: tensor name to the format's type name, such as ``F16``.
        metadata: the strings beside the tensors.
        size: of the whole file, bytes.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    size: int

    def parameters(self, *prefixes: str) -> int:
        """Number of values in the tensors whose names start with one of ``prefixes``."""
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name.startswith(prefixes))

    def has(self, *prefixes: str) -> bool:
        """Whether any tensor's name starts with one of ``prefixes``."""
        return any(name.startswith(prefixes) for name in self.shapes)


def read_header(path: Path) -> Header:
    """Read and check a header.

    Raises:
        BaseError: the file is missing, is a pickle, is cut short, or is no safetensors file.
    """
    refuse_pickle(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= min(_LARGEST_HEADER, size - 8) else b""
    except FileNotFoundError:
        raise BaseError(f"{path} does not exist.") from None
    except OSError as error:
        raise BaseError(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        entries = json.loads(text)
        metadata = {str(k): str(v) for k, v in (entries.pop("__metadata__", None) or {}).items()}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in entries.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BaseError(f"{path} is no safetensors file, or only its beginning was downloaded.") from None
    if size < 8 + length + end:
        missing = (8 + length + end - size) / 1e6
        raise BaseError(f"{path} is cut short: {missing:.1f} MB are missing. Download it again.")
    return Header(shapes, dtypes, metadata, size)


def refuse_pickle(path: Path) -> None:
    """Refuse file types that can run code when they are opened.

    Raises:
        BaseError: the name ends like a pickled checkpoint.
    """
    if path.suffix.lower() in _PICKLE_ENDINGS:
        raise BaseError(
            f"{path} is a pickled checkpoint, which can run code when it is opened; Patina reads only .safetensors. "
            "Most models are offered in that format too; look for it where you found this one."
        )
