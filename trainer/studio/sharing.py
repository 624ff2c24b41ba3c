"""Sharing a style of the library: packed first, so that it is seen what would be sent; then downloaded or pushed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.bases.sources import parse_source
from trainer.errors import BaseError, PublishError, StudioError
from trainer.publishing.parcel import Choices, Parcel, pack, write_zip
from trainer.publishing.push import check_repo, push
from trainer.publishing.subject import Subject, of_file, of_run
from trainer.studio.folder import StudioFolder
from trainer.studio.library import Library
from trainer.training.run_folder import RunFolder


@dataclass(frozen=True)
class PackedView:
    """What was packed of a style: files with their sizes in bytes, and sentences for its maker."""

    style: str
    files: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


class Sharing:
    """Packs and sends styles; of each the last parcel is kept in the studio's folder for downloads."""

    def __init__(self, home: StudioFolder, library: Library) -> None:
        self._home, self._library = home, library
        self._lock = threading.Lock()

    def pack(self, style_id: str, choices: Choices) -> PackedView:
        """Put everything together that is published of a style.

        Raises:
            PatinaError: there is no such style, its file cannot be read, or the base's id is none.
        """
        card = self._library.card(style_id)
        self._home.require_space(3 * card.size_bytes, "Sharing this style")
        if choices.base and _kind(choices.base) != "hub":
            raise PublishError(
                f"{choices.base!r} is no id on the hub, such as USER/NAME; leave the base empty if it has none."
            )
        with self._lock:
            parcel = self._packed(style_id, choices)
            write_zip(parcel, self._zip_file(style_id))
        return PackedView(style_id, parcel.files, parcel.notes)

    def zip(self, style_id: str) -> tuple[Path, str]:
        """The parcel's zip, and the name to download it under.

        Raises:
            StudioError: nothing was packed.
        """
        name = self._subject(style_id).stem
        path = self._zip_file(style_id)
        if not path.is_file():
            raise StudioError("Nothing is packed of this style yet: open Share first.")
        return path, f"{name}.zip"

    def push(self, style_id: str, choices: Choices, *, private: bool = False) -> str:
        """Send a style to the hub repository that ``choices`` name; returns its address there. Takes seconds.

        Args:
            private: only the owner may see a repository that is made now.

        Raises:
            PublishError: the id is none, nobody is logged in, or the hub refuses.
        """
        checked = replace(choices, repo=check_repo(choices.repo))
        with self._lock:
            return push(self._packed(style_id, checked), checked.repo, private=private)

    def _packed(self, style_id: str, choices: Choices) -> Parcel:
        folder = self._folder(style_id) / "parcel"
        shutil.rmtree(folder, ignore_errors=True)
        return pack(self._subject(style_id), folder, choices)

    def _subject(self, style_id: str) -> Subject:
        card = self._library.card(style_id)
        if card.origin == "trained":
            return replace(of_run(RunFolder(self._home.run(style_id))), name=card.name)
        # As it is downloaded: with every layer's alpha, and names that other programs know.
        return of_file(self._library.download(style_id, card.layout), card.name, card.thumbnails)

    def _folder(self, style_id: str) -> Path:
        return self._home.downloads / style_id / "share"

    def _zip_file(self, style_id: str) -> Path:
        return self._folder(style_id) / "parcel.zip"


def _kind(source: str) -> str:
    try:
        return parse_source(source).kind
    except BaseError:
        return ""
