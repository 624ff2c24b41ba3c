"""The right side of the page's header: the machine, the runs in training, the language, and light or dark."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.html import el
from app.texts import TEXTS, language, languages, said
from app.units import of_total
from trainer.studio.views import MachineView, RunSummary


def wordmark() -> Markup:
    """The name at the left, the page's heading, behind a link past it for who goes by keyboard."""
    words = TEXTS.frame
    return Markup("").join(
        [
            el("button", words.skip, type="button", class_="skip", data_skip=True),
            el("h1", words.title, class_="wordmark"),
        ]
    )


def chips(machine: MachineView, training: Sequence[RunSummary], finished: RunSummary | None = None) -> Markup:
    """The panel at the right; it also tells the page's title, and when a run has ended.

    Args:
        training: several where there are several cards; the title tells of the first.
        finished: the run that was finished last.
    """
    words = TEXTS.frame
    memory = ""
    if machine.memory_total_bytes:
        memory = of_total(machine.memory_used_bytes, machine.memory_total_bytes)
    return Markup("").join(
        [
            el("button", said(machine.name) or words.device, el("span", memory), type="button", class_="chip device",
               data_act="settings", title=words.to_settings),
            *(_run(run) for run in training),
            _news(training, finished),
            _languages(),
            el("button", el("i"), type="button", class_="chip looks", data_looks=True, aria_label=words.light_dark,
               title=words.light_dark),
        ]
    )  # fmt: skip


def _run(run: RunSummary) -> Markup:
    words = TEXTS.frame
    share = run.step / run.steps if run.steps else 0.0
    label = words.run_chip.format(name=run.name, percent=round(100 * share))
    return el(
        "button",
        el("span", label),
        el("i", style=f"width:{100 * share:.1f}%"),
        type="button",
        class_="chip run",
        data_act="run",
        data_item=run.id,
        aria_label=f"{label}: {words.to_run}",
    )


def _news(training: Sequence[RunSummary], finished: RunSummary | None) -> Markup:
    """For ``static/header.js``: the tab's title, and what a notification would say."""
    words = TEXTS.frame
    title = words.title
    if training and training[0].steps:
        first = training[0]
        percent = round(100 * first.step / first.steps)
        title = f"{words.run_title.format(name=first.name, percent=percent)} - {words.title}"
    return el(
        "span",
        hidden=True,
        lang=language(),
        data_title=title,
        data_alive=" ".join(run.id for run in training),
        data_finished=finished.id if finished is not None else "",
        data_said=words.ended.format(name=finished.name) if finished is not None else "",
    )


def _languages() -> Markup:
    """A choice of languages, once there are several."""
    names = languages()
    if len(names) < 2:
        return Markup("")
    now = language()
    return el(
        "select",
        [el("option", name, value=code, selected=code == now) for code, name in names.items()],
        class_="chip language",
        data_language=True,
        aria_label=TEXTS.frame.language,
    )
