"""The list of runs under the panel: the one in training, the queue, and the rest. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.files import picture_url
from app.html import el
from app.texts import TEXTS
from trainer.studio.views import RunSummary


def runs(summaries: Sequence[RunSummary], current: str) -> Markup:
    """The list.

    Args:
        summaries: in the order of `Studio.runs`.
        current: id of the run that the page shows.
    """
    words = TEXTS.train
    queued = [summary.id for summary in summaries if summary.state == "queued"]
    begun = any(summary.id == current and summary.step for summary in summaries)
    return el(
        "section",
        el(
            "header",
            el("h2", words.runs),
            el("button", words.new_style, type="button", class_="small", data_act="new"),
        ),
        el("ul", [_row(summary, current, queued, begun=begun) for summary in summaries], class_="runs")
        if summaries
        else el("p", words.runs_empty, class_="help"),
        class_="list",
        aria_label=words.runs,
    )


def _row(summary: RunSummary, current: str, queued: Sequence[str], *, begun: bool) -> Markup:
    words = TEXTS.train
    name = summary.name or words.untitled
    share = summary.step / summary.steps if summary.steps else 0.0

    def button(label: str, act: str, sign: str, **extra: str | int) -> Markup:
        said = f"{label}: {name}"
        return el(
            "button", sign, type="button", data_act=act, data_item=summary.id, aria_label=said, title=label, **extra
        )

    tools: list[Markup] = []
    if begun and summary.step and summary.id != current:
        tools.append(button(words.compare, "compare", "\u21c4"))
    if summary.id in queued:
        place = queued.index(summary.id)
        if place > 0:
            tools.append(button(words.up, "move", "\u2191", data_to=place - 1))
        if place < len(queued) - 1:
            tools.append(button(words.down, "move", "\u2193", data_to=place + 1))
        tools.append(button(words.unqueue, "unqueue", "\u00d7"))
    elif summary.state != "training":
        tools.append(button(words.delete, "delete", "\u00d7"))
    return el(
        "li",
        el(
            "button",
            el("img", src=picture_url(summary.thumbnail, 96), alt="", loading="lazy")
            if summary.thumbnail
            else el("i", class_="blank"),
            el("span", el("b", name), el("span", _state(summary, share)), class_="about"),
            type="button",
            class_="open",
            data_act="open",
            data_item=summary.id,
            aria_current="true" if summary.id == current else None,
        ),
        el("span", tools, class_="tools"),
        el("i", class_="line", style=f"width:{100 * share:.1f}%") if summary.state == "training" else None,
        class_=f"run {summary.state}",
    )


def _state(summary: RunSummary, share: float) -> str:
    words = TEXTS.train
    if summary.state == "training" and summary.steps:
        return words.share.format(name=words.states["training"], percent=round(100 * share))
    if summary.queue_place:
        return words.place.format(place=summary.queue_place).capitalize()
    return words.states[summary.state]
