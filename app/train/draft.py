"""What a draft shows at the left of the Train tab: its images, their captions, and the base. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from app.files import picture_url
from app.html import Child, el
from app.texts import TEXTS
from app.train.dials import at
from app.units import size
from trainer.bases.probe import BaseInfo
from trainer.data.captions import SIDECAR_SUFFIXES
from trainer.data.folder import READABLE_SUFFIXES
from trainer.findings import Finding
from trainer.studio.views import DraftView, ImageView

THUMB = 320
CAPTIONS_SHOWN = 3
_EAST_ASIAN = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")


def card(title: str, *children: Child, number: int, aside: Child = None) -> Markup:
    """One of the numbered steps."""
    heading = el("h2", el("span", str(number), class_="number", aria_hidden="true"), title)
    return el("section", el("header", heading, aside), children, class_="card", aria_label=title)


# ---- images


def images(draft: DraftView, welcome: Child, reading: tuple[int, int] | None) -> Markup:
    """The first card: where to drop images, the images, and what is worth knowing about them.

    Args:
        welcome: what a draft without images shows first.
        reading: (images read, of how many) while an upload is taken in.
    """
    words = TEXTS.train
    count = len(draft.images)
    return card(
        words.images,
        None if count or draft.removed or reading else welcome,
        _drop_zone(reading, compact=bool(count)),
        _summary(draft) if count else None,
        el("ul", [_image(image) for image in draft.images], class_="thumbs") if count else None,
        _removed(draft.removed),
        number=1,
        aside=el("span", _counted(count), class_="aside") if count else None,
    )


def _counted(count: int) -> str:
    return TEXTS.train.one_image if count == 1 else TEXTS.train.many_images.format(count=count)


def _drop_zone(reading: tuple[int, int] | None, *, compact: bool) -> Markup:
    words = TEXTS.train
    accept = ",".join([*sorted(READABLE_SUFFIXES), *SIDECAR_SUFFIXES, ".jsonl"])
    said = words.reading_count.format(done=reading[0], total=reading[1]) if reading else None
    return el(
        "div",
        el("strong", words.drop),
        el(
            "span",
            el("label", words.choose_files, el("input", type="file", multiple=True, accept=accept), class_="button"),
            el("label", words.choose_folder, el("input", type="file", webkitdirectory=True), class_="button"),
            class_="choices",
        ),
        el("span", words.drop_hint, class_="help"),
        el("span", el("span", said) if said else None, class_="busy", data_busy=True, role="status"),
        class_="drop compact" if compact else "drop",
        data_drop=True,
        data_sending=words.sending,
        data_reading=words.reading,
    )


def _summary(draft: DraftView) -> Markup:
    """Such as "12 images: 1 turned upright, 2 near-duplicates", with one click for what one can mend."""
    words = TEXTS.train
    counts: Counter[str] = Counter(
        kind
        for image in draft.images
        for kind in sorted({finding.kind for finding in image.findings})
        if not kind.startswith("caption")
    )
    set_wide = [finding for finding in draft.findings if not finding.image]
    if not counts and not set_wide:
        return el("p", f"{_counted(len(draft.images))}: {words.all_good}.", class_="summary")
    said = ", ".join(f"{count} {words.kinds.get(kind, (kind, kind))[count > 1]}" for kind, count in counts.items())
    line = f"{_counted(len(draft.images))}: {said}." if said else f"{_counted(len(draft.images))}."
    remedies = [
        el("button", label, type="button", class_="small", data_act="remedy", data_kind=kind)
        for kind, label in words.remove_kind.items()
        if counts[kind]
    ]
    notes = [el("p", f"{finding.message}: {finding.action}.", class_="help") for finding in set_wide]
    return el("div", el("p", line), remedies, notes, class_="summary")


def _image(image: ImageView) -> Markup:
    words = TEXTS.train
    left, top, right, bottom = image.crop
    # What lies outside the crop is veiled; places are shares of the picture, so any thumbnail size fits.
    veil = (
        f"left:{100 * left / image.width:.2f}%;top:{100 * top / image.height:.2f}%;"
        f"width:{100 * (right - left) / image.width:.2f}%;height:{100 * (bottom - top) / image.height:.2f}%"
    )
    whole = (right - left, bottom - top) == (image.width, image.height)
    about = words.crop_hint.format(
        width=image.width, height=image.height, bucket_width=image.bucket[0], bucket_height=image.bucket[1]
    )
    return el(
        "li",
        el(
            "figure",
            el(
                "span",
                el(
                    "span",
                    el("img", src=picture_url(image.path, THUMB), alt=image.name, loading="lazy", title=about),
                    None if whole else el("i", class_="crop", style=veil),
                    class_="frame wide" if image.width >= image.height else "frame tall",
                    style=f"aspect-ratio:{image.width}/{image.height}",
                ),
                class_="cell",
            ),
            el(
                "button",
                "\u00d7",
                type="button",
                class_="remove",
                data_act="remove",
                data_image=image.id,
                aria_label=words.remove.format(name=image.name),
                title=words.remove.format(name=image.name),
            ),
            _badges(image.findings),
            el("figcaption", image.name, title=about),
        ),
    )


def _badges(findings: Iterable[Finding]) -> Markup | None:
    words = TEXTS.train
    badges = [
        el(
            "span",
            words.kinds.get(finding.kind, (finding.kind, finding.kind))[0],
            class_=f"badge {finding.severity}",
            title=f"{finding.message}: {finding.action}.",
        )
        for finding in findings
        if not finding.kind.startswith("caption")
    ]
    return el("span", badges, class_="badges") if badges else None


def _removed(removed: Sequence[ImageView]) -> Markup | None:
    if not removed:
        return None
    words = TEXTS.train
    return el(
        "div",
        el("span", f"{words.removed}: "),
        [
            el(
                "button",
                words.put_back.format(name=image.name),
                type="button",
                class_="small",
                data_act="restore-image",
                data_image=image.id,
            )
            for image in removed
        ],
        el("button", words.put_all_back, type="button", class_="small", data_act="restore-images")
        if len(removed) > 1
        else None,
        class_="removed",
    )


# ---- captions


def captions(draft: DraftView, tokens: Mapping[str, tuple[int, int]]) -> Markup | None:
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
        el("div", rows[:CAPTIONS_SHOWN], class_="captions"),
        el(
            "details",
            el("summary", words.edit_all.format(count=len(rows))),
            el("div", more, class_="captions"),
            data_keep="captions",
        )
        if more
        else None,
        _caption_tools(str(draft.settings.get("trigger") or "")),
        number=2,
    )


def _wrong_captions(images: Sequence[ImageView], tokens: Mapping[str, tuple[int, int]]) -> list[str]:
    """A sentence for each thing that is wrong with the captions, with how many it concerns."""
    words = TEXTS.train
    missing = sum(not image.caption.strip() for image in images)
    over = [limit for count, limit in tokens.values() if count > limit]
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


def _caption(image: ImageView, tokens: tuple[int, int] | None) -> Markup:
    words = TEXTS.train
    missing = not image.caption.strip()
    count: Markup | None = None
    if tokens is not None:
        over = tokens[0] > tokens[1]
        wrong = words.row_missing if missing else words.row_long if over else ""
        if not wrong and _is_foreign(image.caption):
            wrong = words.row_not_english
        count = el(
            "span",
            el("b", wrong) if wrong else None,
            el("span", words.tokens.format(count=tokens[0], limit=tokens[1])),
            class_="tokens over" if wrong else "tokens",
            title=words.tokens_hint,
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


# ---- base


def base(draft: DraftView, found: BaseInfo | None) -> Markup:
    """The third card: which model learns, and what is known about it."""
    words = TEXTS.train
    source = str(at(draft.settings, "base.source") or "bundled")
    picked = source if source in words.base_picks else ""

    def option(value: str, title: str, hint: str) -> Markup:
        return el(
            "label",
            el("input", type="radio", name="base", value=value, checked=picked == value, data_set="base"),
            el("span", el("b", title), el("span", hint)),
            class_="pick",
        )

    return card(
        words.base,
        el("p", words.base_hint, class_="help"),
        el(
            "div",
            [option(value, title, hint) for value, (title, hint) in words.base_picks.items()],
            option("", words.base_other, words.base_other_hint),
            class_="picks",
            role="radiogroup",
            aria_label=words.base,
        ),
        el(
            "div",
            el("label", words.base_source, for_="base-source"),
            el(
                "input",
                id="base-source",
                name="source",
                type="text",
                value="" if picked else source,
                placeholder=words.base_placeholder,
                data_set="base.source",
                autocomplete="off",
                spellcheck="false",
            ),
            el("button", words.check, type="button", data_act="check-base", data_tell=words.checking),
            class_="source",
            data_fields=True,
            hidden=bool(picked),
        ),
        el("div", _base_facts(found), class_="found", role="status", data_busy=True),
        # Without images there is no second card.
        number=3 if draft.images else 2,
    )


def _base_facts(found: BaseInfo | None) -> Markup | None:
    if found is None:
        return None
    if found.problem:
        return el("p", found.problem, class_="problem")
    facts = [(found.family or "").upper() if found.family != "bundled" else ""]
    facts.append(f"{found.resolution} px" if found.resolution else "")
    facts.append(size(found.size_bytes) if found.size_bytes else "")
    line = TEXTS.train.base_fits.format(title=found.title, facts=", ".join(fact for fact in facts if fact))
    return el("div", el("p", line), [el("p", note, class_="help") for note in found.notes])
