"""What lies in folders that people named: models to train on, and other people's styles, which are never copied."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.bases.describe import Bases
from trainer.studio.preferences import FolderKind, Preferences
from trainer.styles.headers import Headers

LASTS = 20.0
"""Seconds after which folders are looked through again."""
DEPTH = 3
MOST_FILES = 2000
_UP_PARTS = ("lora_", "hada_", "lokr_", "oft_", ".alpha", "dora_scale", "diff")
"""What names of a style's tensors hold, of whichever tool."""


class Shelves:
    """The folders' contents, looked through now and then."""

    def __init__(self, preferences: Preferences, bases: Bases) -> None:
        self._preferences, self._bases = preferences, bases
        self._headers = Headers()
        self._lock = threading.Lock()
        self._known: dict[FolderKind, tuple[float, tuple[Path, ...], list[Path]]] = {}

    def models(self) -> list[Path]:
        """Models that could be trained on: single files, and folders in diffusers' layout."""
        return self._looked("models")

    def styles(self) -> list[Path]:
        """Style files."""
        return self._looked("styles")

    def _looked(self, kind: FolderKind) -> list[Path]:
        folders = self._preferences.folders(kind)
        with self._lock:
            known = self._known.get(kind)
            if known is None or known[1] != folders or time.monotonic() > known[0] + LASTS:
                look = self._models_below if kind == "models" else self._styles_below
                found = list(dict.fromkeys(path for folder in folders for path in look(folder)))
                self._known[kind] = known = (time.monotonic(), folders, found)
            return known[2]

    def _models_below(self, folder: Path) -> Iterator[Path]:
        for path in _walk(folder):
            is_model = path.name == "model_index.json" or path.suffix == ".safetensors"
            # Parts of a folder in diffusers' layout are no models of their own.
            inside = any((parent / "model_index.json").is_file() for parent in (path.parent, path.parent.parent))
            model = path.parent if path.name == "model_index.json" else path
            if is_model and (path.name == "model_index.json" or not inside) and self._is_base(model):
                yield model

    def _is_base(self, path: Path) -> bool:
        info = self._bases.check(str(path))
        return info.family is not None and info.problem is None

    def _styles_below(self, folder: Path) -> Iterator[Path]:
        for path in _walk(folder):
            if path.suffix == ".safetensors" and self._is_style(path):
                yield path

    def _is_style(self, path: Path) -> bool:
        header = self._headers.of(path)
        return header is not None and any(part in name for name in header.shapes for part in _UP_PARTS)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, some levels deep, in the order of their names."""
    count = 0
    levels = [folder]
    for _ in range(DEPTH):
        deeper: list[Path] = []
        for level in levels:
            try:
                entries = sorted(level.iterdir())
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    deeper.append(entry)
                elif entry.is_file():
                    yield entry
                    count += 1
                    if count >= MOST_FILES:
                        return
        levels = deeper
