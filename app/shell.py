"""What the page gives to its tabs: the studio, ways to other tabs, and timers that tick while a tab is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

Component = TypeVar("Component", bound=gr.blocks.Block)


@dataclass(frozen=True)
class Visit:
    """What one tab asks of another: show this run, or use this style; ``at`` makes every request a new one.

    Attributes:
        item: id of a run or style; empty asks for nothing.
        step: a checkpoint's step, 0 for the finished file or the weights of this moment.
        prompt: a prompt to start from, or empty.
    """

    item: str = ""
    step: int = 0
    prompt: str = ""
    at: float = 0.0


@dataclass
class Shell:
    """What every tab is built with.

    A tab has ``build(shell, tab)``: it is called once, inside its ``gr.Tab``, and makes components and listeners. It
    never keeps what a visitor does in Python variables, because one page definition serves everybody; the studio is
    the truth, and the page's address (``?tab=preview&run=...``) says what is shown.

    Attributes:
        studio: the open studio.
        tabs: the tab bar; a listener may have it as an output.
        visits: by tab, the last `Visit` to it. A tab listens to its own with
            ``shell.visits["preview"].change(...)``; others go there by `going`.
        named: components with texts of their own, and what makes these in the visitor's language.
    """

    studio: Studio
    tabs: gr.Tabs
    visits: Mapping[str, gr.State]
    timers: dict[str, list[gr.Timer]] = field(default_factory=dict)
    named: dict[gr.blocks.Block, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)

    def going(self, tab: str) -> list[Any]:
        """Outputs of a listener that leads to another tab; it returns what `visit` makes."""
        return [self.visits[tab], self.tabs]

    def visit(self, tab: str, item: str, *, step: int = 0, prompt: str = "") -> dict[Any, Any]:
        """Values for the outputs of `going`: open the tab and tell it what to show."""
        return {
            self.visits[tab]: Visit(item, step, prompt, time.time()),
            self.tabs: gr.Tabs(selected=tab),
        }

    def ticker(self, tab: str, seconds: float = 1.0) -> gr.Timer:
        """A timer that ticks only while ``tab`` is open; attach a listener with `app.refresh.POLL`."""
        timer = gr.Timer(seconds, active=False)
        self.timers.setdefault(tab, []).append(timer)
        return timer

    def says(self, component: Component, words: Callable[[], Mapping[str, Any]]) -> Component:
        """Keep a component's texts in the visitor's language.

        Args:
            words: its arguments that hold texts, read from `app.texts.TEXTS` each time it is called, such as
                ``lambda: {"label": TEXTS.preview.prompt}``.
        """
        self.named[component] = words
        return component
