"""The dialog behind the device's name: what is wrong with the studio, what takes its space, and a report for a bug."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from markupsafe import Markup

from app.files import REPORT
from app.html import el
from app.texts import TEXTS
from app.units import size
from trainer.studio.health import Space
from trainer.studio.report import installation

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

DIALOG = "health"


def answer(studio: Studio, act: str) -> Markup:
    """The dialog after a click: ``health`` opens it, ``repair`` and ``clean`` act; anything else closes it."""
    words = TEXTS.health
    done: list[str] = []
    if act == "repair":
        done = studio.health.repair()
    elif act == "clean":
        freed = studio.health.clean_up()
        done = [words.cleaned.format(size=size(freed)) if freed else words.nothing]
    elif act != "health":
        return Markup("")
    found = studio.health.examine()
    looked = installation()
    return dialog(
        versions=looked.versions,
        device=looked.device,
        wrong=[*looked.troubles, *(trouble.what for trouble in found)],
        can_repair=any(trouble.mend is not None for trouble in found),
        done=done,
        space=studio.health.space(),
    )


def dialog(
    *,
    versions: object,
    device: str,
    wrong: Sequence[str],
    can_repair: bool,
    done: Sequence[str],
    space: Space,
) -> Markup:
    """The dialog.

    Args:
        versions: package -> version.
        wrong, done: sentences.
        can_repair: something of it can be put right by itself.
    """
    words = TEXTS.health
    assert isinstance(versions, dict)
    close = el(
        "button", el("span", "\u00d7", aria_hidden="true"), type="button", class_="style-close", data_act="close",
        aria_label=words.close, title=words.close,
    )  # fmt: skip
    places = [(words.places[name], size(count)) for name, count in asdict(space).items() if count or name == "free"]
    inside = el(
        "div",
        close,
        el("h2", words.title),
        el("p", device, class_="help"),
        el("p", ", ".join(f"{name} {version}" for name, version in versions.items()), class_="help"),
        _sentences(words.done, done),
        _sentences(words.wrong, wrong) or el("p", words.well, role="status"),
        el("button", words.repair, type="button", class_="primary", data_act="repair") if can_repair else None,
        el("h3", words.space),
        el("dl", [(el("dt", name), el("dd", text)) for name, text in places], class_="style-facts"),
        el(
            "div",
            el("button", words.clean.format(size=size(space.spare)), type="button", data_act="clean",
               title=words.clean_help, disabled=not space.spare),
            el("a", words.report, class_="button", href=REPORT, download=True, title=words.report_help),
            class_="style-actions",
        ),
        el("p", words.report_help, class_="help"),
        class_="health-dialog", role="dialog", aria_modal="true", aria_label=words.title, tabindex=-1,
        data_dialog=DIALOG,
    )  # fmt: skip
    return el("div", el("div", class_="style-backdrop", data_act="close"), inside, class_="style-over")


def _sentences(title: str, sentences: Sequence[str]) -> Markup | None:
    if not sentences:
        return None
    return el("section", el("h3", title), el("ul", [el("li", each) for each in sentences]), role="status")
