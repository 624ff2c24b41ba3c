"""What can be made of the style that is open: smaller, merged with another one, shared. Folded below its facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from app.files import download_url, share_url
from app.html import Child, el
from app.library.anatomy import shared
from app.texts import TEXTS, said
from app.units import size
from trainer.adapters.targets import HALVES
from trainer.publishing.card import LICENSES
from trainer.publishing.parcel import Choices
from trainer.studio.sharing import PackedView
from trainer.studio.views import ComparedView, StyleCard

_RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
_LICENSES = tuple(key for key in LICENSES if key not in ("other", "unknown"))


@dataclass(frozen=True)
class ShareForm:
    """What was chosen when a style was packed, and what came of it."""

    packed: PackedView | None = None
    choices: Choices = field(default_factory=Choices)
    sent: str = ""


def rework(card: StyleCard, others: Sequence[StyleCard]) -> list[Child]:
    """The forms that make a new style of this one."""
    words = TEXTS.library
    ranks = [rank for rank in _RANKS if card.rank is None or rank < card.rank]
    smaller = None
    if ranks:
        offered = {str(rank): str(rank) for rank in ranks}
        smaller = el(
            "div",
            _labelled(words.lower_rank, _choice("rank", offered, str(ranks[-1]))),
            el("button", words.save_smaller, type="button", data_act="smaller"),
            class_="style-tool", data_fields=True,
        )  # fmt: skip
    partners = [other for other in others if other.id != card.id and other.family == card.family]
    merge: Child = el("p", words.no_partner)
    if partners:
        named = {other.id: other.name for other in partners}
        keep_all = {"": words.every_rank, **{str(rank): str(rank) for rank in _RANKS[2:]}}
        merge = el(
            "div",
            _labelled(words.merge_with, _choice("other", named, partners[0].id)),
            _labelled(words.own_strength.format(name=card.name), _number("strength")),
            _labelled(words.other_strength, _number("other_strength")),
            _labelled(words.rank_label, _choice("rank", keep_all, "")),
            el("button", words.save_merged, type="button", data_act="merge"),
            class_="style-tool", data_fields=True,
        )  # fmt: skip
    parts = {key: title for key, title in words.parts.items() if key not in HALVES or card.family == "sdxl"}
    part = el(
        "div",
        _labelled(words.part, _choice("keep", parts, next(iter(parts)))),
        el("button", words.save_part, type="button", data_act="part"),
        class_="style-tool", data_fields=True,
    )  # fmt: skip
    half = el(
        "a", words.download_half, class_="button", href=download_url(card.id, card.layout, half=True), download=True
    )
    return [el("p", words.rework_help), smaller, merge, part, el("div", half, class_="style-tool")]


def compare(card: StyleCard, others: Sequence[StyleCard], found: ComparedView | None) -> list[Child]:
    """The choice of a style to compare with; once that is done, what differs."""
    words = TEXTS.library
    partners = {other.id: other.name for other in others if other.id != card.id and other.family == card.family}
    if not partners:
        return [el("p", words.no_partner)]
    known = found if found is not None and found.styles[0] == card.id and found.styles[1] in partners else None
    asked = el(
        "div",
        _labelled(words.compare_with, _choice("other", partners, known.styles[1] if known else next(iter(partners)))),
        el("button", words.compare_now, type="button", data_act="compare"),
        class_="style-tool", data_fields=True,
    )  # fmt: skip
    if known is None:
        return [asked]
    degrees = round(math.degrees(known.angle))
    facts = [
        words.angle.format(degrees=degrees),
        words.sizes.format(first=f"{known.norms[0]:.3g}", second=f"{known.norms[1]:.3g}"),
        words.layers_shared.format(shared=known.shared, first=known.alone[0], second=known.alone[1]),
    ]
    head = el("tr", el("th", words.fact, scope="col"), [el("th", name, scope="col") for name in known.names])
    rows = [
        el(
            "tr",
            el("th", key, scope="row"),
            [el("td", TEXTS.library.nothing if said is None else said[:200]) for said in values],
        )
        for key, values in known.settings.items()
    ]
    table = el("table", el("thead", head), el("tbody", rows), class_="style-differences") if rows else None
    maps = shared(known.shared_directions, known.names)
    return [asked, el("ul", [el("li", fact) for fact in [*facts, *map(said, known.notes)]]), *maps, table]


def share(card: StyleCard, form: ShareForm) -> list[Child]:
    """The form that packs a style; once it is packed, what would be sent, and how to send it."""
    words = TEXTS.library
    privacy = {"strip": words.private_out, "keep": words.private_in}
    chosen = el(
        "div",
        _labelled(words.private, _choice("private", privacy, "keep" if form.choices.keep_private else "strip")),
        _labelled(words.license, el("input", type="text", name="license", value=form.choices.license, maxlength=100,
                                    list="style-licenses", placeholder=words.license_hint)),
        el("datalist", [el("option", value=key) for key in _LICENSES], id="style-licenses"),
        _labelled(words.base_on_hub, el("input", type="text", name="base", value=form.choices.base, maxlength=200,
                                        placeholder="USER/NAME")),
        el("button", words.pack, type="button", data_act="pack"),
        class_="style-tool", data_fields=True,
    )  # fmt: skip
    parts: list[Child] = [el("p", words.share_help), chosen]
    packed = form.packed
    if packed is None or packed.style != card.id:
        return parts
    files = [el("li", el("span", name), el("span", size(count))) for name, count in packed.files.items()]
    ask = words.push_ask.format(count=len(packed.files))
    push = el(
        "div",
        _labelled(words.repository, el("input", type="text", name="repo", maxlength=200, placeholder="USER/NAME")),
        _labelled(words.seen_by, _choice("hidden", {"": words.everybody, "private": words.only_me}, "")),
        el("button", words.push, type="button", data_act="push", data_ask=ask),
        class_="style-tool", data_fields=True,
    )  # fmt: skip
    return [
        *parts,
        el("ul", files, class_="style-parcel"),
        [el("p", said(note)) for note in packed.notes],
        el("div", el("a", words.download_zip.format(size=size(packed.size)), class_="button", download=True,
                     href=share_url(card.id)), class_="style-tool"),
        el("p", words.push_help),
        push,
        el("p", words.sent.format(address=form.sent), role="status") if form.sent else None,
    ]  # fmt: skip


def _choice(name: str, offered: Mapping[str, str], chosen: str) -> Markup:
    options = [el("option", title, value=key, selected=key == chosen) for key, title in offered.items()]
    return el("select", options, name=name)


def _labelled(title: str, field: Markup) -> Markup:
    return el("label", el("span", title), field)


def _number(name: str) -> Markup:
    return el("input", type="text", inputmode="decimal", name=name, value="1", maxlength=10)
