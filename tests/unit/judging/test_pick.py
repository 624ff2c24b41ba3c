"""The pick as a function of numbers: what wins, what is left out, and how sure it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.judging.judge import FINALISTS, LEAST_SUBJECTS, one_round, two_rounds
from trainer.judging.pick import Candidate, finalists, front, joint, pick, sentence


def candidate(step: int, strength: float, style: float, subject: float, **other: object) -> Candidate:
    """Ten pictures whose scores scatter a little around what is asked for; ``style`` is their part of the way."""
    scatter = [0.01 * (i % 5 - 2) for i in range(10)]
    given: dict[str, object] = {
        "style": tuple(style + s for s in scatter),
        "subject": tuple(subject - s for s in scatter),
        "nearness": (1.0,) * 10,
        "nearest": (0,) * 10,
        "drift": 0.05,
        "variety": 1.0,
    }
    return Candidate(step=step, strength=strength, **(given | other))  # type: ignore[arg-type]


def test_joint_is_the_harmonic_mean_and_neither_pays_for_the_other() -> None:
    assert joint(0.5, 1.0) == pytest.approx(2 / 3)
    assert joint(0.0, 1.0) == 0.0
    assert joint(1.7, 1.0) == 1.0
    assert joint(-0.3, 0.9) == 0.0


def test_the_front_holds_those_that_nobody_beats_in_both() -> None:
    weak, middle, strong = candidate(1, 1, 0.2, 0.9), candidate(2, 1, 0.6, 0.8), candidate(3, 1, 0.9, 0.4)
    beaten = candidate(4, 1, 0.5, 0.7)
    assert front([weak, middle, strong, beaten]) == [weak, middle, strong]


def test_the_knee_wins_over_the_strongest_and_the_weakest() -> None:
    knee = candidate(300, 0.75, 0.8, 0.9)
    chosen = pick([candidate(100, 0.25, 0.1, 1.0), knee, candidate(400, 1.25, 1.0, 0.3)])
    assert chosen.candidate is knee
    assert chosen.confidence == 1.0
    assert chosen.tied == (knee,)


def test_of_candidates_within_noise_the_earlier_and_weaker_wins() -> None:
    early = candidate(200, 0.75, 0.80, 0.9)
    late = Candidate(
        step=400,
        strength=1.0,
        style=tuple(s + d for s, d in zip(early.style, [0.29, -0.28] * 5, strict=True)),
        subject=early.subject,
        nearness=early.nearness,
        nearest=early.nearest,
        drift=0.05,
        variety=1.0,
    )
    chosen = pick([early, late])
    assert chosen.best is late
    assert chosen.candidate is early
    assert set(chosen.tied) == {early, late}
    assert 0.2 < chosen.confidence < 1.0


def test_a_plain_loss_is_no_tie_however_few_the_pictures() -> None:
    """Four pictures cannot prove that the late state is better; at half of its score the early one is not preferred."""

    def of(step: int, style: tuple[float, ...]) -> Candidate:
        four = replace(candidate(step, 1.25, 0.0, 0.9), style=style, subject=(0.9,) * 4)
        return replace(four, nearness=(1.0,) * 4, nearest=(0,) * 4)

    early, late = of(100, (0.6, 0.05, 0.05, 0.05)), of(400, (0.3, 0.35, 0.3, 0.35))
    chosen = pick([early, late])
    assert chosen.candidate is late
    assert chosen.tied == (late,)


@pytest.mark.parametrize(
    ("limit", "other"),
    [
        ("copying", {"nearness": (5.0,) * 10, "nearest": (7,) * 10}),
        ("drift", {"drift": 0.9}),
        ("variety", {"variety": 0.2}),
    ],
)
def test_who_breaks_a_limit_is_left_out_however_good_it_looks(limit: str, other: dict[str, object]) -> None:
    honest, broken = candidate(200, 1.0, 0.5, 0.8), candidate(300, 1.0, 0.95, 0.95, **other)
    assert broken.excluded == limit
    assert pick([honest, broken]).candidate is honest
    # With nothing else to offer it is recommended after all, and the sentence says what is wrong with it.
    alone = pick([broken])
    assert alone.candidate is broken
    assert "train fewer steps" in sentence(alone, [broken], [f"image {i}" for i in range(10)])


def test_one_near_picture_among_many_is_no_copying() -> None:
    assert candidate(1, 1, 0.5, 0.5, nearness=(5.0,) + (1.0,) * 9).copied is None


def test_the_sentence_names_step_strength_and_the_image_that_is_copied() -> None:
    good = candidate(300, 0.8, 0.8, 0.95)
    copying = candidate(400, 1.0, 0.9, 0.9, nearness=(1.0,) * 5 + (3.0,) * 5, nearest=(0,) * 5 + (2,) * 5)
    text = sentence(pick([good, copying]), [good, copying], ["a.png", "b.png", "owl.png"])
    assert text.startswith("Step 300 at strength 0.8: as close to your images as any, and subjects survive.")
    assert "Step 400 at 1 begins to copy owl.png." in text


def test_the_sentence_says_the_way_and_the_score_is_its_cube() -> None:
    weak, strong = candidate(100, 0.5, 0.5, 0.95), candidate(400, 1.0, 0.9, 0.1)
    assert weak.style_mean == pytest.approx(0.125)
    assert candidate(100, 0.5, -0.5, 0.95).style_mean == pytest.approx(-0.125)
    assert "50% of the way from the base to your images" in sentence(pick([weak, strong]), [weak, strong], ["a.png"])


def test_an_overfitted_run_is_caught_by_what_it_knows_by_heart_and_the_image_is_named() -> None:
    """Its pictures of unseen subjects score as well as ever; what its captions bring back tells."""

    def known(recall: float) -> dict[str, object]:
        return {"recall": (recall - 0.1, recall, recall - 0.02, recall), "recalled": (0, 1, 2, 3), "images": 4}

    early = candidate(500, 0.5, 0.7, 0.8, **known(0.6))
    late = [candidate(step, s, 0.9, 0.9, **known(0.97)) for step in (500, 1000, 2000) for s in (1.0, 1.25)]
    assert {one.excluded for one in late} == {"copying"}
    chosen = pick([early, *late])
    assert chosen.candidate is early
    text = sentence(chosen, [early, *late], ["cat.png", "rocket.png", "tulip.png", "tea.png"])
    assert "Step 500 at 1 knows tea.png and 3 more by heart: the caption alone brings that picture back." in text
    # One image of many that is simple enough to be known is no reason to leave a candidate out.
    one_of_many = candidate(400, 1.0, 0.9, 0.9, recall=(0.99, 0.3, 0.2), recalled=(7, 1, 2), images=16)
    assert one_of_many.excluded is None
    assert one_of_many.by_heart == (7,)


def test_where_all_break_a_limit_those_that_break_it_least_are_left_to_choose_from() -> None:
    def repeats(step: int, recall: float, style: float) -> Candidate:
        return candidate(step, 1.0, style, 0.9, recall=(recall,) * 4, recalled=(0, 1, 2, 3), images=4)

    first, last = repeats(100, 0.87, 0.6), repeats(2000, 0.99, 0.95)
    chosen = pick([first, last])
    assert chosen.candidate is first
    text = sentence(chosen, [first, last], ["a.png", "b.png", "c.png", "d.png"])
    assert "knows d.png and 3 more by heart" in text
    assert "train fewer steps" in text


def test_one_near_picture_of_three_is_no_copying_and_two_are() -> None:
    def near(*nearness: float) -> Candidate:
        three = replace(candidate(1, 1, 0.5, 0.5), style=(0.5,) * 3, subject=(0.5,) * 3)
        return replace(three, nearness=nearness, nearest=(4,) * 3)

    assert near(5.0, 1.0, 1.0).copied is None
    assert near(5.0, 1.0, 1.0).excess < 0
    assert near(5.0, 3.0, 1.0).copied == 4
    assert near(5.0, 3.0, 1.0).excess > 0


def test_the_best_few_are_looked_at_again_and_the_pick_is_made_of_all_their_pictures() -> None:
    seen = [candidate(100, s, 0.5 * s, 0.9) for s in (0.25, 0.5, 0.75, 1.0, 1.25)]
    again = finalists(seen, 3)
    assert [one.strength for one in again] == [1.25, 1.0, 0.75]
    # What looked best holds less on other pictures than the one behind it.
    more = {1.25: candidate(100, 1.25, 0.1, 0.9), 1.0: candidate(100, 1.0, 0.8, 0.9), 0.75: again[2]}
    joined = [one.joined(more[one.strength]) if one in again else one for one in seen]
    assert len(joined[-1].style) == 20
    chosen = pick(joined)
    assert chosen.candidate.strength == 1.0
    assert {one.strength for one in chosen.tied} <= {0.75, 1.0, 1.25}
    # Where none of them keeps the limits on all pictures, one of the others does.
    broken = [replace(one, drift=0.9) if len(one.style) > 10 else one for one in joined]
    assert pick(broken).candidate.strength == 0.5


def test_more_pictures_count_by_their_number_and_can_bring_a_candidate_back_into_the_limits() -> None:
    over = candidate(100, 1.0, 0.9, 0.9, drift=0.74, variety=0.6)
    plain = candidate(100, 0.5, 0.4, 0.9)
    assert over.excluded == "drift"
    assert finalists([plain, over], 1) == [over]
    joined = over.joined(candidate(100, 1.0, 0.9, 0.9, drift=0.60, variety=0.8))
    assert joined.drift == pytest.approx(0.67)
    assert joined.variety == pytest.approx(0.7)
    assert pick([plain.joined(plain), joined]).candidate is joined
    far = candidate(100, 1.0, 0.9, 0.9, drift=1.0)
    assert finalists([plain, far], 2) == [plain]


SUBJECTS = [f"thing {index}" for index in range(12)]


def test_what_is_left_of_the_passes_goes_into_more_pictures_of_the_best() -> None:
    needed = 0
    for passes in (1_900, 2_100, 2_500, 4_000, 8_000):
        asked = two_rounds(SUBJECTS, "x", candidates=15, images=16, passes=passes)
        assert asked is not None
        first, second = asked
        assert first.passes(15, 16) + second.passes(FINALISTS, 0) <= passes
        assert not set(first.subjects) & set(second.subjects)
        assert not set(first.seeds) & set(second.seeds)
        now = len(first.subjects) + len(second.subjects)
        assert now >= needed
        needed = now
    assert needed == len(SUBJECTS)


def test_where_passes_are_too_few_there_is_one_round_or_none() -> None:
    few = {"candidates": 15, "images": 16}
    assert two_rounds(SUBJECTS, "x", **few, passes=1_400) is None
    asked = one_round(SUBJECTS, "x", **few, passes=1_400)
    assert asked is not None
    assert len(asked[0].subjects) == LEAST_SUBJECTS
    assert asked[0].passes(15, 16) <= 1_400
    assert one_round(SUBJECTS, "x", **few, passes=1_000) is None
    assert two_rounds(SUBJECTS, "x", **few, passes=1_000, anyway=True) is not None


def test_too_few_subjects_are_drawn_from_other_noise_instead() -> None:
    asked = two_rounds(SUBJECTS[:3], "x", candidates=15, images=16, passes=9_000)
    assert asked is not None
    first, second = asked
    assert first.subjects == second.subjects
    assert not set(first.seeds) & set(second.seeds)


def test_the_same_numbers_give_the_same_pick() -> None:
    row = [candidate(100 * i, 1.0, 0.5 + 0.01 * i, 0.9 - 0.01 * i) for i in range(1, 6)]
    assert pick(row) == pick(row)


def test_nothing_to_pick_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to pick from"):
        pick([])
