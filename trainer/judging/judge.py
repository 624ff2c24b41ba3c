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
from trainer.config.schedulers import Scheduler
from trainer.data.captions import compose
from trainer.judging.eye import STYLE_LEVELS, SUBJECT_LEVELS, Eye
from trainer.judging.features import Features
from trainer.judging.pick import Candidate
from trainer.judging.scores import StyleScale, copying, drift_score, subject_score, variety_score
from trainer.preview.generate import draw_latents
from trainer.preview.order import PreviewRow, PreviewSettings


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What every candidate is asked to draw.

    Attributes:
        subjects: prompts without the trigger, of things that are not among the training images; at least two. Each is
            drawn once, and the first once more from another noise, so that seeds can be compared.
        trigger: put behind each of them where the style should show.
        steps: denoising steps; few, because pictures are compared with pictures made alike.
        scheduler: a name of `trainer.config.schedulers`.
    """

    subjects: tuple[str, ...]
    trigger: str
    steps: int = 7
    scheduler: Scheduler = "dpm++_2m"

    @property
    def owners(self) -> Tensor:
        """Index of each picture's subject, (P,)."""
        return torch.tensor([*range(len(self.subjects)), 0])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Start noise of each picture."""
        return (*[1] * len(self.subjects), 2)

    @property
    def plain(self) -> list[str]:
        """Each picture's prompt without the trigger."""
        return [self.subjects[owner] for owner in self.owners.tolist()]

    @property
    def prompts(self) -> list[str]:
        """Each picture's prompt."""
        return [compose(subject, self.trigger) for subject in self.plain]

    def passes(self, candidates: int) -> int:
        """Rows through the denoiser for so many candidates: drawing with guidance, features, captions, drift."""
        per_picture = 2 * self.steps + len(STYLE_LEVELS) + len(SUBJECT_LEVELS) * len(self.subjects) + 1
        return candidates * per_picture * (len(self.subjects) + 1)


MOST_SUBJECTS, LEAST_SUBJECTS = 6, 3


def affordable(subjects: Sequence[str], trigger: str, *, candidates: int, passes: int) -> Questions:
    """Questions on as many subjects as ``passes`` rows through the denoiser allow, but on three at least.

    A count, not a clock, decides: a run that is resumed, or done again elsewhere, is asked the same.
    """
    most = min(MOST_SUBJECTS, len(subjects))
    for count in range(most, LEAST_SUBJECTS, -1):
        questions = Questions(subjects=tuple(subjects[:count]), trigger=trigger)
        if questions.passes(candidates) <= passes:
            return questions
    return Questions(subjects=tuple(subjects[:LEAST_SUBJECTS]), trigger=trigger)


@dataclass
class Judge:
    """Scores candidates on one base against one set of training images.

    Args:
        style: the adapter of ``bank`` that takes the candidates' weights one after the other; all others stay closed.
        references: scaled latents of the training images, each (C, h, w); at least two.
    """

    base: Base
    bank: Bank
    style: str
    references: Sequence[Tensor]
    questions: Questions

    def __post_init__(self) -> None:
        self.eye = Eye(self.base, self.bank)
        self.settings = PreviewSettings(steps=self.questions.steps, scheduler=self.questions.scheduler)
        self.seen = Features.cat([self.eye.features(latent.unsqueeze(0)) for latent in self.references])
        closed = torch.zeros(1, len(self.bank.names))
        self.plain = self.draw([closed], self.questions.plain)[0]
        self.base_seen = self.eye.features(self.plain)
        self.scale = StyleScale.of(self.base_seen, self.seen)
        self.quiet = self.eye.predictions(self.plain, self.questions.plain, closed)

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
        errors = self.eye.caption_errors(latents, self.questions.subjects)
        copies = copying(seen, self.seen)
        owners = self.questions.owners
        changed = self.eye.predictions(self.plain, self.questions.plain, row)
        variety = variety_score(seen, self.base_seen, owners)
        return Candidate(
            step=step,
            strength=strength,
            style=tuple(self.scale.score(seen, self.seen).tolist()),
            subject=tuple(subject_score(errors, owners).tolist()),
            nearness=tuple(copy.nearness for copy in copies),
            nearest=tuple(copy.image for copy in copies),
            drift=float(drift_score(changed, self.quiet).mean()),
            variety=float(variety.mean()) if len(variety) else 1.0,
        )
