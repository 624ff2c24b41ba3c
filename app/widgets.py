"""Widgets of our own inside Gradio's HTML component: a constant frame, a script, and a value as JSON.

Gradio evaluates an HTML component's template as JavaScript with the values put in, so a name such as ``${...}``
would run. The templates here are constant; the scripts build elements from the value and never from markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"


def widget(name: str, frame: str, value: object, texts: Mapping[str, str]) -> gr.HTML:
    """An HTML component that runs ``static/<name>.js`` on ``<div class="frame">``.

    Args:
        name: of the script; also the element's id, with dashes.
        frame: class of the element the script fills.
        value: anything JSON can hold; the script draws it, and may change it.
        texts: what the script may say.
    """
    script = (STATIC / "widget_dom.js").read_text(encoding="utf-8") + (STATIC / f"{name}.js").read_text(
        encoding="utf-8"
    )
    return gr.HTML(
        value,
        html_template=f'<div class="{frame}"></div>',
        js_on_load=script,
        apply_default_css=False,
        elem_id=name.replace("_", "-"),
        texts=dict(texts),
    )
