"""Blind pairs, and the ranking that follows from what was chosen."""

from __future__ import annotations

import random

import pytest

from trainer.errors import RunError
from trainer.judging.judgement import Judged, Judgement
from trainer.judging.votes import Vote, contestants, next_pair, preferred, ranking, read, written


def judged(step: int, style: float, excluded: str = "") -> Judged:
    return Judged(
        step=step, strength=1.0, style=style, subject=0.8, nearness=1.0, drift=0.0, variety=1.0, excluded=excluded,
        pictures=f"judging/{step}.png",
    )  # fmt: skip


JUDGEMENT = Judgement(
    candidates=(judged(100, 0.2), judged(200, 0.6), judged(300, 0.7), judged(400, 0.9, "copying")),
    step=100,
    strength=1.0,
    confidence=1.0,
    sentence="",
    prompts=("cat", "bus", "cat"),
)


def cast(better_than: dict[int, float], count: int) -> tuple[Vote, ...]:
    """Votes of somebody who likes a step as much as is said, and is sometimes in two minds."""
    draws = random.Random(1)
    votes: tuple[Vote, ...] = ()
    for _ in range(count):
        pair = next_pair(JUDGEMENT, votes)
        assert pair is not None
        left, right = better_than[pair.left.step], better_than[pair.right.step]
        votes = (*votes, pair.decided("left" if draws.random() < left / (left + right) else "right"))
    return votes


def test_what_copies_is_not_voted_on_and_what_is_in_the_file_always_is() -> None:
    assert [one.step for one in contestants(JUDGEMENT)] == [100, 300, 200]
    kept = JUDGEMENT.model_copy(update={"chosen_step": 400, "chosen_strength": 1.0})
    assert [one.step for one in contestants(kept)] == [400, 300, 200, 100]
    alone = JUDGEMENT.model_copy(update={"candidates": JUDGEMENT.candidates[:1]})
    assert next_pair(alone, ()) is None


def test_all_pairs_come_equally_often_with_every_prompt_and_either_side() -> None:
    votes = cast({100: 1, 200: 1, 300: 1}, 30)
    met = [frozenset((vote.left[0], vote.right[0])) for vote in votes]
    assert {met.count(pair) for pair in set(met)} == {10}
    assert len(set(met)) == 3
    assert {vote.prompt for vote in votes} == {0, 1, 2}
    sides = [vote.left[0] < vote.right[0] for vote in votes]
    assert 5 < sum(sides) < 25


def test_the_ranking_finds_who_is_preferred_and_how_sure_that_is() -> None:
    clear = ranking(cast({100: 1, 200: 20, 300: 4}, 40))
    assert [place.step for place in clear] == [200, 300, 100]
    leader = preferred(clear)
    assert leader is not None
    assert leader.step == 200
    assert all(0 < place.low <= place.score <= place.high < 1 for place in clear)
    few = ranking(cast({100: 1, 200: 20, 300: 4}, 6))
    assert few[0].high - few[0].low > clear[0].high - clear[0].low
    even = ranking(cast({100: 1, 200: 1, 300: 1}, 30))
    assert preferred(even) is None
    assert ranking(()) == ()


def test_no_difference_counts_as_half_a_win_for_each() -> None:
    pair = next_pair(JUDGEMENT, ())
    assert pair is not None
    places = ranking((pair.decided("same"),) * 4)
    assert [place.score for place in places] == pytest.approx([0.5, 0.5])


def test_votes_outlive_their_file_and_what_is_none_is_refused() -> None:
    votes = cast({100: 1, 200: 2, 300: 1}, 5)
    assert read(written(votes)) == votes
    with pytest.raises(RunError, match="vote again"):
        read(b'[{"prompt": 1}]')
    pair = next_pair(JUDGEMENT, votes)
    assert pair is not None
    with pytest.raises(RunError, match="left, right, same"):
        pair.decided("both")
