"""The captions of a draft: a row for each image, what is wrong with them, and how to change many. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from app.files import picture_url
from app.html import el
from app.texts import TEXTS
from app.train.draft import card
from app.train.writer import FOLD, Writing, writer
from trainer.bases.tokens import TokenCount
from trainer.studio.views import DraftView, ImageView

CAPTIONS_SHOWN = 3
_EAST_ASIAN = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")


def captions(draft: DraftView, tokens: Mapping[str, TokenCount], writing: Writing | None = None) -> Markup | None:
    """The second card, or nothing while there are no images."""
    if not draft.images:
        return None
    words = TEXTS.train
    rows = [_caption(image, tokens.get(image.id)) for image in draft.images]
    wrong = _wrong_captions(draft.images, tokens)
    more = rows[CAPTIONS_SHOWN:]
    return card(
        words.captions,
        el("p", words.captions_hint, class_="help"),
        el("ul", [el("li", sentence) for sentence in wrong], class_="warnings", role="status") if wrong else None,
        el("button", words.writer_open, type="button", class_="small", data_open=FOLD)
        if any(not image.caption.strip() for image in draft.images)
        else None,
        el("div", rows[:CAPTIONS_SHOWN], class_="captions"),
        el(
            "details",
            el("summary", words.edit_all.format(count=len(rows))),
            el("div", more, class_="captions"),
            data_keep="captions",
        )
        if more
        else None,
        writer(writing or Writing()),
        _caption_tools(str(draft.settings.get("trigger") or "")),
        number=2,
    )


def _wrong_captions(images: Sequence[ImageView], tokens: Mapping[str, TokenCount]) -> list[str]:
    """A sentence for each thing that is wrong with the captions, with how many it concerns."""
    words = TEXTS.train
    missing = sum(not image.caption.strip() for image in images)
    over = [count.limit for count in tokens.values() if count.lost]
    foreign = sum(_is_foreign(image.caption) for image in images)
    said = []
    if missing:
        said.append(words.without_caption[missing > 1].format(missing=missing, count=len(images)))
    if over:
        said.append(words.too_long[len(over) > 1].format(long=len(over), limit=over[0]))
    if foreign:
        said.append(words.not_english[foreign > 1].format(count=foreign))
    return said


def _is_foreign(caption: str) -> bool:
    """Whether a caption is written in Chinese, Japanese or Korean: CLIP's text models were trained on English."""
    return _EAST_ASIAN.search(caption) is not None


def _caption(image: ImageView, tokens: TokenCount | None) -> Markup:
    words = TEXTS.train
    missing = not image.caption.strip()
    count: Markup | None = None
    if tokens is not None:
        over = tokens.lost > 0
        wrong = words.row_missing if missing else words.row_long if over else ""
        if not wrong and _is_foreign(image.caption):
            wrong = words.row_not_english
        count = el(
            "span",
            el("b", wrong) if wrong else None,
            el("span", _count(tokens)),
            class_="tokens over" if wrong else "tokens",
            title=words.tokens_hint.format(window=tokens.window_limit, limit=tokens.limit),
        )
    return el(
        "div",
        el("img", src=picture_url(image.path, 96), alt="", loading="lazy"),
        el(
            "input",
            type="text",
            value=image.caption,
            placeholder=words.caption_empty,
            data_set="caption",
            data_image=image.id,
            aria_label=words.caption_of.format(name=image.name),
            title=image.name,
            class_="missing" if missing else None,
            autocomplete="off",
        ),
        count,
        class_="caption",
    )


def _count(tokens: TokenCount) -> str:
    """How many tokens a caption has of those that are read, and what each window holds where it takes several."""
    if len(tokens.windows) == 1:
        return TEXTS.train.tokens.format(count=tokens.total, limit=tokens.window_limit)
    return TEXTS.train.tokens_in_windows.format(parts=tokens.written, limit=tokens.limit)


def _caption_tools(trigger: str) -> Markup:
    words = TEXTS.train

    def field(name: str, label: str) -> Markup:
        return el("label", el("span", label), el("input", type="text", name=name, autocomplete="off"))

    def button(label: str, act: str) -> Markup:
        return el("button", label, type="button", class_="small", data_act=act)

    return el(
        "details",
        el("summary", words.helpers),
        el("div", field("words", words.add_words), button(words.add, "captions-add"), class_="tool", data_fields=True),
        el(
            "div",
            field("find", words.find),
            field("replacement", words.replace),
            button(words.replace_all, "captions-replace"),
            class_="tool",
            data_fields=True,
        ),
        el(
            "div",
            button(words.from_names, "captions-names"),
            button(words.add_trigger, "captions-trigger") if trigger else None,
            class_="tool",
        ),
        data_keep="caption-tools",
    )
