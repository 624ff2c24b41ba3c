"""The safetensors format, read with care and without torch, and written byte for byte the same every time.

Layout: 8 bytes little-endian length n, n bytes of JSON, then the tensors' bytes. The JSON maps each name to its
``dtype``, ``shape`` and ``data_offsets``, and ``__metadata__`` to a flat map of strings. As in the safetensors package,
the tensors must fill the rest of the file without a gap or an overlap, so what is read never exceeds the file's size.
(That package writes metadata in a random order, so two saves of one adapter differ; hence a writer of our own.)

Source: the format's description in the safetensors repository.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from trainer.atomic import replace_file
from trainer.errors import PatinaError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20
"""Bytes. A checkpoint of SDXL has 0.4 MB; thumbnails and tag lists make some styles' headers a few MB."""
MAX_TENSORS = 100_000
MAX_NAME = 500
"""Characters of a tensor's name."""
MAX_DIMENSIONS = 16

HASH_KEY = "sshs_model_hash"
"""Metadata key, as kohya and A1111 have it, for the SHA-256 of the bytes after the header."""
LEGACY_HASH_KEY = "sshs_legacy_hash"
"""kohya's older hash: of 64 KiB at the second MiB of the file with its ``ss_`` keys alone, 8 digits."""
SPEC_HASH_KEY = "modelspec.hash_sha256"
"""The same as `HASH_KEY` with ``0x`` in front, in files that follow the ModelSpec standard."""

# The format's types: bits of one value, and torch's name where torch has the type.
_TYPES: Mapping[str, tuple[int, str | None]] = {
    "F64": (64, "float64"),
    "F32": (32, "float32"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E8M0": (8, None),
    "F8_E4M3FNUZ": (8, None),
    "F8_E5M2FNUZ": (8, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, None),
    "C64": (64, "complex64"),
    "I64": (64, "int64"),
    "I32": (32, "int32"),
    "I16": (16, "int16"),
    "I8": (8, "int8"),
    "U64": (64, None),
    "U32": (32, None),
    "U16": (16, None),
    "U8": (8, "uint8"),
    "BOOL": (8, "bool"),
}
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_PICKLE_ENDINGS = {".ckpt", ".pt", ".pth", ".bin"}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: the format's name of its type, its shape, and where its bytes lie after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its first tensor.

    Attributes:
        metadata: strings that somebody else wrote; only their being text is certain.
        offset: where the tensors begin, in bytes.
        size: of the whole file, bytes.
    """

    path: Path
    metadata: dict[str, str]
    entries: dict[str, Entry]
    offset: int
    size: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name to shape."""
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Tensor name to the format's name of its type, such as ``F16``."""
        return {name: entry.dtype for name, entry in self.entries.items()}

    def parameters(self, *prefixes: str) -> int:
        """Number of values in the tensors whose names start with one of ``prefixes``."""
        return sum(math.prod(entry.shape) for name, entry in self.entries.items() if name.startswith(prefixes))

    def has(self, *prefixes: str) -> bool:
        """Whether any tensor's name starts with one of ``prefixes``."""
        return any(name.startswith(prefixes) for name in self.entries)


def read_header(path: Path, raises: type[PatinaError]) -> Header:
    """Read and check a header; no tensor is touched, and no other file type is opened.

    Args:
        raises: the error for whoever asked, such as `trainer.errors.BaseError`.

    Raises:
        PatinaError: as ``raises``: the file is missing, of another format, cut short or inconsistent.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
            _refuse_other_formats(path, head, size, raises)
            length = int.from_bytes(head[:8], "little")
            if length < 2 or head[8:9] != b"{" or length > max(size, MAX_HEADER):
                raise raises(f"{path} is not a safetensors file, or only its beginning was downloaded.")
            if length > MAX_HEADER:
                raise raises(
                    f"{path} has a header of {length / 2**20:.0f} MiB; at most {MAX_HEADER // 2**20} MiB are read."
                )
            if 8 + length > size:
                raise raises(f"{path} is cut short: its header alone should be {length} bytes. Get it again.")
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError:
        raise raises(f"There is no file {path}.") from None
    except OSError as error:
        raise raises(f"{path} cannot be read: {error.strerror or error}.") from None
    return _parse(path, raw, size, raises)


def read_tensors(header: Header, names: Iterable[str] | None = None, *, raises: type[PatinaError]) -> dict[str, Tensor]:
    """Load tensors of a file into memory, all of them when ``names`` is None, in the types of the file.

    Raises:
        PatinaError: as ``raises``: the file cannot be read any more, or a tensor has a type that torch does not have.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    try:
        with header.path.open("rb") as file:
            for name in header.entries if names is None else names:
                entry = header.entries[name]
                known = _TYPES[entry.dtype][1]
                if known is None:
                    raise raises(f"{header.path} keeps {name} as {entry.dtype}, which cannot be read here.")
                dtype: torch.dtype = getattr(torch, known)
                file.seek(header.offset + entry.start)
                data = bytearray(file.read(entry.stop - entry.start))
                if len(data) != entry.stop - entry.start:
                    raise raises(f"{header.path} was changed while it was read; try again.")
                flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
                tensors[name] = flat.reshape(entry.shape)
    except OSError as error:
        raise raises(f"{header.path} cannot be read: {error.strerror or error}.") from None
    return tensors


def hash_of_tensors(header: Header) -> str:
    """SHA-256 over a file's bytes after the header, hexadecimal, as kohya and A1111 compute it.

    It tells the weights alone, whatever a tool has written into the metadata since.
    """
    digest = hashlib.sha256()
    with header.path.open("rb") as file:
        file.seek(header.offset)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file atomically: whoever looks sees the old file or the whole new one.

    The same tensors and metadata give the same bytes. The hashes above are added to the metadata.

    Raises:
        OSError: the folder is missing, full or may not be written.
    """
    names = {known: name for name, (_, known) in _TYPES.items() if known is not None}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Entry] = {}
    blocks: list[bytes] = []
    digest = hashlib.sha256()
    position = 0
    for name in order:
        block = _bytes_of(tensors[name])
        dtype = names[str(tensors[name].dtype).removeprefix("torch.")]
        entries[name] = Entry(dtype, tuple(tensors[name].shape), position, position + len(block))
        position += len(block)
        digest.update(block)
        blocks.append(block)
    hashes = {HASH_KEY: digest.hexdigest(), LEGACY_HASH_KEY: _legacy_hash(metadata, entries, blocks)}
    if any(key.startswith("modelspec.") for key in metadata):
        hashes[SPEC_HASH_KEY] = f"0x{digest.hexdigest()}"
    head = _spelled({**metadata, **hashes}, entries)
    replace_file(path, lambda file: file.writelines([head, *blocks]))


def _legacy_hash(metadata: Mapping[str, str], entries: Mapping[str, Entry], blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    start, stop, position = 1 << 20, (1 << 20) + (1 << 16), 0
    own = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    for block in (_spelled(own, entries), *blocks):
        digest.update(block[max(0, start - position) : max(0, stop - position)])
        position += len(block)
    return digest.hexdigest()[:8]


def copy_with_metadata(header: Header, target: Path, changes: Mapping[str, str]) -> None:
    """Write a file again with other metadata and the very same tensors; atomically, as `write`.

    Raises:
        OSError: the source cannot be read any more, or the target cannot be written.
    """
    head = _spelled({**header.metadata, **changes}, header.entries)

    def fill(file: BinaryIO) -> None:
        file.write(head)
        with header.path.open("rb") as source:
            source.seek(header.offset)
            shutil.copyfileobj(source, file, 1 << 20)

    replace_file(target, fill)


def copy_with_tensors(
    header: Header,
    target: Path,
    metadata: Mapping[str, str],
    changes: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    raises: type[PatinaError],
) -> None:
    """Write a file again with some tensors changed, in the same order; atomically, and one tensor in memory at a time.

    Args:
        metadata: the new file's, whole.
        changes: for each tensor that changes, what makes new values of the old ones, in the same shape and type.

    Raises:
        PatinaError: as ``raises``: a tensor that changes cannot be read.
        OSError: the source cannot be read any more, or the target cannot be written.
    """
    head = _spelled(metadata, header.entries)

    def fill(file: BinaryIO) -> None:
        file.write(head)
        with header.path.open("rb") as source:
            for name, entry in sorted(header.entries.items(), key=lambda item: (item[1].start, item[1].stop)):
                if name in changes:
                    old = read_tensors(header, [name], raises=raises)[name]
                    file.write(_bytes_of(changes[name](old).to(old.dtype).reshape(old.shape)))
                    continue
                source.seek(header.offset + entry.start)
                for start in range(entry.start, entry.stop, 1 << 20):
                    file.write(source.read(min(1 << 20, entry.stop - start)))

    replace_file(target, fill)


def _spelled(metadata: Mapping[str, str], entries: Mapping[str, Entry]) -> bytes:
    """Length and header. Readers map the tensors into memory, which wants them aligned; hence the spaces."""
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    for name, entry in entries.items():
        table[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.stop],
        }
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _refuse_other_formats(path: Path, head: bytes, size: int, raises: type[PatinaError]) -> None:
    # A safetensors file may start with these bytes too: they are then the length of its header, and JSON follows.
    other = head[8:9] != b"{"
    if (other and (head[:4] == b"PK\x03\x04" or head[:1] == b"\x80")) or path.suffix.lower() in _PICKLE_ENDINGS:
        raise raises(
            f"{path} is a pickle, which can run any program when it is opened, so it is not read; "
            "get it as .safetensors."
        )
    if size == 0:
        raise raises(f"{path} is empty.")
    if other and (head.lstrip()[:1] == b"<" or head.startswith(b"version https://")):
        raise raises(f"{path} is not a safetensors file but a web page or a pointer to it. Download it again.")
    if len(head) < 10:
        raise raises(f"{path} is not a safetensors file, or only its beginning was downloaded.")


def _parse(path: Path, raw: bytes, size: int, raises: type[PatinaError]) -> Header:
    try:
        table = json.loads(raw, object_pairs_hook=_without_doubles, parse_constant=_no_number)
        metadata = table.pop("__metadata__", None) or {}
        if len(table) > MAX_TENSORS:
            raise raises(f"{path} lists {len(table)} tensors; at most {MAX_TENSORS} are read.")
        entries = {_name(name): _entry(value) for name, value in table.items()}
        texts = {_text(key): _text(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise raises(f"{path} is not a safetensors file: its header cannot be read.") from None
    offset = 8 + len(raw)
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if (entry.stop - entry.start) * 8 != math.prod(entry.shape) * _TYPES[entry.dtype][0]:
            raise raises(f"{path} is damaged: {name} does not have the size that its shape says.")
        if offset + entry.stop > size:
            raise raises(
                f"{path} is cut short: {size} of at least {offset + entry.stop} bytes are there. Get it again."
            )
        if entry.start != position:
            kind = "lies over another tensor" if entry.start < position else "does not follow the tensor before it"
            raise raises(f"{path} is damaged: {name} {kind}.")
        position = entry.stop
    if offset + position != size:
        raise raises(f"{path} is damaged: {size - offset - position} bytes lie behind its last tensor.")
    return Header(path, texts, entries, offset, size)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _entry(value: dict[str, Any]) -> Entry:
    start, stop = value["data_offsets"]
    shape = tuple(value["shape"])
    # Neither 4.0 nor true is a size, though both would pass for one.
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{shape} from {start} to {stop} is no tensor")
    if value["dtype"] not in _TYPES:
        raise ValueError(f"{value['dtype']} is no type of the format")
    return Entry(value["dtype"], shape, start, stop)


def _name(name: str) -> str:
    """Names end up in sentences and file listings, so they must be short and consist of visible characters."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError("no name")
    return name


def _text(value: str) -> str:
    """Half of a surrogate pair is a string to JSON but no text to a database; controls would reach a terminal."""
    if not isinstance(value, str):
        raise TypeError("metadata are strings")
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").translate(_CONTROLS)
