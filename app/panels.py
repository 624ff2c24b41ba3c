"""Panels: parts of a page that the server renders as HTML and a page shows.

The page is the only one that remembers: each listener is sent which panels the page shows in which version
(`SHOWN`), and answers with what differs. Nothing about a visitor is kept in the server, so a reload, a second page, a
lost answer or an answer out of order is set right by the next tick.

Gradio's HTML component changes the elements that differ and leaves the others, so pictures do not flicker and a field
being typed in keeps its text. ``static/panel.js`` reports what a user does inside a panel as one of three events:

- ``click``: an element with ``data-act``; the event carries all its ``data-`` values (``event.act``).
- ``input``: a field with ``data-set`` was changed; the event carries its ``data-`` values and ``event.value``.
- ``upload``: files were dropped on or chosen in an element with ``data-drop``; ``event.files`` lists
  their ``path`` and ``name``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.markup import Child, join

SCRIPT = Path(__file__).parent / "static" / "panel.js"


@dataclass(frozen=True)
class Shown:
    """What a page shows: the run in its address, and panel name -> version."""

    run: str
    versions: Mapping[str, str]

    @classmethod
    def parse(cls, value: str) -> Shown:
        """From what `SHOWN` sent; whatever is no such thing counts as a page that shows nothing."""
        try:
            data = json.loads(value)
            return cls(str(data["run"]), {str(key): str(version) for key, version in data["panels"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls("", {})


SHOWN = "() => patina.shown()"
"""The ``js`` of a listener whose only input is a hidden text box; the function gets it through `Shown.parse`."""


@functools.cache
def _script() -> str:
    return SCRIPT.read_text(encoding="utf-8")


def place(name: str) -> gr.HTML:
    """An empty panel in the page, to be filled by a listener."""
    return gr.HTML("", elem_id=f"panel-{name}", elem_classes="panel", js_on_load=_script(), apply_default_css=False)


def render(name: str, *children: Child) -> str:
    """A panel's HTML, marked with its name and version."""
    body = str(join(children))
    version = hashlib.blake2b(body.encode(), digest_size=9).hexdigest()
    return f'<div data-panel="{name}" data-version="{version}">{body}</div>'


def changed(shown: Shown, rendered: Mapping[str, str]) -> list[Any]:
    """For each panel, its HTML if the page shows another version, else `gradio.skip`."""
    return [
        gr.skip() if shown.versions.get(name) == _version(content) else content for name, content in rendered.items()
    ]


def _version(content: str) -> str:
    return content.partition('data-version="')[2].partition('"')[0]
