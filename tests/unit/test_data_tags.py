"""Captions of tags: told from sentences, given in other orders, and left out by chance, the same whenever asked."""

from __future__ import annotations

import pytest

from trainer.data.tags import kind_of, orders_for, plain, shuffled, tags_of, without

BOORU = ["1girl, solo, long hair, smile", "1boy, city, night, rain, neon lights", "scenery, no humans, sky"]
SPOKEN = [
    "a red fox sitting in the snow",
    "A portrait of an old man, painted in oil.",
    "a red fox, sitting in the deep snow, with mountains behind it, at dusk",
    "red apple",
    "a small house beside a lake, ink style",
]
MANY = ", ".join(f"tag{number}" for number in range(20))


def test_lists_of_tags_are_told_from_sentences() -> None:
    assert kind_of(BOORU) == "tags"
    assert kind_of(SPOKEN) == "sentences"
    assert kind_of([*BOORU, *SPOKEN[:2]]) == "tags"
    assert kind_of([*BOORU[:1], *SPOKEN]) == "sentences"
    assert kind_of(["cat", "", "dog"]) == kind_of([]) == "sentences"


def test_shuffled_captions_have_the_same_tags_in_other_orders_with_the_first_kept() -> None:
    made = shuffled(MANY, count=8, seed=1, image="a", shuffle=True, keep=2)
    assert len(set(made)) == 8
    for caption in made:
        tags = tags_of(caption)
        assert tags[:2] == ["tag0", "tag1"]
        assert sorted(tags) == sorted(tags_of(MANY))
    # Every other tag comes to every place in the long run.
    places = [tags_of(caption).index("tag2") for caption in shuffled(MANY, count=200, seed=1, image="a", shuffle=True)]
    assert set(places) == set(range(20))


def test_tags_are_left_out_as_often_as_asked_and_kept_ones_never() -> None:
    made = shuffled(MANY, count=300, seed=1, image="a", shuffle=False, keep=5, dropout=0.3)
    counts = [sum(f"tag{number}" in tags_of(caption) for caption in made) for number in range(20)]
    assert counts[:5] == [300] * 5
    assert all(170 < count < 250 for count in counts[5:])
    assert all(tags_of(caption) == sorted(tags_of(caption), key=lambda tag: int(tag[3:])) for caption in made)


def test_an_order_is_a_function_of_seed_image_and_number() -> None:
    made = shuffled(MANY, count=6, seed=1, image="a", shuffle=True, dropout=0.2)
    assert shuffled(MANY, count=3, seed=1, image="a", shuffle=True, dropout=0.2) == made[:3]
    for other in ({"seed": 2, "image": "a"}, {"seed": 1, "image": "b"}):
        assert shuffled(MANY, count=6, shuffle=True, dropout=0.2, **other) != made  # type: ignore[arg-type]


def test_the_trigger_is_taken_out_to_stand_last_and_plain_captions_have_none() -> None:
    assert without("ink style, cat, red Ink Style", "Ink style") == "cat, red Ink Style"
    assert plain("a cat in ink style, at night", "ink style") == "a cat in, at night"
    assert plain("a cat", "ink style") == "a cat"
    assert plain("a thinking style", "ink style") == "a thinking style"


@pytest.mark.parametrize(("images", "seen", "expected"), [(10, 5, 1), (10, 35, 4), (10, 5000, 16), (1, 0, 1)])
def test_no_more_orders_are_made_than_a_training_sees(images: int, seen: int, expected: int) -> None:
    assert orders_for(images, seen) == expected
