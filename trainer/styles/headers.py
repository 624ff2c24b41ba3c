"""What stands in the headers of many style files, read once and again only when a file changes."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header, hash_of_tensors, read_header

KEPT_FILES = 512
_Identity = tuple[Path, int, int]


class Headers:
    """Headers and hashes of the files that were asked for last."""

    def __init__(self) -> None:
        self._headers: OrderedDict[_Identity, Header] = OrderedDict()
        self._weights: OrderedDict[_Identity, str] = OrderedDict()

    def of(self, file: Path) -> Header | None:
        """A file's header; None when it is gone or no safetensors file."""
        try:
            key = _identity(file)
            if key not in self._headers:
                self._headers[key] = read_header(file, AdapterFileError)
                _forget_oldest(self._headers)
            return self._headers[key]
        except (OSError, AdapterFileError, KeyError):
            return None

    def weights(self, file: Path) -> str:
        """SHA-256 over a file's tensors, which tells the weights whatever is written around them; empty without one."""
        header = self.of(file)
        if header is None:
            return ""
        try:
            key = _identity(file)
            if key not in self._weights:
                self._weights[key] = hash_of_tensors(header)
                _forget_oldest(self._weights)
            return self._weights[key]
        except (OSError, KeyError):
            return ""


def _identity(file: Path) -> _Identity:
    status = file.stat()
    return file, status.st_mtime_ns, status.st_size


def _forget_oldest(kept: OrderedDict[_Identity, Header] | OrderedDict[_Identity, str]) -> None:
    while len(kept) > KEPT_FILES:
        kept.popitem(last=False)
