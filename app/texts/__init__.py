"""Every text of the interface, chosen for each visitor.

English stands in the classes of this package, one for each part of the page, so that a wrong name is found before it
is shown. Another language is one file beside them, ``zh.toml`` say: a ``name`` for the switch, and the same tables and
keys as the classes. What it leaves out stays English; `missing` and `unlike` say what that is, for a test.

`TEXTS` reads in the language of whoever is being answered: the one chosen in the header (a cookie), else the first of
the browser's that is here. So texts are read where they are shown, never when a module is imported.

Names and help of settings are not here but in `trainer.config` and ``trainer/languages/settings``, because the command
line shows the same words.
``{braces}`` are filled with `str.format`; texts are plain, never HTML.
"""

from __future__ import annotations

import functools
import string
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from app.texts.frame import FrameTexts
from app.texts.preview import LibraryTexts, PreviewTexts
from app.texts.studio import SettingsTexts
from app.texts.train import TrainTexts
from trainer import languages as library

ENGLISH = "en"
COOKIE = "patina_language"
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Texts:
    """All texts in one language."""

    frame: FrameTexts = field(default_factory=FrameTexts)
    train: TrainTexts = field(default_factory=TrainTexts)
    preview: PreviewTexts = field(default_factory=PreviewTexts)
    library: LibraryTexts = field(default_factory=LibraryTexts)
    settings: SettingsTexts = field(default_factory=SettingsTexts)


class _Spoken:
    """`Texts` in the language of this moment."""

    @property
    def frame(self) -> FrameTexts:
        return texts(language()).frame

    @property
    def train(self) -> TrainTexts:
        return texts(language()).train

    @property
    def preview(self) -> PreviewTexts:
        return texts(language()).preview

    @property
    def library(self) -> LibraryTexts:
        return texts(language()).library

    @property
    def settings(self) -> SettingsTexts:
        return texts(language()).settings


TEXTS = _Spoken()

_chosen: ContextVar[str | None] = ContextVar("language", default=None)


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """Texts in a language inside the ``with``, whoever asks."""
    token = _chosen.set(code)
    try:
        yield
    finally:
        _chosen.reset(token)


def said(sentence: str) -> str:
    """A sentence of the library in the language of this moment."""
    return library.said(sentence, language())


def language() -> str:
    """The code of the language that is spoken now: as set by `speaking`, else as the request asks for."""
    if (chosen := _chosen.get()) is not None:
        return chosen
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    if request is None:
        return ENGLISH
    return wanted(request.cookies.get(COOKIE, ""), request.headers.get("accept-language", ""))


def wanted(chosen: str, accepted: str) -> str:
    """Which of our languages suits a visitor.

    Args:
        chosen: code from the cookie; empty when none was chosen.
        accepted: the browser's header, such as ``zh-CN,zh;q=0.9,en;q=0.8`` (RFC 9110, 12.5.4).
    """
    ours = languages()
    if chosen in ours:
        return chosen
    ranked: list[tuple[float, str]] = []
    for entry in accepted.split(","):
        code, _, weight = entry.strip().partition(";q=")
        try:
            ranked.append((float(weight or 1), code.partition("-")[0].lower()))
        except ValueError:
            continue
    for share, code in sorted(ranked, key=lambda pair: -pair[0]):
        if share > 0 and code in ours:
            return code
    return ENGLISH


@functools.cache
def languages() -> dict[str, str]:
    """Code -> the language's own name, English first."""
    return {ENGLISH: "English"} | {path.stem: str(_table(path)["name"]) for path in sorted(FOLDER.glob("*.toml"))}


@functools.cache
def texts(code: str) -> Texts:
    """All texts in a language; English where it has none."""
    path = FOLDER / f"{code}.toml"
    if code == ENGLISH or not path.exists():
        return Texts()
    return _overlaid(Texts(), _whole(code))


def missing(code: str) -> list[str]:
    """Texts that a language's file does not have, by id such as ``train.phases.loading``."""
    known = {key for key, _ in _flat(_whole(code))}
    return [key for key, _ in _flat(_plain(Texts())) if key not in known]


def unlike(code: str) -> list[str]:
    """Ids of a language's file that English does not have, or whose ``{braces}`` are others."""
    english = dict(_flat(_plain(Texts())))
    table = {key: text for key, text in _flat(_whole(code)) if key != "name"}
    return [key for key, text in table.items() if key not in english or _braces(text) != _braces(english[key])]


def _whole(code: str) -> dict[str, Any]:
    """A language's file together with what the library says of settings."""
    table = _table(FOLDER / f"{code}.toml")
    return {**table, "train": {**table.get("train", {}), "settings": library.of_settings(code)}}


def _table(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _overlaid(value: Any, table: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        mine = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return replace(value, **{name: _overlaid(mine[name], table[name]) for name in mine if name in table})
    if isinstance(value, Mapping):
        return {key: _overlaid(inner, table[key]) if key in table else inner for key, inner in value.items()}
    return tuple(table) if isinstance(value, tuple) else table


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, str):
            yield before + key, value
        else:
            yield from ((f"{before}{key}.{index}", text) for index, text in enumerate(value))


def _braces(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
