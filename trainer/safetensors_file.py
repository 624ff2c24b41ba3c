"""The safetensors container, read with care and written byte for byte the same every time.

Layout: 8 bytes little-endian length n, n bytes of JSON, then the tensors' bytes. The JSON maps each name to its
``dtype``, ``shape`` and ``data_offsets``, and ``__metadata__`` to a flat map of strings. (The safetensors package
writes metadata in a random order, so two saves of one adapter differ; hence a writer of our own.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.atomic import replace_file
from trainer.errors import AdapterFileError

# The limit of the safetensors package itself: 100 million bytes.
MAX_HEADER = 100_000_000

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type, shape, and where its bytes lie after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its first tensor; ``offset`` is where the tensors begin, in bytes."""

    path: Path
    metadata: dict[str, str]
    entries: dict[str, Entry]
    offset: int


def read_header(path: Path) -> Header:
    """Read and check a safetensors header; no tensor is touched.

    Raises:
        AdapterFileError: the file is missing, of another format, cut short or inconsistent.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
            _refuse_other_formats(path, head, size)
            length = int.from_bytes(head[:8], "little")
            if length > MAX_HEADER or length < 2 or head[8:9] != b"{":
                raise AdapterFileError(f"{path} is not a safetensors file.")
            if 8 + length > size:
                raise AdapterFileError(f"{path} is cut short: its header alone should be {length} bytes. Get it again.")
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError:
        raise AdapterFileError(f"There is no file {path}.") from None
    except OSError as error:
        raise AdapterFileError(f"{path} cannot be read: {error.strerror or error}.") from None
    return _parse(path, raw, size)


def read_tensors(header: Header, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Load tensors of a file into memory, all of them when ``names`` is None."""
    tensors: dict[str, Tensor] = {}
    try:
        with header.path.open("rb") as file:
            for name in header.entries if names is None else names:
                entry = header.entries[name]
                file.seek(header.offset + entry.start)
                data = bytearray(file.read(entry.stop - entry.start))
                flat = torch.frombuffer(data, dtype=entry.dtype) if data else torch.empty(0, dtype=entry.dtype)
                tensors[name] = flat.reshape(entry.shape)
    except OSError as error:
        raise AdapterFileError(f"{header.path} cannot be read: {error.strerror or error}.") from None
    return tensors


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically: whoever looks sees the old file or the whole new one.

    The same tensors and metadata give the same bytes. ``sshs_model_hash`` is added to the metadata.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    table: dict[str, Any] = {}
    blocks: list[bytes] = []
    digest = hashlib.sha256()
    position = 0
    for name in order:
        block = _bytes_of(tensors[name])
        stop = position + len(block)
        table[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [position, stop],
        }
        position = stop
        digest.update(block)
        blocks.append(block)
    named = {**metadata, "sshs_model_hash": digest.hexdigest()}
    header = {"__metadata__": dict(sorted(named.items())), **table}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    replace_file(path, lambda file: file.writelines([len(text).to_bytes(8, "little"), text, *blocks]))


def _bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _refuse_other_formats(path: Path, head: bytes, size: int) -> None:
    # A safetensors file may start with these bytes too: they are then the length of its header, and JSON follows.
    looks_pickled = head[8:9] != b"{" and (head[:4] == b"PK\x03\x04" or head[:1] == b"\x80")
    if looks_pickled or path.suffix.lower() in {".ckpt", ".pt", ".pth", ".bin"}:
        raise AdapterFileError(
            f"{path} is a pickle, which can run any program when it is opened, so it is not read; "
            "get the style as .safetensors."
        )
    if size == 0:
        raise AdapterFileError(f"{path} is empty.")
    if head.lstrip()[:1] == b"<" or head.startswith(b"version https://"):
        raise AdapterFileError(
            f"{path} is not a safetensors file but a web page or a pointer to it. Download it again."
        )
    if len(head) < 10:
        raise AdapterFileError(f"{path} is not a safetensors file.")


def _parse(path: Path, raw: bytes, size: int) -> Header:
    try:
        table = json.loads(raw)
        metadata = table.pop("__metadata__", None) or {}
        entries = {name: _entry(value) for name, value in table.items()}
        texts = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise AdapterFileError(f"{path} is not a safetensors file: its header cannot be read.") from None
    offset = 8 + len(raw)
    for name, entry in entries.items():
        count = 1
        for side in entry.shape:
            count *= side
        if entry.start < 0 or entry.stop - entry.start != count * entry.dtype.itemsize:
            raise AdapterFileError(f"{path} is damaged: {name} does not have the size that its shape says.")
        if offset + entry.stop > size:
            raise AdapterFileError(
                f"{path} is cut short: {size} of at least {offset + entry.stop} bytes are there. Get it again."
            )
    return Header(path, texts, entries, offset)


def _entry(value: dict[str, Any]) -> Entry:
    start, stop = value["data_offsets"]
    shape = tuple(int(side) for side in value["shape"])
    if any(side < 0 for side in shape):
        raise ValueError(f"negative side in {shape}")
    return Entry(_DTYPES[value["dtype"]], shape, int(start), int(stop))
