"""What the Library tab's panels show, from the studio's plain values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from app.files import download_url, picture_url
from app.html import Child, el
from app.library.anatomy import anatomy
from app.library.tools import ShareForm, compare, rework, share
from app.texts import TEXTS, said
from app.train.loss import loss_plot
from app.train.monitor import opens
from app.units import duration, size
from trainer.bases.families import BUNDLED, FAMILIES, title_of
from trainer.config import FileLayout
from trainer.errors import AdapterFileError
from trainer.events import Sampled
from trainer.studio.views import AnatomyView, ComparedView, RunView, StyleCard, StyleView
from trainer.styles.alpha import Alpha

MOST_CHARACTERS = 600
"""Of a value in a file's metadata."""


def shelf(found: Sequence[StyleCard], *, filtered: bool) -> Markup:
    """The gallery; ``filtered`` tells an empty library from a search that found nothing."""
    words = TEXTS.library
    if not found:
        return el("p", words.no_match if filtered else words.empty, class_="cards-empty")
    return el("ul", [_card(card) for card in found], class_="cards-grid", aria_label=words.styles)


def _card(card: StyleCard) -> Markup:
    if card.thumbnails:
        pictures: Child = [
            el("img", src=picture_url(path, 320), alt="", loading="lazy", draggable="false")
            for path in card.thumbnails[:4]
        ]
    else:
        pictures = el("span", card.name[:1], class_="style-card-initial", aria_hidden="true")
    button = el(
        "button",
        el("span", pictures, class_=f"style-card-pictures of-{max(1, min(4, len(card.thumbnails)))}"),
        el("span", card.name, class_="style-card-name"),
        el("span", card.trigger, class_="style-card-trigger") if card.trigger else None,
        el("span", card_facts(card), class_="style-card-facts"),
        el("span", [el("span", tag) for tag in card.tags], class_="style-card-tags") if card.tags else None,
        type="button", class_="style-card", data_act="open", data_id=card.id,
    )  # fmt: skip
    return el("li", button)


def card_facts(card: StyleCard) -> str:
    """Base, rank, size and date in one line."""
    parts = [base_title(card)] if base_title(card) else []
    if card.rank is not None:
        parts.append(TEXTS.library.rank.format(rank=card.rank))
    if card.strength is not None:
        parts.append(TEXTS.library.best_at.format(strength=f"{card.strength:g}"))
    return " \u00b7 ".join([*parts, size(card.size_bytes), day(card.created)])


def base_title(card: StyleCard) -> str:
    """The base for people: the family's title for the bundled one, else its own name."""
    family = FAMILIES.get(card.family)
    if family is not None and card.base in ("", "bundled", card.family):
        return family.title
    return card.base.rstrip("/").rsplit("/", 1)[-1]


def day(when: float) -> str:
    """A date without the time."""
    return time.strftime("%Y-%m-%d", time.localtime(when))


def families(found: Iterable[StyleCard], chosen: str) -> Markup | None:
    """A choice of bases to narrow the shelf to, once the library holds styles of several."""
    words = TEXTS.library
    keys = sorted({card.family for card in found if card.family})
    if len(keys) < 2:
        return None
    offered = [("", words.all_families), *((key, title_of(key)) for key in keys)]
    buttons = [
        el(
            "button", title, type="button", data_act="family", data_family=key,
            aria_pressed="true" if key == chosen else "false",
        )
        for key, title in offered
    ]  # fmt: skip
    return el("div", buttons, class_="library-families", role="group", aria_label=words.family)


def tags(found: Iterable[StyleCard], chosen: str) -> Markup | None:
    """A choice of tags to narrow the shelf to, once any style has one; a second press shows all again."""
    names = sorted({tag for card in found for tag in card.tags}, key=str.casefold)
    if not names:
        return None
    buttons = [
        el("button", name, type="button", data_act="tag", data_tag=name,
           aria_pressed="true" if name == chosen else "false")
        for name in names
    ]  # fmt: skip
    return el("div", buttons, class_="library-families", role="group", aria_label=TEXTS.library.tags)


def note(sentence: str, *, undo: bool) -> Markup:
    """What was done last, with a way back; screen readers speak it when it changes."""
    back = el("button", TEXTS.library.undo, type="button", data_act="undo") if undo else None
    return el("div", el("p", sentence, role="status", aria_live="polite"), back, class_="library-note")


def alpha_form(name: str) -> Markup:
    """Asks for the alpha that a file does not say; its fields come with the click."""
    words = TEXTS.library
    number = el("input", type="text", inputmode="decimal", name="alpha", maxlength=20)
    ways = [el("option", words.alpha_plain, value="plain"), el("option", words.alpha_root, value="root")]
    fields = [
        el("label", el("span", words.alpha), number),
        el("label", el("span", words.alpha_counts), el("select", ways, name="counts")),
    ]
    buttons = [
        el("button", words.alpha_import, type="button", class_="primary", data_act="alpha"),
        el("button", words.alpha_rank, type="button", data_act="alpha-rank"),
        el("button", words.alpha_cancel, type="button", data_act="alpha-cancel"),
    ]
    asked = el("p", words.alpha_asked.format(name=name), role="status", aria_live="polite")
    return el("div", asked, el("div", fields, buttons), class_="library-alpha", data_fields="")


def opened(
    style: StyleView,
    others: Sequence[StyleCard] = (),
    form: ShareForm | None = None,
    compared: ComparedView | None = None,
    looked_into: AnatomyView | None = None,
) -> Markup:
    """A style over the gallery: its pictures first, what can be done with it, and the rest folded.

    Args:
        others: styles that it can be merged with, as far as their bases agree.
        form: how it was shared last.
        compared: what it was compared with last.
        looked_into: what was found when a style was looked into last.
    """
    words, card = TEXTS.library, style.card
    close = el(
        "button", el("span", "\u00d7", aria_hidden="true"), type="button", class_="style-close", data_act="close",
        aria_label=words.close, title=words.close,
    )  # fmt: skip
    inside = el(
        "div",
        close,
        el("div", _pictures(style), class_="style-show"),
        el(
            "div",
            _title(card), _actions(style), _opens(style), _notes(style), _facts(style),
            _folded(style, others, form or ShareForm(), compared, looked_into),
            class_="style-about",
        ),
        class_="style-dialog", role="dialog", aria_modal="true", aria_label=card.name, tabindex=-1, data_dialog=card.id,
    )  # fmt: skip
    return el("div", el("div", class_="style-backdrop", data_act="close"), inside, class_="style-over")


def _title(card: StyleCard) -> Markup:
    words = TEXTS.library
    trigger = el("p", card.trigger, class_="style-trigger") if card.trigger else None
    tags = el(
        "input", type="text", value=TEXTS.frame.comma.join(card.tags), maxlength=400, class_="style-tags",
        placeholder=words.tags_placeholder, aria_label=words.tags, title=words.tags_help, data_set="tags",
        data_image=card.id,
    )  # fmt: skip
    if card.origin == "linked":
        return el("div", el("h2", card.name, class_="style-name"), trigger, tags)
    name = el(
        "input", type="text", value=card.name, maxlength=80, class_="style-name", aria_label=words.name,
        title=words.name_help, data_set="name", data_image=card.id,
    )  # fmt: skip
    return el("div", name, trigger, tags)


def _actions(style: StyleView) -> Markup:
    """One filled button; the rest are quiet."""
    words, card = TEXTS.library, style.card
    again = el("button", words.again, type="button", data_act="again") if style.run is not None else None
    first = el("button", words.try_it, type="button", class_="primary", data_act="try")
    download = el(
        "a", f"{words.download} ({size(card.size_bytes)})", class_="button", download=True,
        href=download_url(card.id, card.layout), title=_opens_in(card, card.layout),
    )  # fmt: skip
    other: FileLayout = "diffusers" if card.layout == "kohya" else "kohya"
    second = el(
        "a", words.download_other.format(layout=words.layouts[other]), class_="button",
        href=download_url(card.id, other), download=True, title=_opens_in(card, other),
    )  # fmt: skip
    # What lies in somebody's own folder is theirs to delete.
    delete = el("button", words.delete, type="button", data_act="delete") if card.origin != "linked" else None
    return el("div", first, download, again, second, delete, class_="style-actions")


def _opens(style: StyleView) -> Markup | None:
    return opens(style.run.opens) if style.run is not None else None


def _notes(style: StyleView) -> list[Markup]:
    """What was left out of a file from elsewhere, and who reads it, as found at its import."""
    return [el("p", said(str(note)), class_="style-note") for note in style.inspection.get("notes", ())]


def _opens_in(card: StyleCard, layout: FileLayout) -> str:
    words = TEXTS.library
    return words.download_small if card.family == BUNDLED.key else words.download_help[layout]


def _pictures(style: StyleView) -> list[Markup]:
    """Base beside style with the weights of the file; else what the file brought along."""
    words, card, run = TEXTS.library, style.card, style.run
    if run is not None and run.sheet is not None:
        url = picture_url(run.sheet)
        image = el("img", src=url, alt=words.sheet_alt.format(name=card.name))
        return [el("a", image, href=url, target="_blank", rel="noopener", class_="style-sheet")]
    if card.thumbnails:
        images = [_image(picture_url(path, 720), card.name) for path in card.thumbnails]
        return [el("div", images, class_="style-pictures")]
    return [el("p", words.no_pictures, class_="style-no-pictures")]


def _facts(style: StyleView) -> Markup:
    words, card, run = TEXTS.library, style.card, style.run
    rows = [(words.base, base_title(card)), (words.rank_label, "" if card.rank is None else str(card.rank))]
    rows.append((words.alpha, _alpha(style)))
    rows += [(words.size, size(card.size_bytes)), (words.layout, words.layouts[card.layout])]
    rows.append((words.made, time.strftime("%Y-%m-%d %H:%M", time.localtime(card.created))))
    rows.append((words.origin, words.origins[card.origin]))
    rows.append((words.lies_in, str(card.file) if card.origin == "linked" else ""))
    rows.append((words.twins, TEXTS.frame.comma.join(style.twins)))
    if run is not None:
        rows.append((words.steps, str(run.step)))
        rows.append((words.duration, duration(run.seconds) if run.seconds else ""))
    return el("dl", [(el("dt", name), el("dd", value)) for name, value in rows if value], class_="style-facts")


def _alpha(style: StyleView) -> str:
    """What was answered for a file that did not say its alpha."""
    words = TEXTS.library
    try:
        said = Alpha.kept(style.card.file, style.metadata)
    except AdapterFileError:
        return ""
    if said is None:
        return ""
    alpha = words.alpha_is_rank if said.value is None else f"{said.value:g}"
    return words.alpha_said.format(alpha=f"{alpha} (rsLoRA)" if said.by_root else alpha)


def _folded(
    style: StyleView,
    others: Sequence[StyleCard],
    form: ShareForm,
    compared: ComparedView | None,
    looked_into: AnatomyView | None,
) -> list[Markup | None]:
    """What can be made of it, how it came to be, and what its file says."""
    words, run = TEXTS.library, style.run
    parts: list[Markup | None] = [
        _fold("share", words.share, share(style.card, form)),
        _fold("rework", words.rework, rework(style.card, others)),
        _fold("compare", words.compare, compare(style.card, others, compared)),
        _fold("inside", words.look_inside, anatomy(style.card, looked_into)),
    ]
    if run is not None:
        parts.append(_fold("samples", words.samples, samples(run)))
        parts.append(_fold("learning", words.learning, loss_plot(run.loss_steps, run.losses, run.validation, run.step)))
        ticks = [el("li", said(line)) for line in run.verified]
        parts.append(_fold("verified", words.verified, el("ul", ticks, class_="style-ticks")) if ticks else None)
    parts.append(_fold("metadata", words.metadata, metadata(style)))
    return parts


def _fold(name: str, title: str, inside: Child) -> Markup | None:
    return el("details", el("summary", title), inside, data_keep=f"style-{name}") if inside else None


def samples(run: RunView) -> list[Markup]:
    """A strip for each prompt, oldest to newest, and for each step that is still saved a way to try it."""
    words = TEXTS.library
    kept = {point.step for point in run.checkpoints}
    strips: list[Markup] = []
    for prompt, group in by_prompt(run.samples).items():
        pictures = [
            el(
                "li",
                _image(
                    picture_url(run.folder / sample.path, 240), words.sample_alt.format(prompt=prompt, step=sample.step)
                ),
                _under(sample.step, sample.step in kept and not strips),
            )
            for sample in group
        ]
        strips.append(el("div", el("h3", prompt), el("ol", pictures, class_="style-strip", tabindex=0)))
    others = sorted(kept - {sample.step for sample in run.samples})
    if others:
        buttons = [el("li", _under(step, True)) for step in others]
        strips.append(el("div", el("h3", words.checkpoints), el("ul", buttons, class_="style-checkpoints")))
    return strips


def by_prompt(samples: Iterable[Sampled]) -> dict[str, list[Sampled]]:
    """Samples of each prompt in order of steps."""
    found: dict[str, list[Sampled]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.index, sample.step)):
        found.setdefault(sample.prompt, []).append(sample)
    return found


def _under(step: int, kept: bool) -> Markup:
    words = TEXTS.library
    label = words.at_step.format(step=step)
    if not kept:
        return el("span", label)
    title = words.try_checkpoint.format(step=step)
    return el("button", label, type="button", data_act="checkpoint", data_step=step, title=title)


def metadata(style: StyleView) -> Markup:
    """What the file says about itself; pictures in it are left out, long values cut."""
    if not style.metadata:
        return el("p", TEXTS.library.no_metadata)
    rows = [
        (el("dt", key), el("dd", value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]} ..."))
        for key, value in sorted(style.metadata.items())
        if not value.startswith("data:")
    ]
    return el("dl", rows, class_="style-metadata")


def _image(url: str, alt: str) -> Markup:
    return el("img", src=url, alt=alt, loading="lazy")
