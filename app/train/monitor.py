"""What a run shows while it trains and when it is done: progress, pictures, loss. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from markupsafe import Markup

from app.files import download_url, picture_url
from app.html import el
from app.texts import TEXTS, said
from app.train.loss import loss_plot
from app.train.votes import votes
from app.units import duration, size
from trainer.judging.images import Learned
from trainer.judging.judgement import Judged, Judgement
from trainer.judging.pick import joint
from trainer.studio.store import Wish
from trainer.studio.views import RunView
from trainer.training.run_folder import Origin

STRIP = 384
THUMB = 96
LIVE_SHARES = 10
"""A screen reader hears of progress this many times a run."""


def progress(run: RunView, *, next_up: bool) -> Markup:
    """The right panel of a run: how far it is, and what one can do.

    Args:
        next_up: the first run that waits begins as soon as its worker is there.
    """
    words = TEXTS.train
    share = run.step / run.steps if run.steps else 0.0
    alive = run.state == "training" or run.phase is not None
    return el(
        "section",
        el("h2", run.name),
        el("p", _state(run, next_up=next_up), class_="state alive" if alive else "state"),
        origin_line(run.origin),
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
        _stages(run) if run.state == "training" else None,
        el("p", _numbers(run), class_="numbers"),
        el("p", said(run.error), class_="problem", role="alert") if run.error else None,
        el("p", said(run.waits), class_="problem", role="status") if run.waits else None,
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


def origin_of(origin: Origin) -> str:
    """Which run another one repeats, and without which image."""
    words = TEXTS.train
    if origin.without:
        return words.origin_without.format(name=origin.name, image=origin.without)
    return origin.name


def origin_line(origin: Origin | None) -> Markup | None:
    """Where a run or a draft came from, which opens that."""
    if origin is None:
        return None
    label = TEXTS.train.origin.format(run=origin_of(origin))
    return el("p", el("button", label, type="button", class_="link", data_act="open-origin"), class_="origin")


def _state(run: RunView, *, next_up: bool) -> str:
    words = TEXTS.train
    if run.phase is not None:
        name = words.phases.get(run.phase.name, run.phase.name)
        done, total = run.phase.done, run.phase.total
        if total and run.phase.name == "sampling":
            # Its parts are denoising steps, which say little to a person.
            name = words.share.format(name=name, percent=round(100 * done / total))
        elif total:
            name = words.counted.format(name=name, done=done, total=total)
        if not run.phase.seconds:
            return name
        return TEXTS.frame.comma.join([name, words.since.format(time=duration(run.phase.seconds))])
    if run.state == "queued" and run.queue_place == 1 and next_up:
        return words.starting_worker
    if run.state == "queued" and run.queue_place:
        return TEXTS.frame.comma.join([words.states["queued"], words.place.format(place=run.queue_place)])
    return words.states[run.state]


STAGES = ("loading", "preparing", "training", "pictures", "file")
_STAGE_OF = {
    "loading": "loading", "reading": "preparing", "caching": "preparing", "measuring": "preparing",
    "racing": "preparing",
    "sampling": "training", "judging": "pictures", "exporting": "file", "verifying": "file",
}  # fmt: skip


def stage(run: RunView) -> str:
    """Which of `STAGES` a run in training is in."""
    # Pictures are drawn between the steps too; the last ones come when there are no more steps.
    ending = bool(run.steps) and (run.step >= run.steps or run.wish is Wish.STOP)
    if run.phase is None or run.phase.name in ("training", "sampling"):
        return "pictures" if ending else "training"
    return _STAGE_OF[run.phase.name]


def _stages(run: RunView) -> Markup:
    """The way from the base to the file as one line, with where it is."""
    words = TEXTS.train
    now = STAGES.index(stage(run))
    marks = ["done"] * now + ["now"] + ["ahead"] * (len(STAGES) - now - 1)
    line = [
        el("li", words.stages[name], class_=mark, aria_current="step" if mark == "now" else None)
        for name, mark in zip(STAGES, marks, strict=True)
    ]
    wish = el("p", words.wishes[run.wish], class_="help", role="status") if run.wish is not Wish.NONE else None
    return Markup("").join([el("ol", line, class_="stages"), wish or ""])


def _numbers(run: RunView) -> str:
    words = TEXTS.train
    parts = [words.step_of.format(step=run.step, steps=run.steps)] if run.steps else []
    if run.state == "training":
        if run.samples_per_second:
            parts.append(words.speed.format(value=f"{run.samples_per_second:.1f}"))
        if run.seconds_left and stage(run) == "training" and run.step:
            parts.append(words.left.format(time=duration(run.seconds_left)))
    elif run.seconds is not None:
        parts.append(words.took.format(time=duration(run.seconds)))
    return TEXTS.frame.comma.join(parts)


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
            without = button(words.resume_without, "resume-without") if run.images_changed else None
            buttons = [button(words.resume, "resume", kind="primary"), without, button(words.again, "again")]
        case "finished":
            judge = words.judge if run.judgement is None else words.judge_again
            buttons = [
                None if run.phase is not None else button(judge, "judge", hint=words.judge_help),
                button(words.again, "again"),
            ]
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
            el("button", words.share_style, type="button", data_act="share", data_open="style-share"),
            class_="actions",
        ),
        opens(run.opens),
        el("p", said(run.stopped), class_="pick-why") if run.stopped else None,
        el("p", said(run.judgement.sentence), class_="pick-why") if run.judgement is not None else None,
        _ticks(run.verified),
        _picks(run),
        votes(run),
        _learned(run),
    )


def opens(found: Sequence[str]) -> Markup | None:
    """Where the file opens, beside its download; who loses what of it is folded behind."""
    if not found:
        return None
    line, *losses = found
    if not losses:
        return el("p", said(line), class_="opens")
    return el(
        "details",
        el("summary", said(line)),
        el("ul", [el("li", said(loss)) for loss in losses]),
        data_keep="opens",
        class_="opens proof",
    )


def _picks(run: RunView) -> Markup | None:
    """Every state and strength that was compared, as a grid to choose in and with its pictures."""
    judged = run.judgement
    if judged is None:
        return None
    words = TEXTS.train

    def row(name: str, strip: str, facts: Sequence[str], *, kept: bool = False) -> Markup:
        picture = el("img", src=picture_url(run.folder / strip), alt="", loading="lazy") if strip else None
        label = [el("b", name), el("span", TEXTS.frame.comma.join(facts))]
        return el("li", picture, el("p", label), class_="kept" if kept else None)

    rows = [row(words.pick_base, judged.base_pictures, ())]
    for one in judged.candidates:
        kept = (one.step, one.strength) == judged.kept
        facts = [*_said_of(one), *([words.pick_kept] if kept else [])]
        rows.append(row(_name_of(one), one.pictures, facts, kept=kept))
    return el(
        "details",
        el("summary", words.picks),
        el("p", words.picks_help, class_="help"),
        _grid(judged, busy=run.phase is not None),
        el("ol", rows, class_="judged"),
        data_keep="picks",
    )


def _name_of(one: Judged) -> str:
    return TEXTS.train.pick_name.format(step=one.step, strength=f"{one.strength:g}")


def _said_of(one: Judged) -> list[str]:
    """The scores of a candidate, and the limit that it breaks."""
    words = TEXTS.train
    scores = words.pick_scores.format(style=f"{one.style:.2f}", subject=f"{one.subject:.2f}")
    return [scores, words.pick_excluded[one.excluded].format(image=one.copied)] if one.excluded else [scores]


def _grid(judged: Judgement, *, busy: bool) -> Markup:
    """Saved states by strengths, each a button that keeps it; the number is how well style and subject go together."""
    words = TEXTS.train
    strengths = sorted({one.strength for one in judged.candidates})
    steps = sorted({one.step for one in judged.candidates})
    by_place = {(one.step, one.strength): one for one in judged.candidates}

    def cell(one: Judged | None) -> Markup:
        if one is None:
            return el("td")
        kept = (one.step, one.strength) == judged.kept
        good = joint(one.style, one.subject)
        label = TEXTS.frame.comma.join([_name_of(one), *_said_of(one)])
        keep = el(
            "button",
            f"{100 * good:.0f}",
            type="button",
            title=label,
            aria_label=f"{100 * good:.0f}: {label}",
            aria_pressed="true" if kept else "false",
            class_="out" if one.excluded else None,
            style=f"--good:{good:.2f}",
            disabled=busy or kept,
            data_act="keep",
            data_step=one.step,
            data_strength=f"{one.strength:g}",
            data_ask=words.keep_ask.format(name=_name_of(one)),
        )
        return el("td", keep)

    head = [el("th", words.pick_step, scope="col"), *[el("th", f"{value:g}", scope="col") for value in strengths]]
    rows = [
        el("tr", el("th", str(step), scope="row"), [cell(by_place.get((step, value))) for value in strengths])
        for step in steps
    ]
    return el(
        "table", el("caption", words.pick_grid), el("thead", el("tr", head)), el("tbody", rows), class_="pick-grid"
    )


def _learned(run: RunView) -> Markup | None:
    """How well each training image was learned, those that were learned least first."""
    judged = run.judgement
    if judged is None or not judged.images:
        return None
    words = TEXTS.train
    most = max(one.gains[-1] for one in judged.images)

    def row(one: Learned) -> Markup:
        picture = run.folder / "images" / one.name
        share = f"{100 * one.gains[-1]:.0f}%"
        leave = el(
            "button", words.leave_out, type="button", class_="small", data_act="leave-out", data_image=one.name,
            aria_label=words.leave_out_image.format(image=one.title),
        )  # fmt: skip
        return el(
            "li",
            el("img", src=picture_url(picture, THUMB), alt="", loading="lazy") if picture.is_file() else None,
            el("div", el("b", one.title), el("span", words.learned_standing[one.standing]) if one.standing else None),
            el("i", style=f"--share:{max(0.0, one.gains[-1] / most if most > 0 else 0.0):.2f}", aria_hidden="true"),
            el("span", share, class_="value"),
            leave if one.standing and picture.is_file() else None,
            class_=one.standing or None,
        )

    named = [one.title for one in judged.images if one.standing]
    return el(
        "details",
        el("summary", words.learned, el("small", TEXTS.frame.comma.join(named)) if named else None),
        el("p", words.learned_help, class_="help"),
        el("ol", [row(one) for one in sorted(judged.images, key=lambda one: one.gains[-1])], class_="learned"),
        data_keep="learned",
    )


def _ticks(verified: Sequence[str]) -> Markup | None:
    """What was proved about the file: the most telling in a line, all of it folded."""
    if not verified:
        return None
    words = TEXTS.train
    # Of all that is checked this says most to a person; the names are those of `trainer.styles.verify`.
    same = any(tick.startswith("same picture:") for tick in verified)
    line = words.verified if same else words.verified_other.format(first=verified[0].partition(":")[0])
    return el(
        "details",
        el("summary", line),
        el("ul", [el("li", said(tick)) for tick in verified], class_="ticks"),
        data_keep="ticks",
        class_="proof",
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
        )
        lines += [said(note) for note in plan.notes]
    notices = [el("p", said(notice.text), class_=notice.level) for notice in run.notices]
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


def losses(run: RunView) -> Markup | None:
    """The loss so far."""
    words = TEXTS.train
    if run.state in ("draft", "queued"):
        return None
    plot = loss_plot(run.loss_steps, run.losses, run.validation, run.step if run.state == "finished" else run.steps)
    body = plot or el("p", words.loss_waits, class_="help")
    return el("section", el("header", el("h2", words.loss)), body, _by_noise(run), class_="card", aria_label=words.loss)


def _by_noise(run: RunView) -> Markup | None:
    """What the style does on held-out images, by how much noise lies on them: a mean hides where it helps."""
    gains = run.validation[-1].gains if run.validation else ()
    if not gains:
        return None
    third = max(1, len(gains) // 3)
    low, high = statistics.fmean(gains[:third]), statistics.fmean(gains[-third:])
    middle = statistics.fmean(gains[third:-third] or gains)
    said = {"low": low, "middle": middle, "high": high}
    line = TEXTS.train.by_noise.format(**{name: f"{100 * gain:.0f}" for name, gain in said.items()})
    return el("p", line, class_="help")
