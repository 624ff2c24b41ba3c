"""What the library says of errors, findings and files, in other languages than English.

The library speaks English wherever a sentence is made, and keeps it so in runs and lists, which may be read by somebody
else later. Whoever shows a sentence asks `said` for it in a language: a table holds for each English sentence, with
gaps for what is filled in, the other one. What a table does not know stays English; a test says what that is.
"""

from __future__ import annotations

import functools
import os
import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENGLISH = "en"
FOLDER = Path(__file__).parent
_GAP = r"((?:(?![.!?] [A-Z0-9]).)*?)"
"""What is filled in; it ends before another sentence begins, or one sentence would swallow the next."""


@functools.lru_cache(maxsize=4096)
def said(sentence: str, language: str) -> str:
    """A sentence of the library, or several in a row, in a language; as it is where that is not known."""
    if language == ENGLISH or not sentence.strip():
        return sentence
    if whole := table(language).get(sentence):
        return whole
    rows = _rows(language)
    if not rows:
        return sentence
    for pattern, translated in rows:
        if found := pattern.fullmatch(sentence):
            return translated.format(*(said(gap, language) for gap in found.groups()))
    # Sentences are also put together, with a blank between, and parts of one end it.
    for end in _ends(sentence):
        parts = sentence[:end], sentence[end:].lstrip()
        others = tuple(said(part, language) for part in parts)
        if others != parts:
            return others[0] + ("" if others[0] != parts[0] else " ") + others[1]
    whole, stop, rest = sentence.rpartition(".")
    if stop and not rest and (other := said(whole, language)) != whole:
        return other + "\u3002"
    return sentence


def terminal_language() -> str:
    """The language of whoever started this process: ``PATINA_LANGUAGE``, else that of the system's settings."""
    for name in ("PATINA_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if told := os.environ.get(name, ""):
            code = re.split(r"[_.@-]", told.lower())[0]
            return code if (FOLDER / f"{code}.toml").is_file() else ENGLISH
    return ENGLISH


@functools.cache
def of_settings(language: str) -> dict[str, tuple[str, str]]:
    """Dotted setting -> its name and its help in a language; empty for English, which `trainer.config` has."""
    return {path: (name, told) for path, (name, told) in _read(FOLDER / "settings" / f"{language}.toml").items()}


@functools.cache
def table(language: str) -> dict[str, str]:
    """English sentences with numbered gaps -> what they are in a language."""
    return _read(FOLDER / f"{language}.toml")


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def _rows(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of the table's sentences, those with the most words of their own first."""
    rows = []
    for english, translated in table(language).items():
        parts = list(string.Formatter().parse(english))
        own = sum(len(literal) for literal, *_ in parts)
        pattern = "".join(re.escape(literal) + (_GAP if gap is not None else "") for literal, gap, *_ in parts)
        rows.append((own, re.compile(pattern, re.DOTALL), translated))
    return tuple((pattern, translated) for _, pattern, translated in sorted(rows, key=lambda row: -row[0]))


def _ends(text: str) -> Iterator[int]:
    """Where a sentence may end inside a text, the last place first."""
    ends = [found.end() for found in re.finditer(r"[.!?:](?= )", text)]
    yield from reversed(ends)
