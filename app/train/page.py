"""The Train tab: a draft with its images, captions, base and settings; then the same run as it trains.

Left are cards, right a panel that stays in view. All of it are panels (`app.refresh`) drawn by the pure functions of
the modules beside this one; what a user does goes through `app.train.actions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from app.entered import Entered
from app.html import Child, el
from app.refresh import MANY, POLL, SHOWN, Panels, Shown, Updates, answered, render, told
from app.texts import TEXTS
from app.train import captions, draft, monitor, pictures, runs, samples, setup
from app.train.actions import STAY, Actions, Answer, untouched
from app.train.writer import Writing
from trainer.errors import StudioError

if TYPE_CHECKING:
    from app.shell import Shell, Visit
    from trainer.studio.studio import Studio

LEFT = ("images", "captions", "base", "advanced", "pictures", "loss")
RIGHT = ("setup", "progress", "runs")
HIDDEN = ("where", "live")
SCRIPTS = {"pictures": "train/pictures.js", "images": "train/editor.js"}
DRAWN = (*HIDDEN, *LEFT, *RIGHT)
"""Drawn on every tick; ``notice`` and ``beside`` are drawn by actions only, so that they stay until the next one."""
WITH_FIELDS = ("images", "captions", "base", "setup", "advanced")


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    studio = shell.studio
    actions = Actions(studio, studio.home.path / "uploads")
    panels = Panels()
    page = gr.Textbox(visible=False)
    for name in (*HIDDEN, "notice"):
        panels.place(name)
    with gr.Row(elem_id="train"):
        with gr.Column(elem_id="train-left"):
            panels.place("beside")
            for name in LEFT:
                panels.place(name, script=SCRIPTS.get(name, "panel.js"))
        with gr.Column(elem_id="train-right"):
            for name in RIGHT:
                panels.place(name)
    parts = panels.parts

    def arrive(visit: Visit) -> Any:
        return answered(panels.updates(Shown(), draw(actions, actions.landing(visit.item))))

    def tick(page: str) -> Any:
        shown = Shown.parse(page)
        return answered(panels.updates(shown, draw(actions, actions.landing(shown.run))))

    def noticing(said: Markup | None) -> Updates:
        return {parts["notice"]: _notice(said)}

    entered = Entered(lambda entry: actions.set(str(entry.get("run") or actions.landing()), entry))

    def answering(act: Callable[[str, Any], Answer]) -> Callable[..., Updates]:
        def answer(page: str, event: gr.EventData) -> Updates:
            shown, data = Shown.parse(page), event._data or {}
            run = actions.landing(shown.run)
            refused = entered.take(data)
            # The field's own request says so, and nothing is trained that the page shows otherwise.
            if refused and ("set" in data or data.get("act") == "train"):
                raise StudioError(refused)
            result = act(run, data)
            run = result.run or run
            leaving = shell.visit(result.leave, run) if result.leave else {}
            compared = {parts["beside"]: render("beside", result.beside)}
            return {**panels.updates(shown, draw(actions, run)), **noticing(result.notice), **compared, **leaving}

        def problem(sentence: str) -> Updates:
            return noticing(el("p", sentence, class_="problem", role="alert"))

        return told(answer, sentence=problem)

    shell.visits["train"].change(arrive, inputs=shell.visits["train"], outputs=panels.all, **POLL)
    shell.ticker("train", 1.0).tick(tick, inputs=page, outputs=panels.all, js=SHOWN, **POLL)
    answers = {*panels.all, *shell.going("preview"), *shell.going("library")}
    click = answering(actions.click)
    change = answering(lambda run, data: STAY)
    upload = answering(lambda run, data: actions.upload(run, data.get("files", [])))
    for part in parts.values():
        part.click(click, inputs=page, outputs=answers, js=SHOWN, **MANY)
    for name in WITH_FIELDS:
        parts[name].input(change, inputs=page, outputs=answers, js=SHOWN, **MANY)
    parts["images"].upload(upload, inputs=page, outputs=answers, js=SHOWN, **MANY)


def _notice(said: Markup | None) -> str:
    """The notice's panel; its time makes every answer another one, even with nothing to say."""
    words = TEXTS.train
    close = el("button", "\u00d7", type="button", class_="close", data_act="dismiss", aria_label=words.dismiss)
    body = el("div", said, close if said else None, data_at=f"{time.time():.3f}", class_="notice", role="status")
    return render("notice", body)


def draw(actions: Actions, run: str) -> dict[str, str]:
    """Every panel's HTML for a run, by the names in `DRAWN`."""
    studio = actions.studio
    summaries = studio.runs.all()
    state = next((summary.state for summary in summaries if summary.id == run), None)
    if state is None:
        raise StudioError(TEXTS.train.gone)
    drawn: dict[str, Child] = dict.fromkeys(DRAWN)
    drawn["where"] = el("span", data_run=run, data_kind="draft" if state == "draft" else "run", hidden=True)
    # The draft that is kept for whoever begins a style is no style yet.
    drawn["runs"] = runs.runs([each for each in summaries if each.id == run or not untouched(each)], run)
    if state == "draft":
        view, plan = studio.drafts.view(run), studio.drafts.plan(run)
        welcome = None if view.images else _welcome(studio)
        drawn["images"] = draft.images(view, welcome, actions.reading.get(run), studio.drafts.sets(run))
        tokens = studio.drafts.token_counts(run) if view.images else {}
        kept = studio.preferences
        writing = Writing(studio.captioning.view(run), kept.style_words(), *kept.caption_writer())
        drawn["captions"] = captions.captions(view, tokens, writing)
        drawn["base"] = draft.base(view, found := actions.bases.seen(view), studio.shelves.models())
        busy = not studio.runs.starts_at_once(run)
        drawn["setup"] = setup.setup(view, plan, actions.bases.preset_values(view, plan), busy=busy)
        drawn["advanced"] = setup.advanced(view, plan, found)
    else:
        trained = studio.runs.view(run)
        drawn["live"] = el("p", monitor.live(trained), class_="live", aria_live="polite", role="status")
        drawn["pictures"] = pictures.pictures(trained)
        drawn["loss"] = monitor.losses(trained)
        drawn["progress"] = monitor.progress(trained, next_up=studio.runs.starts_at_once(run))
    return {name: render(name, content) for name, content in drawn.items()}


def _welcome(studio: Studio) -> Markup:
    return samples.welcome(studio.drafts.samples(), studio.drafts.plan_from_samples)
