"""Captions that a model writes: which model, how far it is, and what is left out. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.html import el
from app.texts import TEXTS, said
from app.units import size
from trainer.captioning.writers import Writer
from trainer.studio.captioning import CaptioningView

FOLD = "caption-writer"
"""Name of the folded part, for buttons that open it."""


@dataclass(frozen=True)
class Writing:
    """What is known of the captions that a model writes.

    Attributes:
        view: how far it is; None while nobody asked for any.
        words: phrases that are left out.
        offered, named: the model that was chosen last (`Preferences.caption_writer`).
    """

    view: CaptioningView | None = None
    words: Sequence[str] = ()
    offered: str = ""
    named: str = ""


def writer(writing: Writing) -> Markup:
    """The fold with the model, the buttons, and the list of phrases; above it how far the model is."""
    words = TEXTS.train
    options = [
        el("option", title, value=value, selected=value == writing.offered)
        for value, title in words.writer_models.items()
    ]
    going = writing.view is not None and writing.view.is_open

    def button(label: str, act: str, ask: str | None = None) -> Markup:
        return el(
            "button", label, type="button", class_="small", data_act=act, data_ask=ask,
            data_tell=words.writer_looking, disabled=going,
        )  # fmt: skip

    fold = el(
        "details",
        el("summary", words.writer),
        el("p", words.writer_hint, class_="help"),
        el(
            "div",
            el("label", el("span", words.writer_model), el("select", options, name="model", data_set="caption-writer")),
            el(
                "label",
                el("span", words.writer_other),
                el(
                    "input",
                    type="text",
                    name="other",
                    value=writing.named,
                    data_set="caption-writer-named",
                    autocomplete="off",
                    spellcheck="false",
                ),
            ),
            button(words.writer_missing, "captions-write"),
            button(words.writer_all, "captions-write-all", words.writer_all_ask),
            class_="tool",
            data_fields=True,
        ),
        el("p", class_="busy", data_busy=True, role="status"),
        el(
            "details",
            el("summary", words.writer_words),
            el("p", words.writer_words_hint, class_="help", id="style-words-help"),
            el(
                "textarea",
                "\n".join(writing.words),
                rows=8,
                data_set="style-words",
                aria_label=words.writer_words,
                aria_describedby="style-words-help",
                spellcheck="false",
            ),
            el("button", words.writer_words_usual, type="button", class_="small", data_act="captions-usual-words"),
            data_keep="style-words",
        ),
        data_keep=FOLD,
    )
    # A place of its own: what is typed below stays when a line comes or goes.
    return el("div", el("div", progress(writing.view)), fold)


def progress(view: CaptioningView | None) -> Markup | None:
    """How far it is, or what came of it."""
    if view is None:
        return None
    words = TEXTS.train
    if view.stage == "failed":
        return el("p", said(view.message), class_="problem", role="alert")
    amounts: dict[str, int | str] = {"done": view.done, "total": view.total, "written": view.written}
    if view.stage == "downloading":
        amounts |= {"done": size(view.done), "total": size(view.total)}
    line = words.writer_stages[view.stage].format(**amounts)
    if not view.is_open:
        unsaid = words.writer_unsaid.format(count=view.unsaid) if view.unsaid else None
        return el("p", line, " " if unsaid else None, unsaid, class_="help", role="status")
    stop = el("button", words.writer_stop, type="button", class_="small", data_act="captions-stop")
    share = el("progress", value=view.done, max=max(1, view.total), aria_label=words.writer)
    return el("div", share, el("span", line, role="status"), stop, class_="tool writing")


def question(writer: Writer, model: str, length: str, *, anew: bool) -> Markup:
    """Whether a model may be downloaded, with its size."""
    words = TEXTS.train
    line = words.writer_download.format(model=writer.name, size=size(writer.download_bytes))
    fetch = el(
        "button", words.writer_fetch, type="button", class_="small", data_act="captions-fetch",
        data_model=model, data_length=length, data_anew="yes" if anew else None,
    )  # fmt: skip
    return el("p", line, " ", fetch)
