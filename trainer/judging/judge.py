"""Judging a run: draw the same prompts with every kept checkpoint at several strengths, score, and pick.

Shapes: P pictures of a candidate, C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.prompts import literal
from trainer.config.schedulers import Scheduler
from trainer.data.captions import compose
from trainer.judging.eye import STYLE_LEVELS, SUBJECT_LEVELS, Eye
from trainer.judging.features import Features, coarse
from trainer.judging.others import ALIKE, MOST_OTHERS, SIEVE_LEVEL, alike, pool_of
from trainer.judging.pick import Candidate
from trainer.judging.scores import (
    StyleScale,
    copying,
    drift_score,
    margins,
    recall_score,
    subject_score,
    variety_score,
)
from trainer.preview.generate import draw_latents
from trainer.preview.order import PreviewRow, PreviewSettings


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What every candidate is asked to draw.

    Attributes:
        subjects: prompts without the trigger, of things that are not among the training images; at least two.
        trigger: put behind each of them where the style should show.
        first_seed: start noise of the first picture; each of the others has the next.
        steps: denoising steps; few, because pictures are compared with pictures made alike.
        scheduler: a name of `trainer.config.schedulers`.
    """

    subjects: tuple[str, ...]
    trigger: str
    first_seed: int = 1
    steps: int = 7
    scheduler: Scheduler = "dpm++_2m"

    @property
    def seeds(self) -> range:
        """Start noise of each picture."""
        return range(self.first_seed, self.first_seed + len(self.subjects))

    @property
    def prompts(self) -> list[str]:
        """Each picture's prompt."""
        return [compose(subject, literal(self.trigger)) for subject in self.subjects]

    def passes(self, candidates: int, images: int) -> int:
        """Rows through the denoiser for so many candidates, with so many training images beside them.

        For a picture: drawing with guidance, features, captions, drift. Once: the base's pictures and what they may be
        mistaken for, the images' features, and which images are known best. A second round asks nothing of the images.
        """
        captions = len(SUBJECT_LEVELS) * (1 + ALIKE)
        per_picture = 2 * self.steps + len(STYLE_LEVELS) + captions + 1
        pictures = len(self.subjects)
        once = MOST_OTHERS * pictures + (len(STYLE_LEVELS) + 1) * images + pictures
        return (candidates + 1) * per_picture * pictures + candidates * min(images, MOST_SUSPECTS) + once


MOST_SUBJECTS, LEAST_SUBJECTS = 6, 3
FINALISTS = 4
"""Candidates that draw more pictures once all have been seen."""
MOST_MORE, LEAST_MORE = 8, 5
"""Pictures that they draw."""
MOST_SUSPECTS = 6
"""Training images of which every candidate is asked whether it knows them by heart: those known best at the end."""


def two_rounds(
    subjects: Sequence[str], trigger: str, *, candidates: int, images: int, passes: int, anyway: bool = False
) -> tuple[Questions, Questions] | None:
    """Questions for all candidates, and those for the few best of them, for at most ``passes`` rows in all.

    Where passes are few, the first round gives way, and then the second. None where they do not suffice for the
    smallest, which is asked with ``anyway``, whatever it costs.

    A count, not a clock, decides: a run that is resumed, or done again elsewhere, is asked the same.
    """
    finalists = min(FINALISTS, candidates)
    for count in range(min(MOST_SUBJECTS, len(subjects)), LEAST_SUBJECTS - 1, -1):
        first = Questions(subjects=tuple(subjects[:count]), trigger=trigger)
        left = passes - first.passes(candidates, images)
        fresh = subjects[count:]
        # With too few other subjects the same are drawn once more, from other noise.
        others = fresh if len(fresh) >= LEAST_MORE else [*fresh, *subjects[:count]]
        least = min(LEAST_MORE if count == LEAST_SUBJECTS else MOST_MORE, len(others))
        for more in range(min(MOST_MORE, len(others)), least - 1, -1):
            second = Questions(subjects=tuple(others[:more]), trigger=trigger, first_seed=count + 1)
            smallest = (count, more) == (LEAST_SUBJECTS, least)
            if second.passes(finalists, 0) <= left or (anyway and smallest):
                return first, second
    return None


def one_round(
    subjects: Sequence[str], trigger: str, *, candidates: int, images: int, passes: int, anyway: bool = False
) -> tuple[Questions] | None:
    """As `two_rounds`, for as few pictures as can be."""
    only = Questions(subjects=tuple(subjects[:LEAST_SUBJECTS]), trigger=trigger)
    return (only,) if anyway or only.passes(candidates, images) <= passes else None


@dataclass(frozen=True)
class Reference:
    """A training image: its scaled latents (C, h, w), what it shows, and the whole caption that it is learned with."""

    latents: Tensor
    content: str
    caption: str


@dataclass
class Judge:
    """Scores candidates on one base against one set of training images.

    Args:
        style: the adapter of ``bank`` that takes the candidates' weights one after the other; all others stay closed.
        references: the training images; at least two.
    """

    base: Base
    bank: Bank
    style: str
    references: Sequence[Reference]
    questions: Questions

    def __post_init__(self) -> None:
        self.eye = Eye(self.base, self.bank)
        latents = [image.latents for image in self.references]
        self.seen = Features.cat([self.eye.features(latent.unsqueeze(0)) for latent in latents])
        self.grid = torch.cat([coarse(latent.unsqueeze(0)).cpu() for latent in latents])
        self.suspects = list(range(len(latents)))
        self.ask(self.questions)

    def ask(self, questions: Questions) -> None:
        """From now on ask other questions, of which the base draws its own pictures first."""
        self.questions = questions
        self.settings = PreviewSettings(steps=questions.steps, scheduler=questions.scheduler)
        closed = torch.zeros(1, len(self.bank.names))
        self.plain = self.draw([closed], questions.subjects)[0]
        self.base_seen = self.eye.features(self.plain)
        self.scale = StyleScale.of(self.base_seen, self.seen)
        self.quiet = self.eye.predictions(self.plain, questions.subjects, closed)
        mistaken = [*questions.subjects[1:], questions.subjects[0]]
        self.mistaken = self.eye.predictions(self.plain, mistaken, closed)
        self.captions = self._captions()
        self.base_margin = margins(self.eye.caption_errors(self.plain, self.captions))

    def _captions(self) -> list[tuple[str, ...]]:
        """For each picture its own prompt and those that the base finds most alike, by its own pictures."""
        subjects = self.questions.subjects
        pool = pool_of(subjects, self.base.family.prompts, [image.content for image in self.references])
        errors = self.eye.caption_errors(self.plain, [pool] * len(subjects), (SIEVE_LEVEL,))
        others = alike(errors[:, :, 0], pool, subjects)
        return [(subject, *own) for subject, own in zip(subjects, others, strict=True)]

    def recall(self, strength: float, images: Sequence[int]) -> list[float]:
        """How well the adapter as it is knows some of the training images by heart (`recall_score`)."""
        chosen = [self.references[index] for index in images]
        found = self.eye.recalled(
            [image.latents for image in chosen], [image.caption for image in chosen], self._row(strength)
        )
        mean = self.grid.mean(dim=0)
        score: list[float] = recall_score(found, self.grid[list(images)], mean).tolist()
        return score

    def suspect(self) -> None:
        """From now on ask of those images only that the adapter as it is knows best."""
        found = self.recall(1.0, range(len(self.references)))
        ranked = sorted(range(len(found)), key=lambda index: (-found[index], index))
        self.suspects = sorted(ranked[:MOST_SUSPECTS])

    def draw(self, strengths: Sequence[Tensor], prompts: Sequence[str]) -> list[Tensor]:
        """Latents of all pictures at each of several strengths (1, adapters): one (P, C, h, w) for each.

        All of them go through the denoiser in as few batches as memory allows: rows differ by their gates alone.
        """
        wanted = [
            PreviewRow(prompt=prompt, seed=seed, strengths=tuple(strength[0].tolist()))
            for strength in strengths
            for prompt, seed in zip(prompts, self.questions.seeds, strict=True)
        ]
        drawn = draw_latents(self.base, self.bank, wanted, self.settings)
        return list(torch.stack(drawn).split(len(prompts)))

    def at(self, step: int, strengths: Sequence[float]) -> list[tuple[Candidate, Tensor]]:
        """Candidates of the weights that the adapter has at present, and their latents (P, C, h, w).

        Args:
            step: the training step that the weights are of.
            strengths: those to draw at; pictures of all of them share batches.
        """
        rows = [self._row(strength) for strength in strengths]
        drawn = self.draw(rows, self.questions.prompts)
        return [
            (self.score(step, strength, row, latents), latents)
            for strength, row, latents in zip(strengths, rows, drawn, strict=True)
        ]

    def _row(self, strength: float) -> Tensor:
        row = torch.zeros(1, len(self.bank.names))
        row[0, self.bank.names.index(self.style)] = strength
        return row

    def score(self, step: int, strength: float, row: Tensor, latents: Tensor) -> Candidate:
        """All scores of one candidate's pictures (P, C, h, w); ``row`` (1, adapters) are its strengths."""
        seen = self.eye.features(latents)
        # The classifier is the frozen base, which has never heard of the trigger.
        margin = margins(self.eye.caption_errors(latents, self.captions))
        copies = copying(seen, self.seen)
        # Without a trigger the style is meant for every prompt.
        drift = 0.0
        if self.questions.trigger:
            found = self.eye.predictions(self.plain, self.questions.subjects, row)
            drift = drift_score(found, self.quiet, self.mistaken)
        return Candidate(
            step=step,
            strength=strength,
            style=tuple(self.scale.score(seen).tolist()),
            subject=tuple(subject_score(margin, self.base_margin).tolist()),
            nearness=tuple(copy.nearness for copy in copies),
            nearest=tuple(copy.image for copy in copies),
            drift=drift,
            variety=variety_score(seen, self.base_seen),
            recall=tuple(self.recall(strength, self.suspects)) if self.suspects else (),
            recalled=tuple(self.suspects),
            images=len(self.references),
        )
