"""What the Settings tab shows: pure functions from what was found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from markupsafe import Markup

from app.files import BACKUP, REPORT
from app.html import Child, el
from app.texts import TEXTS, language, languages, said
from app.train.samples import tour
from app.units import size
from trainer.studio.health import Space
from trainer.studio.preferences import FolderKind

LINES = 60
"""Of each log that are shown."""


@dataclass(frozen=True)
class Standing:
    """How a studio is.

    Attributes:
        versions: package -> version.
        wrong: sentences.
        can_repair: something of it can be put right by itself.
        folders: by what they hold, each with the number of what was found in it.
        trash: (id, name, when it was deleted in Unix time).
        logs: name -> its end, without secrets.
        token: whether huggingface_hub keeps one.
    """

    versions: Mapping[str, str]
    device: str
    home: Path
    wrong: Sequence[str]
    can_repair: bool
    space: Space
    folders: Mapping[FolderKind, Sequence[tuple[str, int]]]
    trash: Sequence[tuple[str, str, float]]
    logs: Mapping[str, str]
    token: bool


def settings(found: Standing, done: Sequence[str] = ()) -> Markup:
    """The whole tab.

    Args:
        done: sentences about what was done last.
    """
    words = TEXTS.settings
    return el(
        "div",
        el("div", [el("p", line) for line in done], role="status", class_="settings-done") if done else None,
        _section(words.help, tour()),
        _section(words.language, _languages()),
        _section(words.hub, _hub(token=found.token), help=words.hub_help),
        _section(words.models, _folders("models", found), help=words.models_help),
        _section(words.styles, _folders("styles", found), help=words.styles_help),
        _section(words.space, _space(found.space), help=words.clean_help),
        _section(words.trash, _trash(found.trash), help=words.trash_help),
        _section(words.copy, _copy(), help=words.copy_help),
        _section(words.health, _health(found), help=words.report_help),
        class_="settings-page",
    )


def _section(title: str, *inside: Child, help: str = "") -> Markup:  # noqa: A002
    return el("section", el("h2", title), el("p", help, class_="help") if help else None, inside)


def _languages() -> Markup:
    now = language()
    options = [el("option", name, value=code, selected=code == now) for code, name in languages().items()]
    return el("select", options, data_language=True, aria_label=TEXTS.settings.language)


def _hub(*, token: bool) -> Markup:
    words = TEXTS.settings
    state = el("p", words.token_kept if token else words.no_token)
    if token:
        return el("div", state, el("button", words.forget_token, type="button", data_act="token-forget"), class_="line")
    field = el("input", type="password", name="token", autocomplete="off", spellcheck="false", placeholder="hf_...",
               aria_label=words.token)  # fmt: skip
    keep = el("button", words.keep_token, type="button", data_act="token-keep", data_tell=words.asking_hub)
    busy = el("p", class_="busy", data_busy=True, role="status")
    return el("div", state, el("div", field, keep, class_="line", data_fields=True), busy)


def _folders(kind: FolderKind, found: Standing) -> list[Markup]:
    words = TEXTS.settings
    rows = [
        el(
            "li",
            el("code", folder),
            el("span", words.found_in[kind].format(count=count)),
            el("button", words.remove_folder, type="button", data_act="folder-remove", data_kind=kind,
               data_item=folder, aria_label=words.remove_named.format(folder=folder)),
        )
        for folder, count in found.folders[kind]
    ]  # fmt: skip
    field = el("input", type="text", name="folder", autocomplete="off", spellcheck="false",
               placeholder=words.folder_placeholder, aria_label=words.folder[kind])  # fmt: skip
    add = el("button", words.add_folder, type="button", data_act="folder-add", data_kind=kind)
    return [
        el("ul", rows, class_="settings-list") if rows else Markup(""),
        el("div", field, add, class_="line", data_fields=True),
    ]


def _space(space: Space) -> list[Markup]:
    words = TEXTS.settings
    places = [(words.places[name], size(count)) for name, count in asdict(space).items() if count or name == "free"]
    facts = el("dl", [(el("dt", name), el("dd", text)) for name, text in places], class_="style-facts")
    clean = el("button", words.clean.format(size=size(space.spare)), type="button", data_act="clean",
               disabled=not space.spare)  # fmt: skip
    return [facts, clean]


def _trash(trash: Sequence[tuple[str, str, float]]) -> list[Markup]:
    words = TEXTS.settings
    if not trash:
        return [el("p", words.trash_empty)]
    rows = [
        el(
            "li",
            el("span", name),
            el("span", time.strftime("%Y-%m-%d", time.localtime(when))),
            el("button", words.put_back, type="button", data_act="put-back", data_item=item,
               aria_label=words.put_back_named.format(name=name)),
        )
        for item, name, when in trash
    ]  # fmt: skip
    empty = el("button", words.empty_trash, type="button", data_act="empty-trash", data_ask=words.empty_ask)
    return [el("ul", rows, class_="settings-list"), empty]


def _copy() -> list[Markup]:
    words = TEXTS.settings
    picker = el("label", words.restore, el("input", type="file", accept=".tar"), class_="button")
    return [
        el("div", el("a", words.backup, class_="button", href=BACKUP, download=True), picker, class_="line",
           data_drop=True, data_sending=TEXTS.train.sending, data_reading=words.unpacking),
        el("p", class_="busy", data_busy=True, role="status"),
    ]  # fmt: skip


def _health(found: Standing) -> list[Markup | None]:
    words = TEXTS.settings
    wrong = [el("li", each) for each in found.wrong]
    packages = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    logs = [(el("h3", name), el("pre", text, tabindex=0, aria_label=name)) for name, text in found.logs.items()]
    return [
        el("div", el("h3", words.wrong), el("ul", wrong), role="status") if wrong else el("p", words.well),
        el("button", words.repair, type="button", class_="primary", data_act="repair") if found.can_repair else None,
        el("p", words.about.format(device=said(found.device), home=found.home), class_="facts"),
        el("a", words.report, class_="button", href=REPORT, download=True),
        el("details", el("summary", words.versions), el("p", packages, class_="help"), data_keep="settings-versions"),
        el("details", el("summary", words.logs), logs or el("p", words.no_logs), data_keep="settings-logs"),
    ]
