"""The left of a run: its newest samples large, earlier ones below; at the end a wipe between before and after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from app.files import picture_url
from app.html import el
from app.texts import TEXTS
from trainer.events import Sampled
from trainer.studio.views import RunView

LARGE, SMALL = 640, 160
EXPECTED = 4
"""Samples of a round before the first is there, see `trainer.training.samples`."""


def pictures(run: RunView) -> Markup | None:
    """The card, or nothing for a draft."""
    words = TEXTS.train
    if run.state == "draft":
        return None
    rounds = _rounds(run.samples)
    if run.state == "finished" and len(rounds) > 1:
        return _card(words.before_after, "", _wipe(run, rounds[0], _in_file(run, rounds)), _earlier(run, rounds))
    if not rounds:
        return _card(words.samples, "", _skeletons(run), el("p", words.samples_waits, class_="help"))
    return _card(words.samples, _at(rounds[-1][0].step), _newest(run, rounds[-1]), _earlier(run, rounds[:-1]))


def _in_file(run: RunView, rounds: list[list[Sampled]]) -> list[Sampled]:
    """The samples of the step that the file holds; the last ones where that step drew none."""
    step = run.judgement.kept[0] if run.judgement is not None else None
    return next((group for group in rounds if group[0].step == step), rounds[-1])


def _card(title: str, aside: str, *children: Markup | None) -> Markup:
    heading = el("header", el("h2", title), el("span", aside, class_="aside") if aside else None)
    return el("section", heading, children, class_="card", aria_label=title)


def _rounds(samples: Sequence[Sampled]) -> list[list[Sampled]]:
    """The samples of one step together, oldest first."""
    ordered = sorted(samples, key=lambda sample: (sample.step, sample.index))
    return [list(group) for _, group in groupby(ordered, key=lambda sample: sample.step)]


def _at(step: int) -> str:
    words = TEXTS.train
    return words.sample_at.format(step=step) if step else words.sample_base


def _skeletons(run: RunView) -> Markup:
    samples = run.settings.get("samples") or {}
    count = len(samples.get("prompts") or ()) or EXPECTED
    return el(
        "ul", [el("li", el("span", class_="skeleton")) for _ in range(count)], class_="newest", aria_hidden="true"
    )


def _newest(run: RunView, samples: Sequence[Sampled]) -> Markup:
    return el(
        "ul",
        [el("li", _linked(run, sample, LARGE), el("span", sample.prompt)) for sample in samples],
        class_="newest" if len(samples) > 1 else "newest one",
    )


def _earlier(run: RunView, rounds: Sequence[Sequence[Sampled]]) -> Markup | None:
    """A strip with one small square for each round, oldest to newest."""
    if not rounds:
        return None
    words = TEXTS.train
    return el(
        "div",
        el("h3", words.earlier),
        el(
            "ol",
            [
                el(
                    "li",
                    el(
                        "div",
                        [_linked(run, sample, SMALL) for sample in samples[:4]],
                        class_=f"square of-{len(samples[:4])}",
                    ),
                    el("span", _at(samples[0].step)),
                )
                for samples in rounds
            ],
            class_="strip",
            tabindex=0,
            aria_label=words.earlier,
        ),
        class_="earlier",
    )


def _linked(run: RunView, sample: Sampled, side: int) -> Markup:
    said = TEXTS.train.sample_alt.format(prompt=sample.prompt, step=sample.step)
    picture = el("img", src=picture_url(run.folder / sample.path, side), alt=said, loading="lazy")
    return el("a", picture, href=picture_url(run.folder / sample.path), target="_blank", rel="noopener")


def _wipe(run: RunView, before: Sequence[Sampled], after: Sequence[Sampled]) -> Markup:
    """One large picture for each prompt, the first in sight; ``static/train/pictures.js`` changes them."""
    words = TEXTS.train
    pairs = [(old, new) for old, new in zip(before, after, strict=False) if old.index == new.index]
    return el(
        "div",
        [_pair(run, old, new, hidden=index > 0) for index, (old, new) in enumerate(pairs)],
        el(
            "div",
            [
                el(
                    "button",
                    el("img", src=picture_url(run.folder / new.path, SMALL), alt=""),
                    type="button",
                    data_show=index,
                    aria_label=words.show_pair.format(prompt=new.prompt),
                    aria_pressed="true" if index == 0 else "false",
                )
                for index, (_, new) in enumerate(pairs)
            ],
            class_="choices",
        )
        if len(pairs) > 1
        else None,
        class_="wipes",
    )


def _pair(run: RunView, old: Sampled, new: Sampled, *, hidden: bool) -> Markup:
    words = TEXTS.train
    return el(
        "figure",
        el(
            "div",
            el(
                "img",
                src=picture_url(run.folder / new.path, LARGE),
                alt=words.sample_alt.format(prompt=new.prompt, step=new.step),
            ),
            el("img", src=picture_url(run.folder / old.path, LARGE), alt="", class_="old"),
            el("i", class_="line", aria_hidden="true"),
            el("span", words.sample_base, class_="tag left", aria_hidden="true"),
            el("span", _at(new.step), class_="tag right", aria_hidden="true"),
            el("input", type="range", min=0, max=100, value=50, data_wipe=True, aria_label=words.wipe),
            class_="stage",
        ),
        el("figcaption", new.prompt),
        class_="wipe",
        hidden=hidden,
    )
