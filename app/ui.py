"""The page's frame: header, tabs, and what the tabs share.

A tab is a module with ``build(shell, tab)``: it is called once, inside its ``gr.Tab``, and makes components and
listeners. It never keeps what a visitor does in Python variables, because one page definition serves everybody;
the studio is the truth, and the page's address (``?tab=preview&run=...``) says what is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

import gradio as gr

from app import api, views
from app.library import page as library
from app.preview import page as preview
from app.tabs import train
from app.texts import TEXTS
from app.wiring import POLL, news

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

TabName = Literal["train", "preview", "library"]
TABS: dict[TabName, tuple[str, Callable[[Shell, gr.Tab], None]]] = {
    "train": (TEXTS.frame.train, train.build),
    "preview": (TEXTS.frame.preview, preview.build),
    "library": (TEXTS.frame.library, library.build),
}


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

    Attributes:
        studio: the open studio.
        tabs: the tab bar; a listener may have it as an output.
        to_train, to_preview, to_library: hold the last `Visit` to that tab. A tab listens to its own with
            ``shell.to_preview.change(...)``; others go there by `going`.
    """

    studio: Studio
    tabs: gr.Tabs
    to_train: gr.State
    to_preview: gr.State
    to_library: gr.State
    timers: dict[str, list[gr.Timer]] = field(default_factory=dict)

    def going(self, tab: TabName) -> list[Any]:
        """Outputs of a listener that leads to another tab; it returns what `visit` makes."""
        return [getattr(self, f"to_{tab}"), self.tabs]

    def visit(self, tab: TabName, item: str, *, step: int = 0, prompt: str = "") -> list[Any]:
        """Values for the outputs of `going`: open the tab and tell it what to show."""
        return [Visit(item, step, prompt, time.time()), gr.Tabs(selected=tab)]

    def ticker(self, tab: TabName, seconds: float = 1.0) -> gr.Timer:
        """A timer that ticks only while ``tab`` is open; attach a listener with `app.wiring.POLL`."""
        timer = gr.Timer(seconds, active=False)
        self.timers.setdefault(tab, []).append(timer)
        return timer


def build(studio: Studio) -> gr.Blocks:
    """The whole page over an open studio; nothing is started by it."""
    with gr.Blocks(
        title=TEXTS.frame.title, analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)
    ) as page:
        # First, because a name goes to whoever asks for it first.
        api.build(studio)
        query = gr.Textbox(visible=False)
        arrivals = {tab: gr.State(Visit()) for tab in TABS}
        with gr.Row(elem_id="patina-header"):
            gr.HTML(views.wordmark(), elem_id="patina-wordmark")
            chips = gr.HTML(
                views.chips(studio.machine.view(), studio.runs.active()), elem_id="patina-chips", js_on_load=_CHIPS
            )
            to_run = gr.Button(TEXTS.frame.to_run, elem_id="patina-to-run", visible="hidden")
        with gr.Tabs(elem_id="patina-tabs") as tabs:
            shell = Shell(studio, tabs, arrivals["train"], arrivals["preview"], arrivals["library"])
            opened: dict[TabName, gr.Tab] = {}
            for name, (label, fill) in TABS.items():
                with gr.Tab(label, id=name, elem_id=f"patina-tab-{name}") as tab:
                    fill(shell, tab)
                opened[name] = tab

        timers = [timer for group in shell.timers.values() for timer in group]

        def ticking(name: str) -> list[gr.Timer]:
            return [gr.Timer(active=group == name) for group, members in shell.timers.items() for _ in members]

        for name, tab in opened.items():
            tab.select(ticking, inputs=query, outputs=timers, js=f"() => patina.select('{name}')", **POLL)

        def arrive(address: str) -> list[Any]:
            asked = {key: values[-1] for key, values in parse_qs(address.lstrip("?")).items()}
            name = asked.get("tab", "train")
            name = name if name in TABS else "train"
            return [gr.Tabs(selected=name), Visit(asked.get("run", ""), at=time.time()), *ticking(name)]

        page.load(arrive, inputs=query, outputs=[tabs, shell.to_train, *timers], js="() => patina.address()", **POLL)

        def show_running() -> list[Any]:
            active = studio.runs.active()
            return shell.visit("train", active.id if active else "")

        to_run.click(show_running, outputs=shell.going("train"), **POLL)

        seen = gr.State({})
        pulse = gr.Timer(2.0)

        def beat(known: dict[str, str]) -> list[Any]:
            return [*news(known, [views.chips(studio.machine.view(), studio.runs.active())]), known]

        pulse.tick(beat, inputs=seen, outputs=[chips, seen], **POLL)
    return page


# The chips are re-rendered by the pulse; one listener on their frame outlives that.
_CHIPS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.act === 'looks') patina.toggleLooks();
  if (button.dataset.act === 'run') document.querySelector('#patina-to-run').click();
});
"""
