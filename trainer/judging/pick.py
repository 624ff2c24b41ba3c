"""The pick: of all checkpoints and strengths the one that holds the style while subjects survive, and how sure that is.

Pure functions over numbers; nothing here knows a model.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.randomness import stable_seed

COPY_LIMIT = 2.0
"""A picture this many times nearer to a training image than those are to each other repeats it.

Up to 1.75 was seen of pictures that showed something else in the same place: of one face for another.
"""
COPY_SHARE = 0.3
"""Share of a candidate's pictures that may do so, one always may, and share of the training images that it may know by
heart."""
ALMOST = 0.1
"""Where every candidate breaks a limit, those that break theirs by so much more than the best of them stay in."""
RECALL_LIMIT = 0.85
"""A training image of which its caption alone brings back more than this share is known by heart."""
DRIFT_LIMIT = 0.7
"""Plain prompts may change by so much of what another prompt would change: they still ask for what they say."""
VARIETY_LIMIT = 0.3
"""Pictures must stay at least so different, the base's being 1; 0.68 was seen of pictures that differ plainly."""
RESAMPLES = 400
SURE = 0.8
"""Share of resamples in which a candidate must win to be called clear."""
CLOSE = 0.98
"""What ties must have of the best joint score: pictures that are too few to prove a loss do not make it good."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One checkpoint at one strength with its scores, one number a picture where a tuple.

    Attributes:
        style: how much of the way from the base to the training images (`trainer.judging.scores.StyleScale.score`).
        subject: 0 to 1, the chance that its prompt explains the picture best.
        nearness: to the nearest training image, 1 is usual (`trainer.judging.scores.Copy`).
        nearest: index of that image.
        drift: of prompts without the trigger, 1 is as far as another prompt.
        variety: of pictures, 1 is the base's.
        recall: how well it knows training images by heart (`trainer.judging.scores.recall_score`).
        recalled: indices of those images: the ones that the run knows best.
        images: how many there are in all.
    """

    step: int
    strength: float
    style: tuple[float, ...]
    subject: tuple[float, ...]
    nearness: tuple[float, ...]
    nearest: tuple[int, ...]
    drift: float
    variety: float
    recall: tuple[float, ...] = ()
    recalled: tuple[int, ...] = ()
    images: int = 0

    @property
    def style_mean(self) -> float:
        """0 as the base draws, 1 as the training images."""
        return style_of(self.style)

    @property
    def subject_mean(self) -> float:
        return statistics.fmean(self.subject)

    @property
    def joint(self) -> float:
        return joint(self.style_mean, self.subject_mean)

    @property
    def copied(self) -> int | None:
        """Index of the training image that it repeats most clearly, or None while that stays within the limits."""
        repeats = [(near, image) for near, image in zip(self.nearness, self.nearest, strict=True) if near > COPY_LIMIT]
        if len(repeats) > max(1, COPY_SHARE * len(self.nearness)):
            return max(repeats)[1]
        return max(zip(self.recall, self.recalled, strict=True))[1] if self.knows_by_heart else None

    @property
    def by_heart(self) -> tuple[int, ...]:
        """Indices of the training images that it knows by heart, the best known first."""
        known = sorted(zip(self.recall, self.recalled, strict=True), reverse=True)
        return tuple(image for score, image in known if score > RECALL_LIMIT)

    @property
    def knows_by_heart(self) -> bool:
        """Whether those are so many of its images that it has learned pictures rather than their style."""
        return len(self.by_heart) > COPY_SHARE * self.images

    @property
    def excluded(self) -> str | None:
        """Which limit it breaks (``copying``, ``drift`` or ``variety``), or None."""
        if self.copied is not None:
            return "copying"
        if self.drift > DRIFT_LIMIT:
            return "drift"
        if self.variety < VARIETY_LIMIT:
            return "variety"
        return None

    @property
    def excess(self) -> float:
        """How far it is beyond the limit that it breaks most, 0 being at the limit; below that where it breaks none."""
        near = sorted(self.nearness, reverse=True)[max(1, int(COPY_SHARE * len(self.nearness)))]
        known = sorted(self.recall, reverse=True)
        place = int(COPY_SHARE * self.images)
        # What a limit leaves over of the whole makes scores of different size comparable.
        beyond = [
            near / COPY_LIMIT - 1,
            self.drift / DRIFT_LIMIT - 1,
            VARIETY_LIMIT / max(self.variety, 1e-3) - 1,
            (known[place] - RECALL_LIMIT) / (1 - RECALL_LIMIT) if place < len(known) else -1.0,
        ]
        return max(beyond)

    def joined(self, more: Candidate) -> Candidate:
        """With what was seen of other pictures of the same state at the same strength."""
        share = len(more.style) / (len(self.style) + len(more.style))
        return replace(
            self,
            style=self.style + more.style,
            subject=self.subject + more.subject,
            nearness=self.nearness + more.nearness,
            nearest=self.nearest + more.nearest,
            drift=(1 - share) * self.drift + share * more.drift,
            variety=(1 - share) * self.variety + share * more.variety,
        )


def joint(style: float, subject: float) -> float:
    """One number for both: their harmonic mean, each cut to [0, 1], so that neither pays for the other's failure."""
    a, b = min(max(style, 0.0), 1.0), min(max(subject, 0.0), 1.0)
    return 2 * a * b / (a + b) if a + b else 0.0


def style_of(ways: Sequence[float]) -> float:
    """The style of pictures that went so much of the way from the base to the training images: the cube of the mean.

    The first steps of the way are hardly seen: what a network that tells sets of icons apart gave to the pictures of
    some twenty runs rose as the square of the way in one style, as the cube and more in others (docs/judging.md).
    """
    return float(statistics.fmean(ways) ** 3)


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The Pareto front over style and subject: nobody else is at least as good in both and better in one."""

    def beaten(one: Candidate) -> bool:
        return any(
            other.style_mean >= one.style_mean
            and other.subject_mean >= one.subject_mean
            and (other.style_mean > one.style_mean or other.subject_mean > one.subject_mean)
            for other in candidates
        )

    return [candidate for candidate in candidates if not beaten(candidate)]


@dataclass(frozen=True)
class Pick:
    """What is recommended.

    Attributes:
        candidate: the recommended one.
        best: the one with the highest joint score; another one only when they cannot be told apart.
        front: the candidates that nothing beats, strongest style last.
        confidence: share of resamples of prompts and seeds in which the recommended one is the best or within noise
            of it, 0 to 1.
        tied: those that cannot be told from the best.
    """

    candidate: Candidate
    best: Candidate
    front: tuple[Candidate, ...]
    confidence: float
    tied: tuple[Candidate, ...]


def finalists(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """Those that could still be the best, at most so many, the best first: they are worth more pictures.

    A limit that is only just broken may be kept by more pictures.
    """
    near = [candidate for candidate in candidates if candidate.excess <= ALMOST] or _least_beyond(candidates)
    return sorted(near, key=lambda c: (-c.joint, c.step, c.strength))[:most]


def pick(candidates: Sequence[Candidate], *, seed: int = 0) -> Pick:
    """Choose a candidate.

    Those that break a limit are left out; when all do, all but those that break theirs the least. The knee of the
    front is the highest harmonic mean of style and subject. Candidates whose lead over one another is within the noise
    of prompts and seeds (paired bootstrap, Efron and Tibshirani 1993, chapter 16), and that have at least `CLOSE` of
    the best score, count as tied, and then the earlier and weaker one wins: it is the one that kept more of the base.

    Where some drew more pictures than others (`finalists`), the pick is one of them.

    Raises:
        ValueError: there is no candidate.
    """
    if not candidates:
        raise ValueError("there is nothing to pick from")
    allowed = [candidate for candidate in candidates if candidate.excluded is None] or _least_beyond(candidates)
    most = max(len(candidate.style) for candidate in allowed)
    seen = [candidate for candidate in allowed if len(candidate.style) == most]
    best = max(seen, key=lambda c: (c.joint, -c.step, -c.strength))
    chances = {id(c): _chance_to_match(c, best, seed) for c in seen}
    tied = tuple(c for c in seen if chances[id(c)] > 1 - SURE and c.joint >= CLOSE * best.joint)
    chosen = min(tied, key=lambda c: (c.step, c.strength))
    ordered = sorted(front(allowed), key=lambda c: (c.style_mean, c.step))
    return Pick(chosen, best, tuple(ordered), chances[id(chosen)], tied)


def _least_beyond(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that break their limit the least, and those that break theirs hardly more."""
    least = min(candidate.excess for candidate in candidates)
    return [candidate for candidate in candidates if candidate.excess <= least + ALMOST]


def _chance_to_match(one: Candidate, best: Candidate, seed: int) -> float:
    """Share of resamples in which ``one`` has at least the joint score of ``best`` on the same pictures."""
    if one is best:
        return 1.0
    count = len(one.style)
    draws = random.Random(stable_seed(seed, "bootstrap"))
    wins = 0
    for _ in range(RESAMPLES):
        rows = draws.choices(range(count), k=count)
        wins += _joint_of(one, rows) >= _joint_of(best, rows)
    return wins / RESAMPLES


def _joint_of(one: Candidate, rows: Sequence[int]) -> float:
    """The joint score by some of the pictures."""
    return joint(style_of([one.style[i] for i in rows]), statistics.fmean(one.subject[i] for i in rows))


def sentence(chosen: Pick, candidates: Sequence[Candidate], image_names: Sequence[str]) -> str:
    """Why, in the words a user reads; made of the numbers and nothing else."""
    one = chosen.candidate
    parts = [f"Step {one.step} at strength {one.strength:g}: {_style_words(one, chosen)}, {_subject_words(one)}."]
    if len(chosen.tied) > 1:
        parts.append(
            f"{len(chosen.tied) - 1} other{'s' if len(chosen.tied) > 2 else ''} cannot be told from it by these "
            "pictures; the earlier and weaker one keeps more of the base."
        )
    worse = [c for c in candidates if c.copied is not None and c.step >= one.step and c is not one]
    if worse:
        parts.append(_copy_words(min(worse, key=lambda c: (c.step, c.strength)), image_names))
    if one.excluded == "copying" and not worse:
        parts.append(_copy_words(one, image_names))
    if one.excluded is not None:
        parts.append(_WARNINGS[one.excluded])
    return " ".join(parts)


def _copy_words(one: Candidate, image_names: Sequence[str]) -> str:
    """From where on training images come back, and which."""
    assert one.copied is not None
    name = image_names[one.copied]
    where = f"Step {one.step} at {one.strength:g}"
    others = len(one.by_heart) - 1
    if not one.knows_by_heart:
        return f"{where} begins to copy {name}."
    more = f" and {others} more" if others else ""
    return f"{where} knows {name}{more} by heart: the caption alone brings that picture back."


_WARNINGS = {
    "copying": "Every candidate repeats training images: train fewer steps, or with more images.",
    "drift": "Every candidate also changes prompts that do not ask for it: train fewer steps or at a lower rate.",
    "variety": "Every candidate draws different seeds too much alike: train fewer steps, or with more images.",
}


def _style_words(one: Candidate, chosen: Pick) -> str:
    strongest = max(c.style_mean for c in chosen.front)
    if one.style_mean >= 0.95 * strongest:
        return "as close to your images as any"
    way = max(0.0, min(statistics.fmean(one.style), 1.0))
    return f"{round(100 * way)}% of the way from the base to your images"


def _subject_words(one: Candidate) -> str:
    if one.subject_mean >= 0.9:
        return "and subjects survive"
    if one.subject_mean >= 0.65:
        return "most subjects survive"
    return "but many subjects could be taken for others"
