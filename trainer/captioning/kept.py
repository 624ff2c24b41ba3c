"""What models said of images, kept so that no image is looked at twice; style words are left out afterwards."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from trainer.atomic import write_file
from trainer.captioning.writers import Length, Writer


class Kept:
    """A folder with a small file for each image, model and length; it may be deleted at any time.

    Args:
        folder: made when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, image: str, writer: Writer, length: Length) -> str | None:
        """What a model said of an image, None where it was not asked.

        Args:
            image: SHA-256 of the file's bytes, hexadecimal.
        """
        try:
            return self._file(image, writer, length).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def put(self, image: str, writer: Writer, length: Length, said: str) -> None:
        """Keep what it said; where there is no room it is not kept."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._file(image, writer, length), said.encode())

    def _file(self, image: str, writer: Writer, length: Length) -> Path:
        key = "\n".join([image, writer.identity, length])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"
