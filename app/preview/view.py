"""What the Preview tab's widgets are given: plain values for JSON, from a scene's form and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.files import picture_url
from app.preview.form import FRAME, SHEET, STRIP, Form, frames
from app.preview.scene import OPEN, Scene
from app.texts import TEXTS
from app.units import duration
from trainer.config.schedulers import SCHEDULERS
from trainer.studio.views import JobView, PreviewOrder

WORDS = TEXTS.preview


def viewer(scene: Scene, jobs: Sequence[JobView], hint: str = "") -> dict[str, Any]:
    """The value of the viewer: the frames that exist, and what is going on."""
    form = scene.form
    if form is None:
        return {"pictures": [], "strengths": [], "film": [], "message": hint}
    made = frames(form, jobs)
    zeros = (0.0,) * len(form.mix.uses)
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
    return {
        "job": scene.jobs[0] if scene.jobs else "",
        "pictures": pictures,
        "strengths": list(form.mix.strengths),
        "names": [use.name for use in form.mix.uses],
        "film": scene.film_places,
        "film_state": scene.film,
        "film_offer": film_offer(scene, list(jobs)),
        "state": latest.state if latest else "",
        "done": sum(job.done for job in jobs if job.state in OPEN),
        "total": sum(job.total for job in jobs if job.state in OPEN),
        "message": hint or message(latest, form),
        "prompt": form.prompt,
        "caption": caption(form),
        "file": file_stem(form),
    }


def newest(jobs: Sequence[JobView]) -> JobView | None:
    """The job to speak of: the first that is open, else the last."""
    return next((job for job in jobs if job.state in OPEN), jobs[-1] if jobs else None)


def message(job: JobView | None, form: Form) -> str:
    """What goes on, in words that do not change with every step: a screen reader speaks each change."""
    if job is None:
        return ""
    if job.state == "queued":
        return job.message or WORDS.waiting
    if job.state == "working":
        return WORDS.drawing_film if job.order.note == STRIP else WORDS.drawing
    if job.state == "failed":
        return job.message
    if job.state == "cancelled":
        return job.message or WORDS.stopped
    return WORDS.live_now if form.mix.live else ""


def film_offer(scene: Scene, jobs: list[JobView]) -> str:
    """Text of the button that fills the strip."""
    seconds = scene.film_seconds(jobs)
    if not seconds:
        return WORDS.make_film
    return WORDS.make_film_in.format(time=duration(seconds))


def caption(form: Form) -> str:
    """Settings of the picture in one line; the seed is filled in by the viewer."""
    settings = form.settings
    parts = [form.prompt or WORDS.no_prompt, WORDS.seed_place, WORDS.steps_number.format(steps=settings.steps)]
    if settings.guidance is not None:
        parts.append(WORDS.guidance_number.format(guidance=f"{settings.guidance:g}"))
    parts.append(SCHEDULERS[settings.scheduler].title)
    # The viewer fills {seed}; braces that a prompt brings along stay as they are, because only known names are filled.
    return " \u00b7 ".join(parts)


def file_stem(form: Form) -> str:
    """How a saved picture's name begins."""
    words = "-".join([*(use.name for use in form.mix.uses), form.prompt])
    kept = "".join(c if c.isalnum() else "-" for c in words.lower())
    return "-".join(part for part in kept.split("-") if part)[:60] or "picture"


def results(gallery: Sequence[JobView], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Cards of what was made before, one for each order however often it was given.

    Frames that a slider or the strip made have no card of their own.
    """
    newest: dict[str, JobView] = {}
    for job in gallery:
        if job.order.note not in (FRAME, STRIP) and job.pictures:
            newest.setdefault(job.order.line(), job)
    return [
        {
            "id": job.id,
            "urls": [picture_url(picture.path, 320) for picture in card_pictures(job)],
            "caption": job.order.rows[0].prompt or WORDS.no_prompt,
            "detail": detail(job.order, names),
        }
        for job in newest.values()
    ]


def card_pictures(job: JobView) -> list[Any]:
    """Up to four pictures that tell a job: a sheet's spread over it, else those with the style."""
    if job.order.note == SHEET:
        step = max(1, len(job.pictures) // 4)
        return list(job.pictures[::step][:4])
    styled = [picture for picture in job.pictures if any(picture.row.strengths)]
    return (styled or list(job.pictures))[:4] if len(styled) != 3 else styled[:1]


def detail(order: PreviewOrder, names: Mapping[str, str]) -> str:
    """Styles with strengths, and the seed, in one line."""
    if order.note == SHEET:
        columns = max(1, order.columns)
        return WORDS.sheet_detail.format(rows=len(order.rows) // columns, columns=columns)
    strengths = order.rows[0].strengths
    styles = [
        WORDS.style_at.format(name=names.get(use.style, WORDS.gone), strength=f"{strength:g}")
        for use, strength in zip(order.styles, strengths, strict=False)
    ]
    return " \u00b7 ".join([*(styles or [WORDS.only_base]), WORDS.seed_number.format(seed=order.rows[0].seed)])
