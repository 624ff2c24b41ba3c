"""What a draft shows at the left of the Train tab: its images and the base. Pure functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from app.files import picture_url
from app.html import Child, el
from app.texts import TEXTS, said
from app.train.dials import at
from app.train.monitor import origin_line
from app.units import size
from trainer.bases.describe import BaseInfo
from trainer.config.sections import MOST_REPEATS
from trainer.data.captions import SIDECAR_SUFFIXES
from trainer.data.suffixes import READABLE_SUFFIXES
from trainer.findings import Finding
from trainer.studio.views import DraftView, ImageSet, ImageView

THUMB = 320


def card(title: str, *children: Child, number: int, aside: Child = None) -> Markup:
    """One of the numbered steps."""
    heading = el("h2", el("span", str(number), class_="number", aria_hidden="true"), title)
    return el("section", el("header", heading, aside), children, class_="card", aria_label=title)


# ---- images


def images(draft: DraftView, welcome: Child, reading: tuple[int, int] | None, sets: Sequence[ImageSet] = ()) -> Markup:
    """The first card: where to drop images, the images, and what is worth knowing about them.

    Args:
        welcome: what a draft without images shows first.
        reading: (images read, of how many) while an upload is taken in.
        sets: images that other runs have.
    """
    words = TEXTS.train
    count = len(draft.images)
    return card(
        words.images,
        origin_line(draft.origin),
        None if count or draft.removed or reading else welcome,
        _drop_zone(reading, compact=bool(count)),
        _sets(sets),
        _summary(draft) if count else None,
        el(
            "ul",
            [_image(image) for image in draft.images],
            class_="thumbs",
            data_words=json.dumps(asdict(words.editor), sort_keys=True),
            data_most=MOST_REPEATS,
        )
        if count
        else None,
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


def _sets(sets: Sequence[ImageSet]) -> Markup | None:
    if not sets:
        return None
    words = TEXTS.train
    options = [
        el("option", words.set_option.format(name=each.name, images=_counted(each.images)), value=each.run)
        for each in sets
    ]
    return el(
        "div",
        el("label", words.other_set, for_="other-set"),
        el("select", options, id="other-set", name="set"),
        el("button", words.take_set, type="button", data_act="take-set", data_tell=words.reading),
        class_="source sets",
        data_fields=True,
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
    images = _counted(len(draft.images))
    set_wide = [finding for finding in draft.findings if not finding.image]
    if not counts and not set_wide:
        return el("p", words.summary.format(images=images, facts=words.all_good), class_="summary")
    said = TEXTS.frame.comma.join(
        words.kind_count.format(count=count, kind=words.kinds.get(kind, (kind, kind))[count > 1])
        for kind, count in counts.items()
    )
    line = (words.summary if said else words.summary_plain).format(images=images, facts=said)
    remedies = [
        el("button", label, type="button", class_="small", data_act="remedy", data_kind=kind)
        for kind, label in words.remove_kind.items()
        if counts[kind]
    ]
    notes = [el("p", finding_line(finding), class_="help") for finding in set_wide]
    return el("div", el("p", line), remedies, notes, class_="summary")


def _image(image: ImageView) -> Markup:
    words = TEXTS.train
    left, top, right, bottom = image.crop
    shares = (left / image.width, top / image.height, right / image.width, bottom / image.height)
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
                "button",
                el(
                    "span",
                    el(
                        "img",
                        src=picture_url(image.path, THUMB),
                        alt="",
                        loading="lazy",
                    ),
                    None if whole else el("i", class_="crop", style=veil),
                    class_="frame wide" if image.width >= image.height else "frame tall",
                    style=f"aspect-ratio:{image.width}/{image.height}",
                ),
                type="button",
                class_="cell",
                data_edit=True,
                aria_label=words.editor.edit.format(name=image.name),
                title=words.editor.open,
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
            _badges(image),
            el("figcaption", image.name, title=about),
        ),
        data_editable=image.id,
        data_name=image.name,
        data_large=picture_url(image.path, 1024),
        data_part=image.part,
        data_crop=None if whole else ",".join(f"{share:.5f}" for share in shares),
        data_times=image.repeats,
    )


def finding_line(finding: Finding) -> str:
    """What is so and what is done about it, in the visitor's language."""
    return TEXTS.train.finding.format(message=said(finding.message), action=said(finding.action))


def _badges(image: ImageView) -> Markup | None:
    words = TEXTS.train
    times = el("span", f"\u00d7 {image.repeats}", class_="badge note", title=words.editor.times)
    badges = [times] if image.repeats > 1 else []
    badges += [
        el(
            "span",
            words.kinds.get(finding.kind, (finding.kind, finding.kind))[0],
            class_=f"badge {finding.severity}",
            title=finding_line(finding),
        )
        for finding in image.findings
        if not finding.kind.startswith("caption")
    ]
    return el("span", badges, class_="badges") if badges else None


def _removed(removed: Sequence[ImageView]) -> Markup | None:
    if not removed:
        return None
    words = TEXTS.train
    return el(
        "div",
        el("span", words.removed),
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


# ---- base


def base(draft: DraftView, found: BaseInfo | None, here: Sequence[Path] = ()) -> Markup:
    """The third card: which model learns, and what is known about it.

    Args:
        here: models in folders that people named.
    """
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
        _here(here, source),
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


def _here(models: Sequence[Path], source: str) -> Markup | None:
    words = TEXTS.train
    if not models:
        return None
    options = [
        el("option", model.name, value=str(model), selected=str(model) == source, title=str(model)) for model in models
    ]
    none = el("option", words.base_here_none, value="", selected=all(str(model) != source for model in models))
    choice = el("select", none, options, id="base-here", data_set="base.here")
    return el("div", el("label", words.base_here, for_="base-here"), choice, class_="source here")


def _base_facts(found: BaseInfo | None) -> Markup | None:
    if found is None:
        return None
    if found.problem:
        return el("p", said(found.problem), class_="problem")
    facts = [(found.family or "").upper() if found.family != "bundled" else ""]
    facts.append(f"{found.resolution} px" if found.resolution else "")
    facts.append(size(found.size_bytes) if found.size_bytes else "")
    line = TEXTS.train.base_fits.format(
        title=said(found.title), facts=TEXTS.frame.comma.join(fact for fact in facts if fact)
    )
    return el("div", el("p", line), [el("p", said(note), class_="help") for note in found.notes])
