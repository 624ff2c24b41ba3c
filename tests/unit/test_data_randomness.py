"""Seeds and batch order are functions of what they are for."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import pytest

from trainer.data.sampler import BatchPlan
from trainer.randomness import permutation, stable_seed


def test_a_seed_is_the_same_in_every_process_and_version() -> None:
    # The value is `b2sum -l 32` of the text [42,"noise",17,3]; another one would break the resuming
    # of every run that exists.
    assert stable_seed(42, "noise", 17, 3) == 633246945
    code = "from trainer.randomness import stable_seed; print(stable_seed(42, 'noise', 17, 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(printed.stdout) == stable_seed(42, "noise", 17, 3)


def test_seeds_have_32_bits_and_use_them_all() -> None:
    seeds = [stable_seed("x", i) for i in range(2000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**32
    for bit in range(32):
        assert 800 < sum(seed >> bit & 1 for seed in seeds) < 1200


def test_parts_that_differ_in_kind_or_cut_give_different_seeds() -> None:
    parts = [(1,), (1.0,), ("1",), (True,), (None,), ("ab", "c"), ("a", "bc"), ("abc",), (1, 2)]
    assert len({stable_seed(*p) for p in parts}) == len(parts)


def test_a_seed_of_nothing_or_of_something_odd_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        stable_seed()
    with pytest.raises(TypeError, match="list"):
        stable_seed([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        stable_seed(math.inf)


def test_a_permutation_has_every_index_once_and_depends_on_its_parts() -> None:
    assert sorted(permutation(50, 1, "a")) == list(range(50))
    assert permutation(50, 1, "a") == permutation(50, 1, "a")
    assert permutation(50, 1, "a") != permutation(50, 2, "a")
    assert permutation(0, 1) == []


def test_every_first_place_is_about_equally_likely() -> None:
    first = Counter(permutation(4, 7, epoch)[0] for epoch in range(2000))
    assert all(400 < first[i] < 600 for i in range(4))


def test_a_batch_depends_on_its_index_alone() -> None:
    plan = BatchPlan([0, 1, 0, 0, 1, 0, 0], batch_size=2, seed=3)
    forwards = [plan.batch(i) for i in range(30)]
    again = BatchPlan([0, 1, 0, 0, 1, 0, 0], batch_size=2, seed=3)
    assert [again.batch(i) for i in reversed(range(30))] == forwards[::-1]


def test_batches_have_one_size_and_one_bucket() -> None:
    buckets = [0, 1, 0, 2, 1, 0, 0, 1]
    plan = BatchPlan(buckets, batch_size=3, seed=0)
    for i in range(40):
        batch = plan.batch(i)
        assert len(batch) == 3
        assert len({buckets[image] for image in batch}) == 1


def test_an_epoch_shows_every_image_and_the_next_one_in_another_order() -> None:
    plan = BatchPlan([0] * 8 + [1] * 5, batch_size=4, seed=1)
    assert plan.batches_per_epoch == 4
    epochs = [[plan.batch(e * 4 + i) for i in range(4)] for e in range(3)]
    for epoch in epochs:
        assert {image for batch in epoch for image in batch} == set(range(13))
    assert epochs[0] != epochs[1] != epochs[2]


def test_no_image_is_seen_twice_before_its_bucket_is_used_up() -> None:
    plan = BatchPlan([0] * 5, batch_size=4, seed=1)
    counts = Counter(image for i in range(2) for image in plan.batch(i))
    assert sorted(counts.values()) == [1, 1, 2, 2, 2]


def test_fewer_images_than_a_batch_wrap_around_evenly() -> None:
    plan = BatchPlan([0, 0, 0], batch_size=7, seed=1)
    assert plan.batches_per_epoch == 1
    assert sorted(Counter(plan.batch(0)).values()) == [2, 2, 3]


def test_the_seed_changes_the_order() -> None:
    orders = {tuple(BatchPlan([0] * 8, 8, seed).batch(0)) for seed in range(5)}
    assert len(orders) == 5


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        BatchPlan([], 4, 0)
    with pytest.raises(ValueError, match="batch_size"):
        BatchPlan([0], 0, 0)
    with pytest.raises(IndexError):
        BatchPlan([0], 1, 0).batch(-1)
