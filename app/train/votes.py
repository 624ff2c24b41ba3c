"""Blind pairs of judged states, and the ranking that comes of the votes. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.files import picture_url
from app.html import el
from app.texts import TEXTS
from trainer.judging.judgement import Judged
from trainer.judging.votes import Pair, Place, next_pair, preferred, ranking
from trainer.studio.views import RunView

SHOWN_AFTER = 5
"""Votes before the ranking is shown: an earlier one would only lead the eye."""


def votes(run: RunView) -> Markup | None:
    """The pair to decide and what was decided; nothing where there are no states to compare."""
    judged = run.judgement
    pair = next_pair(judged, run.votes) if judged is not None else None
    if judged is None or pair is None:
        return None
    words = TEXTS.train
    count = len(run.votes)
    return el(
        "details",
        el("summary", words.votes, el("small", words.votes_count.format(count=count)) if count else None),
        el("p", words.votes_help, class_="help"),
        _pair(run, pair, judged.prompts),
        _ranking(run, ranking(run.votes)) if count >= SHOWN_AFTER else None,
        data_keep="votes",
        class_="votes",
    )


def _pair(run: RunView, pair: Pair, prompts: Sequence[str]) -> Markup:
    words = TEXTS.train

    def picture(one: Judged, label: str) -> Markup:
        # One picture of the strip: the background is the whole strip, and the frame shows a part of it.
        share = 100 * pair.prompt / max(1, len(prompts) - 1)
        strip = picture_url(run.folder / one.pictures)
        style = f"background-image:url('{strip}');background-size:{100 * len(prompts)}% 100%;"
        return el("span", role="img", aria_label=label, style=f"{style}background-position:{share:.3f}% 0")

    def button(label: str, better: str) -> Markup:
        return el("button", label, type="button", data_act="vote", data_number=pair.number, data_better=better)

    return el(
        "div",
        el(
            "div",
            picture(pair.left, words.votes_side["left"]),
            picture(pair.right, words.votes_side["right"]),
            class_="pair",
        ),
        el("p", prompts[pair.prompt]),
        el(
            "div",
            button(words.vote_left, "left"),
            button(words.vote_same, "same"),
            button(words.vote_right, "right"),
            class_="actions",
        ),
    )


def _ranking(run: RunView, places: Sequence[Place]) -> Markup:
    words = TEXTS.train
    leader = preferred(places)

    def named(place: Place) -> str:
        return words.pick_name.format(step=place.step, strength=f"{place.strength:g}")

    def row(place: Place) -> Markup:
        low, high = 100 * place.low, 100 * place.high
        said = words.votes_place.format(
            score=round(100 * place.score), low=round(low), high=round(high), count=place.votes
        )
        bar = el("i", style=f"left:{low:.0f}%;width:{max(1.0, high - low):.0f}%", aria_hidden="true")
        return el("li", el("b", named(place)), el("span", said), el("span", bar, class_="interval"))

    assert run.judgement is not None
    kept = leader is not None and (leader.step, leader.strength) == run.judgement.kept
    keep = None
    if leader is not None and not kept:
        keep = el(
            "button", words.votes_keep, type="button", data_act="keep", data_step=leader.step,
            data_strength=f"{leader.strength:g}", data_ask=words.keep_ask.format(name=named(leader)),
            disabled=run.phase is not None,
        )  # fmt: skip
    said = words.votes_open if leader is None else words.votes_leads.format(name=named(leader))
    return el(
        "div",
        el("p", words.votes_ranking, class_="help"),
        el("ol", [row(place) for place in places], class_="ranking"),
        el("p", said, " ", keep),
    )
