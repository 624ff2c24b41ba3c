"""Two runs side by side: what differs between them, their losses over each other, and the same prompts of both."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.files import picture_url
from app.html import el
from app.texts import TEXTS, said
from app.train.loss import two_losses
from app.train.monitor import origin_of
from app.units import duration
from trainer.studio.compared import Compared, Side

SIDE = 320


def beside(found: Compared) -> Markup:
    """The card that `Actions.click_compare` shows above a run."""
    words = TEXTS.train
    sides = (found.first, found.second)
    curves = two_losses([(side.name, side.loss_steps, side.losses) for side in sides])
    return el(
        "section",
        el(
            "header",
            el("h2", words.compare_title.format(first=found.first.name, second=found.second.name)),
            el("button", "\u00d7", type="button", class_="close", data_act="dismiss", aria_label=words.compare_close),
        ),
        [el("p", said(note), class_="help") for note in found.notes],
        _table(found),
        _images(found),
        _pictures(found),
        el("h3", words.loss) if curves else None,
        curves,
        class_="card beside",
        aria_label=words.compare_title.format(first=found.first.name, second=found.second.name),
    )


def _table(found: Compared) -> Markup:
    words = TEXTS.train
    sides = (found.first, found.second)
    rows = [
        (words.compare_origin, [origin_of(side.origin) if side.origin is not None else "" for side in sides]),
        (words.compare_images, [str(side.images) for side in sides]),
        (words.compare_steps, [str(side.step) for side in sides]),
        (words.compare_took, ["" if side.seconds is None else duration(side.seconds) for side in sides]),
        (words.loss_held, [_held_out(side) for side in sides]),
        (words.compare_kept, [_kept(side) for side in sides]),
    ]
    rows += [(_name(each.path), [_said(each.first), _said(each.second)]) for each in found.settings]
    return el(
        "table",
        el("thead", el("tr", el("td"), [el("th", side.name, scope="col") for side in sides])),
        el(
            "tbody",
            [
                el("tr", el("th", label, scope="row"), [el("td", value) for value in values])
                for label, values in rows
                if any(values)
            ],
        ),
        class_="sides",
    )


def _name(path: str) -> str:
    """What the form calls a setting, under its section."""
    words = TEXTS.train
    in_the_open = {"trigger": words.trigger, "base.source": words.base, "train.preset": words.preset}
    if path in in_the_open:
        return in_the_open[path]
    title = words.settings[path][0] if path in words.settings else path.rpartition(".")[2]
    section = words.section_names.get(path.partition(".")[0], "")
    return f"{section}: {title}" if section and "." in path else title


def _said(value: object) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return TEXTS.train.answers["yes" if value else "no"]
    return TEXTS.frame.comma.join(map(str, value)) if isinstance(value, list) else str(value)


def _kept(side: Side) -> str:
    if side.kept is None or side.style is None or side.subject is None:
        return ""
    words = TEXTS.train
    scores = words.pick_scores.format(style=f"{side.style:.2f}", subject=f"{side.subject:.2f}")
    name = words.pick_name.format(step=side.kept[0], strength=f"{side.kept[1]:g}")
    return TEXTS.frame.comma.join([name, scores])


def _held_out(side: Side) -> str:
    if not side.validation:
        return ""
    last = side.validation[-1]
    return TEXTS.train.compare_held.format(loss=f"{last.loss:.4f}", base=f"{last.base_loss:.4f}")


def _images(found: Compared) -> list[Markup]:
    words = TEXTS.train

    def told(sentence: str, names: Sequence[str], **more: str) -> Markup | None:
        return el("p", sentence.format(images=TEXTS.frame.comma.join(names), **more), class_="help") if names else None

    lines = [
        told(words.compare_only, found.only_first, name=found.first.name),
        told(words.compare_only, found.only_second, name=found.second.name),
        told(words.compare_captions, found.captions),
    ]
    return [line for line in lines if line is not None]


def _pictures(found: Compared) -> Markup | None:
    """A row of two for each prompt that both drew."""
    if not found.pairs:
        return None
    return el(
        "ol",
        [
            el(
                "li",
                [
                    el("img", src=picture_url(path, SIDE), alt=f"{pair.prompt}, {side.name}", loading="lazy")
                    for path, side in ((pair.first, found.first), (pair.second, found.second))
                ],
                el("span", pair.prompt),
            )
            for pair in found.pairs
        ],
        class_="pairs",
    )
