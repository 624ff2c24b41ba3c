"""What a small base says that it draws well, folded below a field for prompts: one press puts a subject in."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.html import el
from app.texts import TEXTS


def known(subjects: Sequence[str], help_text: str, *, keep: str) -> Markup | None:
    """The list, or nothing for a base that names no subjects.

    A press is the action ``subject`` with the subject as its item. Subjects stay in the language of the base, because
    they are what it was taught.

    Args:
        help_text: what a press does.
        keep: the list's name on the page, under which it stays open or closed.
    """
    if not subjects:
        return None
    return el(
        "details",
        el("summary", TEXTS.frame.known_subjects.format(count=len(subjects))),
        el("p", help_text, class_="help"),
        el(
            "ul",
            [el("li", el("button", each, type="button", data_act="subject", data_item=each)) for each in subjects],
            lang="en",
        ),
        class_="known",
        data_keep=keep,
    )


def with_subject(prompt: str, subject: str, triggers: Sequence[str] = ()) -> str:
    """A prompt that asks for another subject: what stands before its first comma is exchanged, all else stays.

    Args:
        triggers: words that call styles; a prompt of these alone had no subject yet.
    """
    first, _, rest = prompt.partition(",")
    if first.strip().casefold() in {each.strip().casefold() for each in triggers}:
        rest = prompt
    return f"{subject}, {rest.strip()}" if rest.strip() else subject
