"""The page: header, tabs, and how a visitor arrives. What the tabs share is `app.shell`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import gradio as gr

from app import api, header
from app.library import page as library
from app.preview import page as preview
from app.refresh import MANY, POLL, SHOWN, Panels, Shown, Updates, answered, render, told
from app.settings import page as settings
from app.shell import Shell, Visit
from app.texts import ENGLISH, TEXTS, language
from app.train import page as train

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

TABS: Mapping[str, Callable[[Shell, gr.Tab], None]] = {
    "train": train.build,
    "preview": preview.build,
    "library": library.build,
    "settings": settings.build,
}
"""Every tab, in the order of the tab bar; the first one opens where the address names none."""


def build(studio: Studio) -> gr.Blocks:
    """The whole page over an open studio; nothing is started by it."""
    with gr.Blocks(
        title=TEXTS.frame.title, analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)
    ) as page:
        # First, because a name goes to whoever asks for it first.
        api.build(studio)
        query = gr.Textbox(visible=False)
        visits = {tab: gr.State(Visit()) for tab in TABS}
        panels = Panels()
        with gr.Row(elem_id="patina-header"):
            panels.place("wordmark", script="wordmark.js", first=render("wordmark", header.wordmark()))
            panels.place("chips", script="header.js")
        with gr.Tabs(elem_id="patina-tabs") as tabs:
            shell = Shell(studio, tabs, visits)
            opened: dict[str, gr.Tab] = {}
            for name, fill in TABS.items():
                with gr.Tab(_title(name), id=name, elem_id=f"patina-tab-{name}") as tab:
                    fill(shell, tab)
                opened[name] = shell.says(tab, partial(_label, name))
        _arrivals(page, shell, panels, query, opened)
        _header(shell, panels)
    _without_progress(page, query)
    return page


def _without_progress(page: gr.Blocks, unseen: gr.Textbox) -> None:
    """Keep Gradio's own progress off the page, which tells of its work itself.

    Gradio copies the whole state of every output of a listener when it is called and again when it answers, and counts
    the time between on each of them, sixty times a second, hidden or not. A page that follows a training calls often:
    this was half of what it cost the browser.
    """
    for listener in page.fns.values():
        listener.show_progress_on = [unseen]


def _title(name: str) -> str:
    return TEXTS.frame.tabs[name]


def _label(name: str) -> dict[str, str]:
    return {"label": _title(name)}


def _drawn(studio: Studio) -> dict[str, str]:
    """The header's panels."""
    done = (each for each in studio.runs.all() if each.state == "finished")
    finished = max(done, key=lambda each: each.updated, default=None)
    return {
        "wordmark": render("wordmark", header.wordmark()),
        "chips": render("chips", header.chips(studio.machine.view(), studio.runs.in_training(), finished)),
    }


def _arrivals(page: gr.Blocks, shell: Shell, panels: Panels, query: gr.Textbox, opened: dict[str, gr.Tab]) -> None:
    """What happens when the page or one of its tabs is opened."""
    timers = {timer for group in shell.timers.values() for timer in group}

    def ticking(name: str) -> Updates:
        return {timer: gr.Timer(active=group == name) for group, members in shell.timers.items() for timer in members}

    for name, tab in opened.items():
        tab.select(ticking, inputs=query, outputs=timers, js=_in_page(f"select({name!r}, {list(TABS)})"), **POLL)

    def arrive(address: str) -> Updates:
        asked = {key: values[-1] for key, values in parse_qs(address.lstrip("?")).items()}
        name = asked.get("tab", "")
        name = name if name in TABS else next(iter(TABS))
        told: Updates = {}
        if language() != ENGLISH:
            told = {component: gr.update(**words()) for component, words in shell.named.items()}
        return {
            **told,
            **panels.updates(Shown(), _drawn(shell.studio)),
            shell.tabs: gr.Tabs(selected=name),
            shell.visits["train"]: Visit(asked.get("run", ""), at=time.time()),
            **ticking(name),
        }

    outputs = {shell.tabs, shell.visits["train"], *timers, *panels.all, *shell.named}
    page.load(arrive, inputs=query, outputs=outputs, js=_in_page("address()"), **POLL)


def _header(shell: Shell, panels: Panels) -> None:
    """The header follows the studio on every tab; the device's name leads to the settings."""
    studio = shell.studio

    def beat(page: str) -> Any:
        return answered(panels.updates(Shown.parse(page), _drawn(studio)))

    def clicked(event: gr.EventData) -> Updates:
        if str(event.act) == "settings":
            return shell.visit("settings", "")
        return shell.visit("train", str(event.item))

    page = gr.Textbox(visible=False)
    gr.Timer(2.0).tick(beat, inputs=page, outputs=panels.all, js=SHOWN, **POLL)
    leading = {*shell.going("train"), *shell.going("settings")}
    panels.parts["chips"].click(told(clicked), outputs=leading, **MANY)


def _in_page(call: str) -> str:
    """A listener's ``js`` that calls a function of ``static/page.js``."""
    return f"async () => (await patina.module('page.js')).{call}"
