"""Which training images stand out by how well they were learned."""

from __future__ import annotations

from trainer.judging.images import learned, standing
from trainer.judging.judgement import Judged, Judgement


def test_images_that_gain_alike_do_not_stand_out() -> None:
    assert standing([0.20, 0.22, 0.21, 0.19, 0.20, 0.23, 0.18]) == [""] * 7
    assert standing([0.2] * 7) == [""] * 7


def test_one_of_another_kind_and_one_learned_by_heart_are_told() -> None:
    assert standing([0.20, 0.22, 0.05, 0.19, 0.21, 0.60, 0.18]) == ["", "", "least", "", "", "most", ""]


def test_of_few_images_none_stands_out() -> None:
    assert standing([0.1, 0.1, 0.9]) == ["", "", ""]


def test_the_end_of_the_run_decides_and_its_course_is_kept() -> None:
    names = [f"{index}.png" for index in range(6)]
    images = learned(names, [[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2, 0.01]])
    assert [one.standing for one in images] == ["", "", "", "", "", "least"]
    assert images[0].gains == (0.5, 0.2)


def test_a_judgement_speaks_of_images_as_their_owner_does() -> None:
    one = Judged(step=4, strength=1.0, style=0.5, subject=0.5, nearness=2.0, drift=0.0, variety=1.0, copied="0a1b.png")
    judgement = Judgement(
        candidates=(one,), step=4, strength=1.0, confidence=1.0, sentence="Step 4 begins to copy 0a1b.png.",
        images=learned(["0a1b.png"], [[0.3]]),
    ).titled({"0a1b.png": "my cat.jpg"})  # fmt: skip
    assert judgement.sentence == "Step 4 begins to copy my cat.jpg."
    assert judgement.candidates[0].copied == "my cat.jpg"
    assert (judgement.images[0].name, judgement.images[0].title) == ("0a1b.png", "my cat.jpg")
