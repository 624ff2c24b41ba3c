"""How the tabs tie events to the studio: the settings every listener shares, errors as sentences, and polling.

Polling: one `gradio.Timer` per tab ticks only while that tab is open. A tick renders the full state from the
studio and passes it through `news`, which sends only what differs from what this page has; so a reload, a second
page and a missed tick need no care at all.
"""

from __future__ import annotations

import functools
import hashlib
import html
import inspect
import json
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import gradio as gr

from app.texts import TEXTS
from trainer.errors import PatinaError

ACTION: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}
"""Keyword arguments of every listener that does what a user asked for."""

POLL: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
"""Keyword arguments of listeners that only look, and must not wait in Gradio's queue.

`gradio.Warning` and the like do not reach the page from these.
"""


def told(function: Callable[..., Any], sentence: Callable[[str], Any] | None = None) -> Callable[..., Any]:
    """Show a `PatinaError` on the page instead of failing; for listeners with `ACTION`.

    Args:
        function: the listener.
        sentence: makes the listener's answer from the error; without it the sentence pops up and every output stays.
    """

    def answer(error: PatinaError) -> Any:
        if sentence is not None:
            return sentence(str(error))
        tell(str(error))
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


def news(seen: MutableMapping[str, str], values: Sequence[Any]) -> list[Any]:
    """``values`` for the outputs of a tick, with `gradio.skip` for each one that this page already has.

    Args:
        seen: the value of a ``gr.State({})`` that belongs to this listener; changed in place. Return it as the
            listener's last output.
        values: one for each output: strings, numbers, lists, or component updates.
    """
    result: list[Any] = []
    for index, value in enumerate(values):
        digest = hashlib.blake2b(_canonical(value).encode(), digest_size=16).hexdigest()
        if seen.get(str(index)) == digest:
            result.append(gr.skip())
        else:
            seen[str(index)] = digest
            result.append(value)
    return result


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, gr.blocks.Block):
        return json.dumps([type(value).__name__, value.constructor_args], default=str, sort_keys=True)
    return json.dumps(value, default=str, sort_keys=True)
