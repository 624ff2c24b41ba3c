"""What the Preview tab's panels show, from a scene's form and jobs: the viewer's state, the sheet, and earlier results.

The viewer and the mixer are drawn by their scripts from a state that the panel carries as JSON; the rest is HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from app.files import picture_url
from app.html import Child, el, join
from app.preview.form import HIGHEST, LOWEST, Form, MixRow
from app.preview.frames import FRAME, OPEN, SHEET, STRIP, frames
from app.preview.scene import Scene
from app.preview.styles import Suits
from app.subjects import known
from app.texts import TEXTS, said
from app.units import duration
from trainer.bases.tokens import counted_prompt
from trainer.config.schedulers import SCHEDULERS
from trainer.preview.order import PreviewOrder, is_live, step_of
from trainer.studio.views import JobView


def state(value: Mapping[str, Any]) -> Markup:
    """A state for a script, as `static/preview/state.js` reads it."""
    return el("div", data_state=json.dumps(value, sort_keys=True), hidden=True)


def mixer(offered: Sequence[tuple[str, str]], rows: Sequence[MixRow]) -> dict[str, Any]:
    """What the mixer's script has to know: the styles that can be added, and how those in the mix are called now."""
    return {
        "words": asdict(TEXTS.preview.mixer),
        "offered": [{"id": style, "label": label} for label, style in offered],
        "facts": {use.style: asdict(use) for use in rows},
        "lowest": LOWEST,
        "highest": HIGHEST,
    }


def viewer(scene: Scene, jobs: Sequence[JobView], *, learned_on: bool = False) -> dict[str, Any]:
    """The viewer's state: the frames that exist, with which weights they were drawn, and what is going on.

    Args:
        jobs: the scene's, as they are now.
        learned_on: whether a style has other weights by now.
    """
    words = {"words": asdict(TEXTS.preview.viewer), "lowest": LOWEST, "highest": HIGHEST}
    form = scene.form
    if form is None:
        return {**words, "pictures": [], "styles": [], "strengths": [], "film": [], "message": scene.hint}
    made = frames(form, jobs)
    zeros = (0.0,) * len(form.mix.rows)
    pictures = []
    for seed in form.seeds:
        base = made.get((seed, zeros))
        pictures.append(
            {
                "seed": seed,
                "base": picture_url(base) if base else None,
                "frames": [
                    {"strengths": list(strengths), "url": picture_url(path)}
                    for (its_seed, strengths), path in sorted(made.items())
                    if its_seed == seed
                ],
            }
        )
    latest = newest(jobs)
    asked = next((job for job in reversed(jobs) if job.order.note not in (FRAME, STRIP)), None)
    used = jobs[-1].order.weights if jobs else ()
    return {
        **words,
        "job": asked.id if asked else "",
        "pictures": pictures,
        "styles": [
            {"style": use.style, "step": use.step, "name": use.name, "made": made_with(text)}
            for use, text in zip(form.mix.rows, used or ("",) * len(form.mix.rows), strict=False)
        ],
        "strengths": list(form.mix.strengths),
        "focus": form.mix.focus,
        "film": scene.film_places,
        "film_offer": film_offer(scene, list(jobs)) if scene.film == "offer" else "",
        "filling": scene.film == "filling",
        "busy": latest.id if latest is not None and latest.state in OPEN else "",
        "waits": latest is not None and latest.state == "queued",
        "expected": scene.pace.expected(latest) if latest is not None else None,
        "done": sum(job.done for job in jobs if job.state in OPEN),
        "total": sum(job.total for job in jobs if job.state in OPEN),
        "failed": latest is not None and latest.state == "failed",
        "message": scene.hint or message(latest, form, learned_on=learned_on),
        "prompt": form.prompt,
        "caption": caption(form),
        "file": file_stem(form),
    }


def newest(jobs: Sequence[JobView]) -> JobView | None:
    """The job to speak of: the first that is open, else the last."""
    return next((job for job in jobs if job.state in OPEN), jobs[-1] if jobs else None)


def made_with(text: str) -> str:
    """Weights for people: ``step 120``, or ``finished``; empty when it is not known."""
    words = TEXTS.preview
    step = step_of(text)
    if step is not None:
        return words.column_step.format(step=step)
    return words.column_final if text and not is_live(text) else ""


def message(job: JobView | None, form: Form, *, learned_on: bool) -> str:
    """What goes on, in words that do not change with every step: a screen reader speaks each change."""
    words = TEXTS.preview
    if job is None:
        return ""
    if job.state == "queued":
        return said(job.message) or words.waiting
    if job.state == "working":
        return words.drawing_film if job.order.note == STRIP else words.drawing
    if job.state == "failed":
        return said(job.message)
    if job.state == "cancelled":
        return said(job.message) or words.stopped
    if learned_on:
        return words.learned_on
    return words.live_now if form.mix.live else ""


def film_offer(scene: Scene, jobs: list[JobView]) -> str:
    """Text of the button that fills the strip."""
    words = TEXTS.preview
    seconds = scene.film_seconds(jobs)
    return words.make_film_in.format(time=duration(seconds)) if seconds else words.make_film


def caption(form: Form) -> str:
    """Settings of the picture in one line; the seed is filled in by the viewer."""
    words, settings = TEXTS.preview, form.settings
    parts = [form.prompt or words.no_prompt, words.seed_place, words.steps_number.format(steps=settings.steps)]
    if settings.guidance is not None:
        parts.append(words.guidance_number.format(guidance=f"{settings.guidance:g}"))
    parts.append(SCHEDULERS[settings.scheduler].title)
    if settings.image:
        parts.append(words.begun_at.format(percent=round(100 * settings.change)))
    # The viewer fills {seed}; braces that a prompt brings along stay as they are, because only known names are filled.
    return " \u00b7 ".join(parts)


def file_stem(form: Form) -> str:
    """How a saved picture's name begins."""
    words = "-".join([*(use.name for use in form.mix.rows), form.prompt])
    kept = "".join(c if c.isalnum() else "-" for c in words.lower())
    return "-".join(part for part in kept.split("-") if part)[:60] or "picture"


# ---- sheet


def sheet(job: JobView | None, scene: Scene) -> Markup:
    """The sheet, or how far it is."""
    words = TEXTS.preview
    if job is None:
        return el("p", words.sheet_nothing, class_="sheet-nothing")
    columns = max(1, job.order.columns)
    rows = len(job.order.rows) // columns
    if job.state == "done" and scene.sheet_file is not None:
        url = picture_url(scene.sheet_file)
        image = el("img", src=url, alt=words.sheet_alt.format(rows=rows, columns=columns))
        return el(
            "figure",
            el("a", image, href=url, target="_blank", rel="noopener"),
            el("figcaption", el("a", words.sheet_save, href=url, download=f"sheet-{rows}x{columns}.png")),
            class_="sheet",
        )
    states = {
        "queued": said(job.message) or words.waiting,
        "working": words.drawing,
        "cancelled": said(job.message) or words.stopped,
    }
    bar = None
    if job.state in OPEN:
        share = {"value": job.done, "max": job.total} if job.total else {}
        bar = el("progress", class_="viewer-progress", aria_label=words.viewer.progress, **share)
    sentence = el("p", states.get(job.state, said(job.message)), role="status", aria_live="polite")
    stop = el("button", words.cancel, type="button", data_act="stop") if job.state in OPEN else None
    return el("div", bar, sentence, stop, class_="sheet-status")


# ---- subjects


def subjects(suits: Suits) -> Markup | None:
    """What the base draws well, below the prompt."""
    return known(suits.subjects, TEXTS.preview.subjects_help, keep="subjects")


# ---- what to begin with


def tokens(prompt: str, negative: str, suits: Suits) -> Markup | None:
    """How many tokens the prompt has in each of the base's windows, and whether the end of a prompt is not read."""
    if suits.info is None or not (prompt.strip() or negative.strip()):
        return None
    words = TEXTS.preview
    asked, kept_out = (counted_prompt(text, suits.info) for text in (prompt, negative))
    limit = asked.window_limit if len(asked.windows) == 1 else asked.limit
    lost = [
        sentence.format(limit=count.limit)
        for sentence, count in ((words.prompt_lost, asked), (words.negative_lost, kept_out))
        if count.lost
    ]
    return el(
        "p",
        el("span", words.tokens.format(count=asked.written, limit=limit)),
        [el("b", sentence) for sentence in lost],
        class_="tokens over" if lost else "tokens",
        title=words.tokens_hint.format(window=asked.window_limit, limit=asked.limit),
    )


def prompts(kept: Sequence[str]) -> Markup:
    """Prompts that were kept, each to be used again or forgotten, and the button that keeps the one at hand."""
    words = TEXTS.preview
    keep = el("button", words.keep_prompt, type="button", class_="link", data_act="prompt-keep",
              title=words.keep_prompt_help)  # fmt: skip
    if not kept:
        return el("div", keep, class_="kept")
    rows = [
        el(
            "li",
            el("button", one, type="button", class_="use", data_act="prompt-use", data_item=one),
            el("button", el("span", "\u00d7", aria_hidden="true"), type="button", class_="forget",
               data_act="prompt-forget", data_item=one, aria_label=words.forget_prompt.format(prompt=one),
               title=words.forget_prompt.format(prompt=one)),
        )
        for one in kept
    ]  # fmt: skip
    folded = el(
        "details",
        el("summary", words.kept_prompts.format(count=len(kept))),
        el("ul", rows),
        data_keep="kept-prompts",
    )
    return el("div", keep, folded, class_="kept")


def begin(picture: Path | None) -> Markup:
    """Where a picture to begin with is chosen, and the one that was."""
    words, train = TEXTS.preview, TEXTS.train
    chosen = None
    if picture is not None:
        chosen = el(
            "div",
            el("img", src=picture_url(picture, 320), alt=words.begin_alt),
            el("button", words.begin_remove, type="button", class_="small", data_act="begin-remove"),
            class_="begun",
        )
    picker = el(
        "label",
        words.begin_other if picture is not None else words.begin_choose,
        el("input", type="file", accept="image/*,.heic,.heif"),
        class_="button",
    )
    busy = el("span", role="status", data_busy=True, class_="busy")
    return el(
        "div", el("p", words.begin_help, class_="help"), chosen, picker, busy, class_="begin", data_drop=True,
        data_sending=train.sending, data_reading=train.reading,
    )  # fmt: skip


# ---- made before


def made_before() -> Markup:
    """The heading of the results."""
    return el("h2", TEXTS.preview.made_before, class_="section")


def results(gallery: Sequence[JobView], names: Mapping[str, str], leaving: Mapping[str, float]) -> Markup:
    """Cards of what was made before, one for each order however often it was given.

    Frames that a slider or the strip made have no card of their own.

    Args:
        names: of the styles, by id.
        leaving: jobs that are removed unless it is undone.
    """
    found: dict[str, JobView] = {}
    for job in gallery:
        if job.order.note not in (FRAME, STRIP) and job.pictures:
            found.setdefault(job.order.line(), job)
    words = TEXTS.preview.results
    if not found:
        return el("p", words.no_results, class_="results-empty")
    cards = [_leaving(job) if job.id in leaving else _card(job, names) for job in found.values()]
    return el("ul", cards, class_="results-grid", aria_label=words.results)


def _card(job: JobView, names: Mapping[str, str]) -> Markup:
    words = TEXTS.preview.results
    prompt = job.order.rows[0].prompt or TEXTS.preview.no_prompt
    shown = card_pictures(job)
    use = el(
        "button",
        el("span", _thumbnails(shown), class_=f"results-pictures of-{len(shown)}"),
        el("span", prompt, class_="results-caption"),
        el("span", detail(job.order, names), class_="results-detail"),
        type="button", class_="results-use", title=words.use_help, data_act="use", data_id=job.id,
    )  # fmt: skip
    remove = el(
        "button", el("span", "\u00d7", aria_hidden="true"), type="button", class_="results-remove",
        aria_label=words.remove_result.format(caption=prompt), title=words.remove_short,
        data_act="remove", data_id=job.id,
    )  # fmt: skip
    return el("li", use, remove, class_="results-card", data_job=job.id)


def _thumbnails(pictures: Sequence[Any]) -> Child:
    return join(
        el("img", src=picture_url(picture.path, 320), alt="", loading="lazy", draggable="false") for picture in pictures
    )


def _leaving(job: JobView) -> Markup:
    words = TEXTS.preview.results
    undo = el("button", words.undo, type="button", class_="results-undo", data_act="undo", data_id=job.id)
    return el("li", el("span", words.removed), undo, class_="results-card leaving", data_job=job.id)


def card_pictures(job: JobView) -> list[Any]:
    """Up to four pictures that tell a job: a sheet's spread over it, else those with the style."""
    if job.order.note == SHEET:
        step = max(1, len(job.pictures) // 4)
        return list(job.pictures[::step][:4])
    styled = [picture for picture in job.pictures if any(picture.row.strengths)]
    return (styled or list(job.pictures))[:4] if len(styled) != 3 else styled[:1]


def detail(order: PreviewOrder, names: Mapping[str, str]) -> str:
    """Styles with strengths and the weights they were drawn with, and the seed, in one line."""
    words = TEXTS.preview
    if order.note == SHEET:
        columns = max(1, order.columns)
        return words.sheet_detail.format(rows=len(order.rows) // columns, columns=columns)
    strengths = order.rows[0].strengths
    styles = []
    for use, strength in zip(order.styles, strengths, strict=False):
        name = names.get(use.style, words.gone)
        styles.append(words.style_at.format(name=name, strength=f"{strength:g}"))
        if step_of(use.weights) is not None:
            styles.append(made_with(use.weights))
    return " \u00b7 ".join([*(styles or [words.only_base]), words.seed_number.format(seed=order.rows[0].seed)])
