"""What one visitor is looking at in the Preview tab: a scene, the jobs that fill it, and how fast they are.

A scene lives as long as the page and holds ids and copies only; whatever it forgets, the gallery still has.
All its pictures were drawn with the same weights: when a style has learned on, the next picture begins anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.preview.form import Form
from app.preview.frames import (
    FRAME,
    OPEN,
    film_order,
    film_strengths,
    frames,
    missing_frames,
    picture_order,
    scene_of,
)
from app.preview.styles import Suits
from trainer.errors import StudioError
from trainer.preview.order import PreviewOrder, is_live
from trainer.studio.views import JobView

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

FAST_SECONDS = 2.5
"""A picture that takes no longer follows the strength slider by itself."""
FILM_SECONDS = 40.0
"""A filmstrip that takes no longer fills by itself; a slower one is offered."""
UNDO_SECONDS = 6.0
"""How long a removed picture can be taken back."""

FilmState = Literal["", "wanted", "offer", "filling", "done"]


@dataclass(frozen=True)
class _Sight:
    """A job when it was first seen at work: Unix time, denoising steps done, steps in all."""

    at: float
    done: int
    total: int


@dataclass
class Pace:
    """Seconds a picture takes, measured on the jobs that passed by; ``None`` until one did."""

    seconds: float | None = None
    _first: dict[str, _Sight] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)

    def see(self, job: JobView, now: float) -> None:
        """Take a look at a job; called whenever it is polled."""
        # Rows that were there before the worker began came from the cache and say nothing about speed.
        rows = self._rows.setdefault(job.id, len(job.order.rows) - len(job.pictures))
        if job.state == "working" and job.done:
            first = self._first.setdefault(job.id, _Sight(now, job.done, job.total))
            if job.done > first.done:
                whole = (now - first.at) * job.total / (job.done - first.done)
                self.seconds = whole / max(1, rows)
        elif job.state == "done" and rows:
            first = self._first.pop(job.id, _Sight(job.created, 0, 1))
            if first.total > first.done:
                self.seconds = (now - first.at) * first.total / (first.total - first.done) / rows

    def expected(self, job: JobView) -> float | None:
        """Seconds from order to end of a job, or None while nothing was timed."""
        rows = self._rows.get(job.id, len(job.order.rows))
        return None if self.seconds is None else self.seconds * rows

    @property
    def slow(self) -> bool:
        """Whether a picture is known to take longer than a slider should wait; the first one finds out."""
        return self.seconds is not None and self.seconds > FAST_SECONDS


@dataclass
class Scene:
    """A visitor's scene.

    Attributes:
        form: what was ordered last, or None at the beginning.
        jobs: ids of the scene's jobs, oldest first.
        sheet, sheet_file: id of the sheet that is shown, or empty; its file once it was put together.
        film: what is up with the filmstrip.
        hint: a sentence on why the picture is not what the controls say, or empty.
        taken: whether the visitor has done anything, so that nothing is put into the form any more.
        pace: how fast pictures come.
        suits: what suits the base that the form names.
        leaving: jobs that the visitor removed from the gallery, and until when that can be undone (Unix time).
        image: the picture that the visitor chose to begin with, by its name in the studio folder; empty for none.
    """

    form: Form | None = None
    jobs: list[str] = field(default_factory=list)
    sheet: str = ""
    sheet_file: Path | None = None
    film: FilmState = ""
    hint: str = ""
    taken: bool = False
    pace: Pace = field(default_factory=Pace)
    suits: Suits = field(default_factory=Suits)
    leaving: dict[str, float] = field(default_factory=dict)
    image: str = ""
    _over: dict[str, JobView] = field(default_factory=dict)

    def look(self, studio: Studio) -> list[JobView]:
        """The scene's jobs as they are now; those that were removed are forgotten."""
        return [view for job_id in list(self.jobs) if (view := self._job(studio, job_id, self.jobs))]

    def look_at_sheet(self, studio: Studio) -> JobView | None:
        """The sheet's job, or None."""
        return self._job(studio, self.sheet, None) if self.sheet else None

    def show_sheet(self, job_id: str) -> None:
        """Look at another sheet."""
        self.sheet, self.sheet_file, self.taken = job_id, None, True

    def _job(self, studio: Studio, job_id: str, listed: list[str] | None) -> JobView | None:
        over = self._over.get(job_id)
        # Somebody may have removed it from the gallery, here or on another page; then its pictures are gone.
        if over is not None and all(picture.path.is_file() for picture in over.pictures):
            return over
        try:
            view = studio.pictures.view(job_id)
        except StudioError:
            if listed is not None:
                listed.remove(job_id)
            else:
                self.sheet = ""
            return None
        self.pace.see(view, time.time())
        if view.state not in OPEN:
            self._over[job_id] = view
        return view

    def make(self, studio: Studio, form: Form) -> None:
        """Order the form's pictures; frames of the same scene stay, unless the weights have moved on since.

        Raises:
            PatinaError: it cannot be ordered.
        """
        self._take(studio, picture_order(form, film=form.mix.live and not self.pace.slow))
        self.form = form
        self.film = "wanted" if form.mix.rows else ""
        self.hint = ""
        self.taken = True

    def _take(self, studio: Studio, order: PreviewOrder) -> None:
        """Order pictures; those that were there before stay only if they show the same scene with the same weights."""
        before = self.look(studio)
        job_id = studio.pictures.order(order)
        order = studio.pictures.view(job_id).order
        alike = before and _same_pictures(before[-1].order, order)
        if not alike:
            self.forget()
        self.jobs.append(job_id)

    def move(self, studio: Studio, form: Form) -> Literal["shown", "ordered", "slow", "other"]:
        """A strength was let go: order its frame when that is quick.

        Returns ``other`` when the form has left this scene in more than strengths.

        Raises:
            PatinaError: it cannot be ordered.
        """
        if self.form is None or _scene_of(self.form) != _scene_of(form):
            return "other"
        form = replace(form, seed=self.form.seed, count=self.form.count)
        self.form = form
        jobs = self.look(studio)
        made = frames(form, jobs)
        if all((seed, form.mix.strengths) in made for seed in form.seeds):
            if self.film == "done" and self._missing(jobs):
                self.film = "wanted"
            return "shown"
        if form.mix.live or self.pace.slow:
            return "slow"
        for job in jobs:
            # A frame that the slider has passed by is not worth waiting for.
            if job.order.note == FRAME and job.state in OPEN:
                studio.pictures.cancel(job.id)
        self._take(studio, picture_order(form, FRAME))
        self.film = "wanted"
        return "ordered"

    def go_on(self, studio: Studio, jobs: list[JobView]) -> bool:
        """Order the filmstrip once the picture is there. Returns whether something was ordered."""
        if self.form is None or self.film not in ("wanted", "filling"):
            return False
        if any(job.state in OPEN for job in jobs):
            return False
        if jobs and jobs[-1].state != "done":
            self.film = "offer" if self._missing(jobs) else "done"
            return False
        missing = self._missing(jobs)
        if not missing:
            self.film = "done"
            return False
        if self.film == "filling" or not self._film_is_quick(len(missing)):
            self.film = "offer"
            return False
        self.order_film(studio, jobs)
        return True

    def order_film(self, studio: Studio, jobs: list[JobView]) -> None:
        """Order the frames of the strip that are missing; all of them at once when the weights move.

        Raises:
            PatinaError: it cannot be ordered.
        """
        if self.form is None or not (missing := self._missing(jobs)):
            return
        moving = self.form.mix.live or self.learned_on(studio, jobs)
        self._take(studio, picture_order(self.form, film=True) if moving else film_order(self.form, missing))
        self.film = "filling"

    def film_seconds(self, jobs: list[JobView]) -> float | None:
        """How long the missing frames would take, as far as that is known."""
        return None if self.pace.seconds is None else self.pace.seconds * len(self._missing(jobs))

    def _missing(self, jobs: list[JobView]) -> list[tuple[float, ...]]:
        return missing_frames(self.form, jobs) if self.form else []

    def _film_is_quick(self, count: int) -> bool:
        assert self.form is not None
        if self.form.mix.live:
            return False
        if self.pace.seconds is None:
            # Everything came from the cache, so nothing was timed; only the small base is surely quick.
            return self.form.base.source == "bundled"
        return self.pace.seconds * count <= FILM_SECONDS

    def learned_on(self, studio: Studio, jobs: list[JobView]) -> bool:
        """Whether a picture made now would show other weights than those that are shown."""
        if not jobs or not jobs[-1].order.styles:
            return False
        order = jobs[-1].order
        try:
            now = studio.pictures.weights_now(order.styles)
        except StudioError:
            return False
        return any(
            was and was != is_now and not (is_live(was) and is_live(is_now))
            for was, is_now in zip(order.weights, now, strict=True)
        )

    def cancel(self, studio: Studio) -> None:
        """Stop everything that is still being made."""
        for job_id in [*self.jobs, self.sheet]:
            if job_id and job_id not in self._over:
                studio.pictures.cancel(job_id)
        self.film = "offer" if self.film in ("wanted", "filling") else self.film

    def forget(self) -> None:
        """Begin a new scene."""
        self.jobs.clear()
        self._over = {job_id: view for job_id, view in self._over.items() if job_id == self.sheet}
        self.film = ""

    def take_up(self, studio: Studio, form: Form, job_id: str) -> None:
        """Look at a scene again: its job, and every other job of the gallery with its scene and its weights."""
        self.forget()
        self.form = form
        self.image = form.settings.image
        order = studio.pictures.view(job_id).order
        others = [job.id for job in studio.pictures.newest() if _same_pictures(job.order, order) and job.id != job_id]
        self.jobs = [*reversed(others), job_id]
        self.film = "offer" if self._missing(self.look(studio)) else "done"
        self.hint = ""
        self.taken = True

    @property
    def film_places(self) -> list[float]:
        """Strengths the strip shows; none without a style."""
        return [s[self.form.mix.focus] for s in film_strengths(self.form.mix)] if self.form else []

    def sweep(self, studio: Studio) -> None:
        """Remove for good what was removed and not taken back in time."""
        due = [job_id for job_id, until in self.leaving.items() if until <= time.time()]
        for job_id in due:
            del self.leaving[job_id]
            try:
                order = studio.pictures.view(job_id).order
            except StudioError:
                continue
            for job in studio.pictures.newest():
                if job.order == order:
                    studio.pictures.delete(job.id)


def _scene_of(form: Form) -> str:
    return scene_of(picture_order(form))


def _same_pictures(one: PreviewOrder, other: PreviewOrder) -> bool:
    """Whether pictures of both may stand in one strip: a moment of a training is like no other."""
    known = all(text and not is_live(text) for text in one.weights)
    return known and one.weights == other.weights and scene_of(one) == scene_of(other)
