"""The Settings tab: language, the hub's token, folders, disk, trash, copies of the studio, and how it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.refresh import MANY, POLL, Panels, Shown, Updates, answered, render, told
from app.settings import view
from app.settings.hub import forget_token, has_token, keep_token
from app.texts import TEXTS, said
from app.units import size
from app.uploads import arrived
from trainer.errors import StudioError
from trainer.studio import backup, report
from trainer.studio.preferences import FolderKind

if TYPE_CHECKING:
    from app.shell import Shell
    from trainer.studio.studio import Studio

LASTS = 20.0
"""Seconds after which the disk is looked at again while the tab is open."""
_SHOWN_FIRST = "async (page, ...rest) => [...(await patina.module('page.js')).shown(), ...rest]"


@dataclass
class Looked:
    """What one visitor was shown, and when it was looked at (Unix time); what was done last."""

    at: float = 0.0
    found: view.Standing | None = None
    done: list[str] = field(default_factory=list)


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    studio, panels = shell.studio, Panels()
    page, looked = gr.Textbox(visible=False), gr.State(Looked())
    panels.place("settings")

    def drawn(state: Looked) -> dict[str, str]:
        if state.found is None or time.time() > state.at + LASTS:
            state.found, state.at = standing(studio), time.time()
        return {"settings": render("settings", view.settings(state.found, state.done))}

    def follow(data: dict[Any, Any]) -> Any:
        return answered(panels.updates(Shown.parse(data[page]), drawn(data[looked])))

    def acted(state: Looked, done: list[str]) -> Updates:
        state.done, state.at = done, 0.0
        return panels.updates(Shown(), drawn(state))

    def click(data: dict[Any, Any], event: gr.EventData) -> Updates:
        told_by = event._data or {}
        return acted(data[looked], act(studio, str(told_by.get("act", "")), told_by))

    def upload(data: dict[Any, Any], event: gr.EventData) -> Updates:
        return acted(data[looked], restore(studio, event.files))

    part = panels.parts["settings"]
    shell.ticker("settings", 2.0).tick(follow, inputs={page, looked}, outputs=panels.all, js=_SHOWN_FIRST, **POLL)
    part.click(told(click), inputs={looked}, outputs=panels.all, **MANY)
    part.upload(told(upload), inputs={looked}, outputs=panels.all, **MANY)


def standing(studio: Studio) -> view.Standing:
    """How the studio is now; walks through its folder."""
    looked, troubles = report.installation(), studio.health.examine()
    counts = {"models": studio.shelves.models, "styles": studio.shelves.styles}
    return view.Standing(
        versions=looked.versions,
        device=looked.device,
        home=studio.home.path,
        wrong=[said(each) for each in (*looked.troubles, *(trouble.what for trouble in troubles))],
        can_repair=any(trouble.mend is not None for trouble in troubles),
        space=studio.health.space(),
        folders={
            kind: [(str(path), sum(each.is_relative_to(path) for each in counts[kind]()))
                   for path in studio.preferences.folders(kind)]
            for kind in ("models", "styles")
        },
        trash=studio.trash.items(),
        logs=report.log_ends(studio.home, view.LINES),
        token=has_token(),
    )  # fmt: skip


def act(studio: Studio, name: str, data: Mapping[str, Any]) -> list[str]:
    """Do what a button says; returns sentences on what was done.

    Raises:
        StudioError: it cannot be done.
    """
    words, fields = TEXTS.settings, data.get("fields") or {}
    item, kind = str(data.get("item", "")), data.get("kind")
    if name == "repair":
        return [said(each) for each in studio.health.repair()]
    if name == "clean":
        freed = studio.health.clean_up()
        return [words.cleaned.format(size=size(freed)) if freed else words.nothing]
    if name == "token-keep":
        keep_token(str(fields.get("token", "")))
        return [words.token_kept]
    if name == "token-forget":
        forget_token()
        return [words.no_token]
    if name in ("folder-add", "folder-remove") and kind in ("models", "styles"):
        held: FolderKind = kind
        if name == "folder-add":
            studio.preferences.add_folder(held, str(fields.get("folder", "")))
        else:
            studio.preferences.remove_folder(held, item)
        return []
    if name == "put-back":
        return _put_back(studio, item)
    if name == "empty-trash":
        studio.trash.empty()
        return [words.trash_emptied]
    raise StudioError(words.unknown)


def _put_back(studio: Studio, item: str) -> list[str]:
    there = {each: name for each, name, _ in studio.trash.items()}
    if item not in there:
        raise StudioError(TEXTS.settings.not_in_trash)
    studio.library.restore(item)
    return [TEXTS.library.restored.format(name=there[item])]


def restore(studio: Studio, files: Any) -> list[str]:
    """Unpack an uploaded copy of a studio beside this one, which goes on as it is.

    Raises:
        StudioError: it did not arrive, or is no copy of a studio.
    """
    paths = arrived(files, studio.home.path / "uploads")
    if not paths:
        raise StudioError(TEXTS.train.upload_refused)
    target = studio.home.path.with_name(f"{studio.home.path.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        done = backup.restore(paths[0], target)
    except OSError as error:
        raise StudioError(f"The copy could not be unpacked: {error}. Nothing was changed.") from None
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    return [TEXTS.settings.restored.format(folder=target, runs=len(done.runs), size=size(done.size))]
