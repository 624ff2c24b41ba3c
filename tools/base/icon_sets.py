"""The icon sets the base is trained and judged on: their packages, licences, style words, and how to read them."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One set of coloured icons, pinned to the version of its npm package."""

    key: str
    """Also the style word that half of this set's captions carry."""
    package: str
    version: str
    licence: str
    credit: str
    weight: float = 1.0
    """How often one of its icons is drawn, against an icon of another set."""
    named: bool = False
    """Whether its captions always carry its style word, so that a plain prompt asks for one of the other sets: sets
    that draw a thing in ways of their own would blur what plain words mean.
    """

    @property
    def archive(self) -> str:
        """File name that ``npm pack`` gives to the package."""
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


TRAINING_SETS = (
    IconSet(
        key="noto",
        package="@iconify-json/noto",
        version="1.2.9",
        licence="Apache-2.0",
        credit="Noto Emoji, Google Inc.",
    ),
    IconSet(
        key="fluent",
        package="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        licence="MIT",
        credit="Fluent Emoji Flat, Copyright (c) Microsoft Corporation",
    ),
    IconSet(
        key="glossy",
        package="@iconify-json/fluent-emoji",
        version="1.2.7",
        licence="MIT",
        credit="Fluent Emoji, Copyright (c) Microsoft Corporation",
        weight=0.3,
        named=True,
    ),
    IconSet(
        key="twemoji",
        package="@iconify-json/twemoji",
        version="1.2.5",
        licence="CC-BY-4.0",
        credit="Twemoji, Twitter and contributors",
    ),
    IconSet(
        key="blob",
        package="@iconify-json/noto-v1",
        version="1.2.5",
        licence="Apache-2.0",
        credit="Noto Emoji (version 1), Google Inc.",
        weight=0.3,
        named=True,
    ),
    IconSet(
        key="emojione",
        package="@iconify-json/emojione",
        version="1.2.3",
        licence="CC-BY-4.0",
        credit="EmojiOne 2, Emoji One",
        weight=0.3,
        named=True,
    ),
)
"""What the base learns from. Permissive licences only, and none of the drawings that Patina's sample styles
(Fluent Emoji High Contrast, Streamline Emojis) are made of."""


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One drawing."""

    set_key: str
    name: str
    """As the set spells it, such as ``cat-face``."""
    synonyms: tuple[str, ...]
    """Other names of the same drawing in its set."""
    category: str
    """Such as ``Food & Drink``; empty where the set names none."""
    svg: str


def fetch(sets: Iterable[IconSet], folder: Path) -> None:
    """Download each set's package into ``folder`` through npm, unless it is there. Needs npm and a network.

    Raises:
        subprocess.CalledProcessError: npm could not get one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for icon_set in sets:
        if not (folder / icon_set.archive).is_file():
            command = ["npm", "pack", "--silent", f"{icon_set.package}@{icon_set.version}"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def read(icon_set: IconSet, folder: Path) -> list[Icon]:
    """Every drawing of a set, from its fetched package.

    Raises:
        FileNotFoundError: the package is not in ``folder``.
    """
    with tarfile.open(folder / icon_set.archive) as archive:
        icons = _member(archive, "package/icons.json")
        metadata = _member(archive, "package/metadata.json")
    return parse(icon_set.key, icons, metadata)


def parse(set_key: str, icons: dict[str, Any], metadata: dict[str, Any]) -> list[Icon]:
    """The drawings of one set from Iconify's JSON: ``icons.json`` and ``metadata.json`` as they were read."""
    category_of = {name: category for category, names in metadata.get("categories", {}).items() for name in names}
    synonyms: dict[str, list[str]] = {}
    for alias, target in icons.get("aliases", {}).items():
        # An alias that turns or mirrors its parent is another picture, not another name.
        if set(target) == {"parent"}:
            synonyms.setdefault(target["parent"], []).append(alias)
    return [
        Icon(
            set_key=set_key,
            name=name,
            synonyms=tuple(synonyms.get(name, ())),
            category=category_of.get(name, ""),
            svg=_svg(icon, icons),
        )
        for name, icon in icons["icons"].items()
        if not icon.get("hidden")
    ]


def _member(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = archive.extractfile(name)
    if file is None:
        raise FileNotFoundError(f"{name} is no file in the package")
    content: dict[str, Any] = json.load(file)
    return content


def _svg(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    left, top, width, height = (
        icon.get(key, defaults.get(key, 0 if key in {"left", "top"} else 16))
        for key in ("left", "top", "width", "height")
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body'].replace('currentColor', '#000000')}</svg>"
    )
