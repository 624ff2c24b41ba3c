"""What a run shows while it trains and when it is done: progress, pictures, loss. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from app.files import download_url, picture_url
from app.html import el
from app.texts import TEXTS
from app.train.loss import loss_plot
from app.units import duration, size
from trainer.studio.store import Wish
from trainer.studio.views import RunView, SampleView

STRIP = 384
LIVE_SHARES = 10
"""A screen reader hears of progress this many times a run."""


def progress(run: RunView, *, next_up: bool) -> Markup:
    """The right panel of a run: how far it is, and what one can do.

    Args:
        next_up: nothing else is in training, so a run that waits begins as soon as the worker is there.
    """
    words = TEXTS.train
    share = run.step / run.steps if run.steps else 0.0
    alive = run.state == "training"
    return el(
        "section",
        el("h2", run.name),
        el("p", _state(run, next_up=next_up), class_="state alive" if alive else "state"),
        el(
            "div",
            el("i", style=f"width:{100 * share:.1f}%"),
            class_="bar alive" if alive else "bar",
            role="progressbar",
            aria_valuemin=0,
            aria_valuemax=run.steps,
            aria_valuenow=run.step,
            aria_label=words.step_of.format(step=run.step, steps=run.steps),
        )
        if run.state not in ("draft", "queued", "finished")
        else None,
        el("p", _numbers(run), class_="numbers"),
        el("p", run.error, class_="problem", role="alert") if run.error else None,
        _finished(run) if run.state == "finished" else None,
        _actions(run),
        _facts(run),
        class_="monitor",
        aria_label=run.name,
    )


def live(run: RunView) -> Markup:
    """A sentence for screen readers that changes seldom."""
    words = TEXTS.train
    if run.state == "training" and run.step and run.steps:
        percent = 100 * (LIVE_SHARES * run.step // run.steps) // LIVE_SHARES
        return Markup(el("span", words.live_progress.format(name=run.name, percent=percent)))
    return el("span", words.live_state.format(name=run.name, state=words.states[run.state]))


def _state(run: RunView, *, next_up: bool) -> str:
    words = TEXTS.train
    if run.state == "training":
        if run.wish is not Wish.NONE:
            return words.wishes[run.wish]
        if run.phase is not None:
            name = words.phases.get(run.phase.name, run.phase.name)
            done = f" {run.phase.done} / {run.phase.total}" if run.phase.total and run.phase.name != "training" else ""
            return f"{name}{done}"
    if run.state == "queued" and run.queue_place == 1 and next_up:
        return words.starting_worker
    if run.state == "queued" and run.queue_place:
        return f"{words.states['queued']}, {words.place.format(place=run.queue_place)}"
    return words.states[run.state]


def _numbers(run: RunView) -> str:
    words = TEXTS.train
    parts = [words.step_of.format(step=run.step, steps=run.steps)] if run.steps else []
    if run.state == "training":
        if run.samples_per_second:
            parts.append(words.speed.format(value=f"{run.samples_per_second:.1f}"))
        if run.seconds_left is not None and run.step:
            parts.append(words.left.format(time=duration(run.seconds_left)))
    elif run.seconds is not None:
        parts.append(words.took.format(time=duration(run.seconds)))
    return ", ".join(parts)


def _actions(run: RunView) -> Markup:
    words = TEXTS.train

    def button(label: str, act: str, *, kind: str = "", hint: str = "", ask: str = "") -> Markup:
        return el(
            "button", label, type="button", class_=kind or None, data_act=act, title=hint or None, data_ask=ask or None
        )

    cancel = button(words.cancel, "cancel", ask=words.cancel_ask)
    stop = button(words.stop_keep, "stop", hint=words.stop_keep_help)
    started = run.step > 0
    match run.state:
        case "training":
            waiting = run.wish is not Wish.NONE
            buttons = [
                button(words.try_now, "try", kind="primary") if started else None,
                button(words.resume, "resume") if run.wish is Wish.PAUSE else None,
                None if waiting else button(words.pause, "pause"),
                None if waiting or not started else stop,
                None if run.wish is Wish.CANCEL else cancel,
            ]
        case "queued":
            buttons = [button(words.unqueue, "unqueue")]
        case "paused":
            buttons = [button(words.resume, "resume", kind="primary"), stop if started else None, cancel]
        case "failed" | "cancelled":
            buttons = [button(words.resume, "resume", kind="primary"), button(words.again, "again")]
        case "finished":
            buttons = [button(words.again, "again")]
        case _:
            buttons = []
    return el("div", buttons, class_="actions")


def _finished(run: RunView) -> Markup:
    words = TEXTS.train
    file_size = size(run.adapter.stat().st_size) if run.adapter is not None and run.adapter.exists() else ""
    return el(
        "div",
        el(
            "div",
            el("button", words.open_preview, type="button", class_="primary", data_act="preview"),
            el(
                "a",
                words.download,
                el("small", file_size),
                href=download_url(run.id),
                download=True,
                class_="button",
                data_role="download",
            ),
            class_="actions",
        ),
        el("ul", [el("li", tick) for tick in run.verified], class_="ticks", aria_label=words.verified),
    )


def _facts(run: RunView) -> Markup | None:
    words = TEXTS.train
    plan = run.plan
    lines = []
    if plan is not None:
        lines.append(
            words.plan_line.format(
                images=plan.images,
                steps=plan.steps,
                batch=plan.batch_size,
                side=plan.resolution,
                rank=plan.rank,
                rate=f"{plan.learning_rate:.3g}",
                device=plan.device,
            )
            + "."
        )
        lines += plan.notes
    notices = [el("p", notice.text, class_=notice.level) for notice in run.notices]
    if not lines and not notices:
        return None
    return el(
        "details",
        el("summary", words.plan),
        [el("p", line, class_="help") for line in lines],
        notices,
        data_keep="facts",
        open=any(notice.level == "warning" for notice in run.notices),
    )


def pictures(run: RunView) -> Markup | None:
    """The left of a run: a strip for each prompt, oldest to newest; when done, before and after first."""
    words = TEXTS.train
    if run.state == "draft":
        return None
    groups = _by_prompt(run.samples)
    if not groups:
        return _card(words.samples, el("p", words.samples_waits, class_="help"))
    most = max(len(group) for group in groups)
    strips = _strips(groups, "few" if most <= 2 else "")
    if run.state != "finished" or most < 2:
        return _card(words.samples, strips)
    pairs = _strips([[group[0], group[-1]] for group in groups if len(group) > 1], "pairs")
    all_of_them = el("details", el("summary", words.samples), strips, data_keep="strips") if most > 2 else None
    return _card(words.before_after, pairs, all_of_them)


def _card(title: str, *children: Markup | None) -> Markup:
    return el("section", el("header", el("h2", title)), children, class_="card", aria_label=title)


def _strips(groups: Sequence[Sequence[SampleView]], kind: str) -> Markup:
    return el(
        "div",
        [
            el(
                "div",
                el("h3", group[0].prompt),
                el("ol", [_sample(sample) for sample in group], class_="strip", tabindex=0, role="list"),
            )
            for group in groups
        ],
        class_=f"strips {kind}".strip(),
    )


def _by_prompt(samples: tuple[SampleView, ...]) -> list[list[SampleView]]:
    ordered = sorted(samples, key=lambda sample: (sample.index, sample.step))
    return [list(group) for _, group in groupby(ordered, key=lambda sample: sample.index)]


def _sample(sample: SampleView) -> Markup:
    words = TEXTS.train
    label = words.sample_at.format(step=sample.step) if sample.step else words.sample_base
    return el(
        "li",
        el(
            "a",
            el(
                "img",
                src=picture_url(sample.path, STRIP),
                alt=words.sample_alt.format(prompt=sample.prompt, step=sample.step),
                loading="lazy",
            ),
            href=picture_url(sample.path),
            target="_blank",
            rel="noopener",
        ),
        el("span", label),
    )


def losses(run: RunView) -> Markup | None:
    """The loss so far."""
    words = TEXTS.train
    if run.state in ("draft", "queued"):
        return None
    plot = loss_plot(run.loss_steps, run.losses, run.validation, run.step if run.state == "finished" else run.steps)
    body = plot or el("p", words.loss_waits, class_="help")
    return _card(words.loss, body)
