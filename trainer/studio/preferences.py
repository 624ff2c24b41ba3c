"""What people told this studio to keep: prompts, folders with models or styles, and words that captions leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from trainer.captioning.style_words import STYLE_WORDS, parse_words
from trainer.errors import StudioError
from trainer.studio.database import Database

FolderKind = Literal["models", "styles"]
MOST_PROMPTS = 100
MOST_FOLDERS = 20
LONGEST_PROMPT = 2000


class Preferences:
    """Lists by name, in the studio's file."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def prompts(self) -> tuple[str, ...]:
        """Kept prompts, the newest first."""
        return self._list("prompts")

    def keep_prompt(self, prompt: str) -> None:
        """Keep a prompt, at the head of the list.

        Raises:
            StudioError: it is empty or too long.
        """
        prompt = " ".join(prompt.split())
        if not prompt:
            raise StudioError("There is no prompt to keep yet: write one first.")
        if len(prompt) > LONGEST_PROMPT:
            raise StudioError(f"A prompt that is kept has at most {LONGEST_PROMPT} characters.")
        others = [one for one in self.prompts() if one != prompt]
        self._write("prompts", [prompt, *others][:MOST_PROMPTS])

    def forget_prompt(self, prompt: str) -> None:
        """Keep it no longer."""
        self._write("prompts", [one for one in self.prompts() if one != prompt])

    def folders(self, kind: FolderKind) -> tuple[Path, ...]:
        """Folders that were named, in the order in which they were."""
        return tuple(Path(text) for text in self._list(f"{kind} folders"))

    def add_folder(self, kind: FolderKind, folder: str) -> None:
        """Look into another folder from now on.

        Raises:
            StudioError: there is no such folder, or there are too many.
        """
        path = Path(folder.strip().strip("\"'")).expanduser()
        if not folder.strip() or not path.is_absolute() or not path.is_dir():
            raise StudioError(
                f"There is no folder {folder.strip()!r} on the machine that Patina runs on: write its whole path."
            )
        known = [str(one) for one in self.folders(kind)]
        if len(known) >= MOST_FOLDERS:
            raise StudioError(f"Patina looks into {MOST_FOLDERS} folders at most: remove one first.")
        self._write(f"{kind} folders", list(dict.fromkeys([*known, str(path)])))

    def remove_folder(self, kind: FolderKind, folder: str) -> None:
        """Look into it no longer; what it holds stays."""
        self._write(f"{kind} folders", [str(one) for one in self.folders(kind) if str(one) != folder])

    def style_words(self) -> tuple[str, ...]:
        """Phrases that captions leave out when a model writes them; the usual ones until somebody changes them."""
        return self._list("style words") if self._has("style words") else STYLE_WORDS

    def keep_style_words(self, text: str) -> None:
        """Keep a list as a person wrote it; the usual list is not kept, so that a later one takes its place.

        Raises:
            ConfigError: as of `parse_words`.
        """
        words = parse_words(text)
        self._db.write("DELETE FROM preferences WHERE name = 'style words'")
        if words != STYLE_WORDS:
            self._write("style words", list(words))

    def caption_writer(self) -> tuple[str, str]:
        """The model that was chosen last to write captions, as it is offered, and one that was named instead of it."""
        kept = self._list("caption writer")
        return (kept[0], kept[1]) if len(kept) == 2 else ("", "")

    def keep_caption_writer(self, offered: str | None = None, named: str | None = None) -> None:
        """Keep a choice of the two; None leaves one as it is."""
        before = self.caption_writer()
        chosen = (before[0] if offered is None else offered, before[1] if named is None else named.strip())
        self._write("caption writer", [part[:LONGEST_PROMPT] for part in chosen])

    def trash_times(self) -> tuple[float, float] | None:
        """When the trash was last looked after, and until when it rests, in Unix time; None before the first time."""
        kept = self._list("trash")
        return (float(kept[0]), float(kept[1])) if len(kept) == 2 else None

    def keep_trash_times(self, looked: float, rests_until: float) -> None:
        """Keep both."""
        self._write("trash", [repr(looked), repr(rests_until)])

    def _has(self, name: str) -> bool:
        return self._db.one("SELECT 1 FROM preferences WHERE name = ?", (name,)) is not None

    def _list(self, name: str) -> tuple[str, ...]:
        row = self._db.one("SELECT value FROM preferences WHERE name = ?", (name,))
        return () if row is None else tuple(str(one) for one in json.loads(row["value"]))

    def _write(self, name: str, values: list[str]) -> None:
        self._db.write("INSERT OR REPLACE INTO preferences (name, value) VALUES (?, ?)", (name, json.dumps(values)))
