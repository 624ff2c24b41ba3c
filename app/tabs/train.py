"""The Train tab: a draft with its images, captions, base and settings; then the same run as it trains.

Left are cards, right a panel that stays in view. All of it are panels (`app.panels`) drawn by the pure functions of
the modules beside this one; what a user does goes through `app.tabs.train_actions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from app.markup import Child, el
from app.panels import SHOWN, Shown, changed, place, render
from app.tabs import train_draft, train_monitor, train_runs, train_setup
from app.tabs.train_actions import Actions, Answer
from app.texts import TEXTS
from app.wiring import ACTION, POLL, told
from trainer.errors import StudioError

if TYPE_CHECKING:
    from app.ui import Shell, Visit

LEFT = ("images", "captions", "base", "advanced", "pictures", "loss")
RIGHT = ("setup", "progress", "runs")
HIDDEN = ("where", "live")
PANELS = (*HIDDEN, *LEFT, *RIGHT)
"""Drawn on every tick; ``notice`` is drawn by actions only, so that it stays until the next one."""

MANY: dict[str, Any] = {**ACTION, "trigger_mode": "multiple"}


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    studio = shell.studio
    actions = Actions(studio, studio.home.path / "uploads")
    parts: dict[str, gr.HTML] = {}
    page = gr.Textbox(visible=False)
    for name in HIDDEN:
        parts[name] = place(name)
    notice = place("notice")
    with gr.Row(elem_id="train"):
        with gr.Column(elem_id="train-left"):
            for name in LEFT:
                parts[name] = place(name)
        with gr.Column(elem_id="train-right"):
            for name in RIGHT:
                parts[name] = place(name)
    outputs = [parts[name] for name in PANELS]

    def draw(shown: Shown, run: str) -> list[Any]:
        return changed(shown, panels(actions, run))

    def arrive(visit: Visit) -> list[Any]:
        return draw(Shown("", {}), actions.landing(visit.item))

    def tick(page: str) -> list[Any]:
        shown = Shown.parse(page)
        return draw(shown, actions.landing(shown.run))

    def answering(act: Callable[[str, Any], Answer]) -> Callable[..., list[Any]]:
        def answer(page: str, event: gr.EventData) -> list[Any]:
            shown = Shown.parse(page)
            run = actions.landing(shown.run)
            result = act(run, event._data or {})
            run = result.run or run
            leaving = shell.visit(result.leave, run) if result.leave else [gr.skip(), gr.skip()]
            return [*draw(shown, run), _notice(result.notice), *leaving]

        return told(answer, sentence=_as_notice(len(outputs)))

    shell.to_train.change(arrive, inputs=shell.to_train, outputs=outputs, **POLL)
    shell.ticker("train", 1.0).tick(tick, inputs=page, outputs=outputs, js=SHOWN, **POLL)
    answers = [*outputs, notice, *shell.going("preview")]
    click = answering(actions.click)
    change = answering(actions.set)
    upload = answering(lambda run, data: actions.upload(run, data.get("files", [])))
    for part in (*parts.values(), notice):
        part.click(click, inputs=page, outputs=answers, js=SHOWN, **MANY)
    for name in ("captions", "base", "setup", "advanced"):
        parts[name].input(change, inputs=page, outputs=answers, js=SHOWN, **MANY)
    parts["images"].upload(upload, inputs=page, outputs=answers, js=SHOWN, **MANY)


def _as_notice(before: int) -> Callable[[str], list[Any]]:
    """An error as the answer of an action: only the notice says something."""

    def answer(sentence: str) -> list[Any]:
        said = el("p", sentence, class_="problem", role="alert")
        return [*[gr.skip()] * before, _notice(said), gr.skip(), gr.skip()]

    return answer


def _notice(said: Markup | None) -> str:
    """The notice's panel; its time makes every answer another one, even with nothing to say."""
    words = TEXTS.train
    close = el("button", "\u00d7", type="button", class_="close", data_act="dismiss", aria_label=words.dismiss)
    body = el("div", said, close if said else None, data_at=f"{time.time():.3f}", class_="notice", role="status")
    return render("notice", body)


def panels(actions: Actions, run: str) -> dict[str, str]:
    """Every panel's HTML for a run, in the order of `PANELS`."""
    studio = actions.studio
    summaries = studio.runs.all()
    state = next((summary.state for summary in summaries if summary.id == run), None)
    if state is None:
        raise StudioError(TEXTS.train.gone)
    drawn: dict[str, Child] = dict.fromkeys(PANELS)
    drawn["where"] = el("span", data_run=run, hidden=True)
    drawn["runs"] = train_runs.runs(summaries, run)
    if state == "draft":
        draft, plan = studio.drafts.view(run), studio.drafts.plan(run)
        drawn["images"] = train_draft.images(draft, studio.drafts.samples())
        drawn["captions"] = train_draft.captions(draft, studio.drafts.token_counts(run) if draft.images else {})
        drawn["base"] = train_draft.base(draft, actions.bases.seen(draft))
        busy = studio.runs.active() is not None
        drawn["setup"] = train_setup.setup(draft, plan, actions.bases.preset_values(draft, plan), busy=busy)
        drawn["advanced"] = train_setup.advanced(draft, plan)
    else:
        view = studio.runs.view(run)
        drawn["live"] = el("p", train_monitor.live(view), class_="live", aria_live="polite", role="status")
        drawn["pictures"] = train_monitor.pictures(view)
        drawn["loss"] = train_monitor.losses(view)
        drawn["progress"] = train_monitor.progress(view, next_up=studio.runs.active() is None)
    return {name: render(name, content) for name, content in drawn.items()}
