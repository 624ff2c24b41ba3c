"""How the page follows the studio: panels, what is sent of them, and what every listener shares.

A panel is a part of the page that the server renders as HTML from the studio's full state (`app.html.el`). The page is
the only one that remembers: each listener is sent which panels the page shows in which version (`SHOWN`), and answers
with what differs. Nothing about a visitor is kept in the server, so a reload, a second page, a lost answer or one
out of order is set right by the next tick.

Gradio's HTML component changes the elements that differ and leaves the others, so pictures do not flicker and a field
being typed in keeps its text. ``static/panel.js`` reports what a user does inside a panel as one of three events:

- ``click``: an element with ``data-act``; the event carries all its ``data-`` values (``event.act``).
- ``input``: a field with ``data-set`` was changed; the event carries its ``data-`` values and ``event.value``.
- ``upload``: files were dropped on or chosen in an element with ``data-drop``; ``event.files`` lists
  their ``path`` and ``name``.

The first two carry in ``entered`` what was entered in the last seconds, for `app.entered`.

What needs more than that has a script of its own, see `Panels.place`.
"""

from __future__ import annotations

import functools
import hashlib
import html
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.html import Child, join
from app.texts import TEXTS, said
from trainer.errors import PatinaError

ACTION: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}
"""Keyword arguments of every listener that does what a user asked for."""

MANY: dict[str, Any] = {**ACTION, "trigger_mode": "multiple"}
"""As `ACTION`, for a listener whose events must not be dropped while an earlier one is answered."""

POLL: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
"""Keyword arguments of listeners that only look, and must not wait in Gradio's queue.

`gradio.Warning` and the like do not reach the page from these.
"""

SHOWN = "async () => (await patina.module('page.js')).shown()"
"""The ``js`` of a listener whose only input is a hidden text box; the function gets it through `Shown.parse`."""

Updates = dict[Any, Any]
"""What a listener answers: component -> its new value. Components that are not in it stay as they are."""


@dataclass(frozen=True)
class Shown:
    """What a page shows: the run in its address, and panel name -> version."""

    run: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: str) -> Shown:
        """From what `SHOWN` sent; whatever is no such thing counts as a page that shows nothing."""
        try:
            data = json.loads(value)
            return cls(str(data["run"]), {str(key): str(version) for key, version in data["panels"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()


class Panels:
    """The panels of one tab: their places in the page, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, gr.HTML] = {}

    def place(self, name: str, *, script: str = "panel.js", first: str = "") -> gr.HTML:
        """A panel in the page, to be filled by a listener.

        Args:
            name: unique in the page; the element's id is ``panel-<name>``.
            script: a module of ``static/`` whose ``attach`` gets the panel's frame and what Gradio gives to it
                (``{element, trigger, watch, upload, props}``); it calls ``attach`` of ``panel.js`` for the rest.
            first: what it shows until then, as made by `render`.
        """
        # A script that does not arrive must not be silent: the panel would look alive and answer nothing.
        attach = (
            f"patina.module({json.dumps(script)})"
            ".then((script) => script.attach({ element, trigger, watch, upload, props }));"
        )
        self.parts[name] = gr.HTML(
            first, elem_id=f"panel-{name}", elem_classes="panel", js_on_load=attach, apply_default_css=False
        )
        return self.parts[name]

    @property
    def all(self) -> set[gr.HTML]:
        """Every panel, as outputs of a listener."""
        return set(self.parts.values())

    def updates(self, shown: Shown, drawn: Mapping[str, str]) -> Updates:
        """The panels that a page shows in another version, of those drawn by `render`."""
        return {
            self.parts[name]: content
            for name, content in drawn.items()
            if shown.versions.get(name) != content.partition('data-version="')[2].partition('"')[0]
        }


def render(name: str, *children: Child) -> str:
    """A panel's HTML, marked with its name and version."""
    body = str(join(children))
    version = hashlib.blake2b(body.encode(), digest_size=9).hexdigest()
    return f'<div data-panel="{name}" data-version="{version}">{body}</div>'


def answered(updates: Updates) -> Any:
    """Updates as Gradio takes them, which has no empty dictionary."""
    return updates or gr.skip()


def told(function: Callable[..., Any], sentence: Callable[[str], Any] | None = None) -> Callable[..., Any]:
    """Show a `PatinaError` on the page instead of failing; for listeners with `ACTION`.

    Args:
        function: the listener.
        sentence: makes the listener's answer from the error; without it the sentence pops up and every output stays.
    """

    def answer(error: PatinaError) -> Any:
        if sentence is not None:
            return sentence(said(str(error)))
        tell(said(str(error)))
        return gr.skip()

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except PatinaError as error:
                yield answer(error)

        return stream

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PatinaError as error:
            return answer(error)

    return call


def tell(sentence: str) -> None:
    """Show a sentence on the page for ten seconds; the text is escaped here."""
    gr.Warning(html.escape(sentence), title=TEXTS.frame.note)
