"""From a form to orders, and from jobs back to the frames that are shown.

A *scene* is everything about a picture except its seed and its strengths; the pictures of a scene are told apart by
those, so all jobs of one scene that were drawn with the same weights together are its frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from app.preview.form import MOST_PICTURES, Form, Mix, MixRow, Strengths
from trainer.preview.order import PreviewOrder
from trainer.studio.views import JobView

FILM = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Strengths of the filmstrip."""
PICTURE, FRAME, STRIP, SHEET = "picture", "frame", "film", "sheet"
"""Notes on orders: asked for by a person; by moving a slider; the filmstrip; a labelled sheet."""
OPEN = ("queued", "working")
"""States of jobs that are not over."""


def picture_order(form: Form, note: str = PICTURE, *, film: bool = False) -> PreviewOrder:
    """The pictures asked for, then the base's with the same seeds to wipe against.

    The styled ones come first because a slow machine draws one after the other.

    Args:
        film: also the filmstrip's, so that all frames show the weights of one moment.
    """
    strengths = form.mix.strengths
    rows = [form.row(seed, strengths) for seed in form.seeds]
    if any(strengths):
        rows += [form.row(seed, (0.0,) * len(strengths)) for seed in form.seeds]
    if film:
        made = {row.strengths for row in rows}
        rows += [form.row(form.seed, s) for s in film_strengths(form.mix) if s not in made]
    return form.order(rows, note)


def film_order(form: Form, missing: Sequence[Strengths]) -> PreviewOrder:
    """The filmstrip's frames that are not there yet, for the first seed."""
    return form.order([form.row(form.seed, strengths) for strengths in missing], STRIP)


def film_strengths(mix: Mix) -> list[Strengths]:
    """All rows' strengths for each frame of the strip: the focus varies, the others stay."""
    if not mix.rows:
        return []
    now = mix.strengths
    return [(*now[: mix.focus], value, *now[mix.focus + 1 :]) for value in FILM]


def scene_of(order: PreviewOrder) -> str:
    """What all pictures of one scene share, as a text to compare; with which weights they were drawn is not in it."""
    row = order.rows[0]
    styles = [(use.style, use.step, use.blocks) for use in order.styles]
    shared = [order.base.model_dump(mode="json"), styles, order.settings.model_dump(mode="json")]
    return json.dumps([*shared, row.prompt, row.negative], sort_keys=True)


def form_of(order: PreviewOrder, uses: Sequence[MixRow]) -> Form:
    """The form that would order this again; ``uses`` are the order's styles with their names."""
    first = order.rows[0]
    strengths = first.strengths or (0.0,) * len(uses)
    rows = tuple(replace(use, strength=s) for use, s in zip(uses, strengths, strict=True))
    seeds = {row.seed for row in order.rows if row.strengths == first.strengths}
    count = min(len(seeds), MOST_PICTURES)
    blocks = order.styles[0].blocks if order.styles else ""
    return Form(first.prompt, Mix(rows), first.negative, first.seed, count, blocks, order.base, order.settings)


def frames(form: Form, jobs: Iterable[JobView]) -> dict[tuple[int, Strengths], Path]:
    """Which pictures of the form's scene exist: (seed, strengths) to the file."""
    return {
        (picture.row.seed, _rounded(picture.row.strengths)): picture.path
        for job in jobs
        for picture in job.pictures
        if (picture.row.prompt, picture.row.negative, picture.row.settings) == (form.prompt, form.negative, None)
    }


def missing_frames(form: Form, jobs: Iterable[JobView]) -> list[Strengths]:
    """Strengths of the filmstrip that no job has made or is making."""
    ordered = {
        (row.seed, _rounded(row.strengths))
        for job in jobs
        if job.state in {*OPEN, "done"}
        for row in job.order.rows
        if (row.prompt, row.negative, row.settings) == (form.prompt, form.negative, None)
    }
    return [strengths for strengths in film_strengths(form.mix) if (form.seed, strengths) not in ordered]


def _rounded(strengths: Strengths) -> Strengths:
    return tuple(round(value, 2) for value in strengths)
