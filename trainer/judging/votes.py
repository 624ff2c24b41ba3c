"""Which candidate people prefer: blind pairs, and the ranking that follows from what was chosen. Without torch.

A pair shows the same prompt of two candidates, which is left and which right drawn by lot. The ranking is Bradley and
Terry's (1952): each candidate has a strength ``p``, and beats another with the chance ``p / (p + q)``. Strengths are
the most likely ones (Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equation 3), votes that see no
difference being half a win for each, and every candidate having won and lost half a vote more against an average one,
so that few votes do not make strengths without bound. How sure they are is told by drawing the votes, those halves
among them, again with replacement.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from trainer.errors import RunError
from trainer.judging.judgement import Judged, Judgement
from trainer.judging.pick import joint
from trainer.randomness import stable_seed

FILE = "votes.json"
MOST_CONTESTANTS = 5
RESAMPLES = 200
SURE = 0.8
"""Share of resamples that a candidate must lead to be called preferred."""
ROUNDS = 40
"""Of the algorithm; strengths of few candidates settle in far fewer."""
INTERVAL = 0.9

Name = tuple[int, float]
"""A candidate's step and strength."""
Better = Literal["left", "right", "same"]


class Vote(BaseModel):
    """What was said of one pair; ``prompt`` is the index of the picture in the candidates' strips."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: int
    left: Name
    right: Name
    better: Better


_VOTES: TypeAdapter[tuple[Vote, ...]] = TypeAdapter(tuple[Vote, ...])


def read(content: bytes) -> tuple[Vote, ...]:
    """The votes in a file.

    Raises:
        RunError: it holds none.
    """
    try:
        return _VOTES.validate_json(content)
    except ValidationError:
        raise RunError(f"{FILE} is damaged: remove it to vote again.") from None


def written(votes: Sequence[Vote]) -> bytes:
    """The votes as the file holds them."""
    return _VOTES.dump_json(tuple(votes), indent=1) + b"\n"


@dataclass(frozen=True)
class Pair:
    """Two candidates to choose between; ``number`` counts the votes before it."""

    number: int
    prompt: int
    left: Judged
    right: Judged

    def decided(self, better: str) -> Vote:
        """The vote for one side.

        Raises:
            RunError: ``better`` is no side.
        """
        for known in get_args(Better):
            if better == known:
                left, right = (self.left.step, self.left.strength), (self.right.step, self.right.strength)
                return Vote(prompt=self.prompt, left=left, right=right, better=known)
        raise RunError(f"{better!r} is no vote: it is one of {', '.join(get_args(Better))}.")


@dataclass(frozen=True)
class Place:
    """A candidate in the ranking.

    Attributes:
        score: the chance to be preferred to an average candidate.
        low, high: between which it lies in 90% of resamples.
        first: share of resamples that it leads.
        votes: that it took part in.
    """

    step: int
    strength: float
    score: float
    low: float
    high: float
    first: float
    votes: int


def contestants(judgement: Judgement) -> list[Judged]:
    """The candidates worth voting on: what is in the file, and the best others that break no limit."""
    kept = judgement.find(*judgement.kept)
    shown = [one for one in judgement.candidates if one.pictures and not one.excluded and one != kept]
    best = sorted(shown, key=lambda one: (-joint(one.style, one.subject), one.step, one.strength))
    chosen = [kept] if kept.pictures else []
    return [*chosen, *best][:MOST_CONTESTANTS]


def next_pair(judgement: Judgement, votes: Sequence[Vote]) -> Pair | None:
    """What to ask next: those that were compared least; None where there is nothing to compare."""
    field = contestants(judgement)
    if len(field) < 2 or not judgement.prompts:
        return None
    met = Counter(frozenset((vote.left, vote.right)) for vote in votes)
    seen = Counter(name for vote in votes for name in (vote.left, vote.right))

    def wanted(pair: tuple[Judged, Judged]) -> tuple[int, int]:
        names = [(one.step, one.strength) for one in pair]
        return met[frozenset(names)], sum(seen[name] for name in names)

    first, second = min(combinations(field, 2), key=wanted)
    number = len(votes)
    before = met[frozenset(((first.step, first.strength), (second.step, second.strength)))]
    lot = stable_seed("votes", number)
    left, right = (first, second) if lot % 2 else (second, first)
    return Pair(number, (before + number // len(judgement.prompts)) % len(judgement.prompts), left, right)


@lru_cache(maxsize=16)
def ranking(votes: tuple[Vote, ...]) -> tuple[Place, ...]:
    """Every candidate that was voted on, the preferred one first."""
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    if not names:
        return ()
    outcomes = [
        *(_Outcome(vote.left, vote.right, _FOR_LEFT[vote.better], 1.0) for vote in votes),
        *(_Outcome(name, None, won, 0.5) for name in names for won in (1.0, 0.0)),
    ]
    strengths = _strengths(outcomes, names)
    draws = random.Random(stable_seed("votes", "bootstrap"))
    drawn = [_strengths(draws.choices(outcomes, k=len(outcomes)), names) for _ in range(RESAMPLES)]
    leads = Counter(max(names, key=lambda name: one[name]) for one in drawn)
    edge = round((1 - INTERVAL) / 2 * RESAMPLES)
    places = []
    for name in names:
        spread = sorted(_chance(one[name]) for one in drawn)
        places.append(
            Place(
                step=name[0],
                strength=name[1],
                score=_chance(strengths[name]),
                low=spread[edge],
                high=spread[-1 - edge],
                first=leads[name] / RESAMPLES,
                votes=sum(name in (vote.left, vote.right) for vote in votes),
            )
        )
    return tuple(sorted(places, key=lambda place: (-place.score, place.step, place.strength)))


def preferred(places: Sequence[Place]) -> Place | None:
    """The candidate that leads clearly, if one does."""
    return places[0] if places and places[0].first >= SURE else None


_FOR_LEFT = {"left": 1.0, "same": 0.5, "right": 0.0}


@dataclass(frozen=True)
class _Outcome:
    """Who met whom, None being an average candidate, what share of a win the first had, and how much it counts."""

    one: Name
    other: Name | None
    won: float
    weight: float


def _strengths(outcomes: Sequence[_Outcome], names: Sequence[Name]) -> dict[Name, float]:
    wins = dict.fromkeys(names, 1e-3)
    met: dict[Name, dict[Name | None, float]] = {name: {None: 2e-3} for name in names}
    for each in outcomes:
        wins[each.one] += each.weight * each.won
        met[each.one][each.other] = met[each.one].get(each.other, 0.0) + each.weight
        if each.other is not None:
            wins[each.other] += each.weight * (1 - each.won)
            met[each.other][each.one] = met[each.other].get(each.one, 0.0) + each.weight
    strengths = dict.fromkeys(names, 1.0)

    def of(name: Name | None) -> float:
        return 1.0 if name is None else strengths[name]

    for _ in range(ROUNDS):
        strengths = {
            name: wins[name] / sum(count / (of(name) + of(other)) for other, count in met[name].items())
            for name in names
        }
    return strengths


def _chance(strength: float) -> float:
    """To beat a candidate of strength 1."""
    return strength / (strength + 1)
