"""Buckets keep the area and most of the image."""

from __future__ import annotations

import pytest

from trainer.data.buckets import (
    MAX_ASPECT,
    center_crop_box,
    choose_bucket,
    enlargement,
    kept_share,
    make_buckets,
)


@pytest.mark.parametrize(
    ("resolution", "multiple"), [(64, 16), (128, 16), (512, 64), (768, 64), (1024, 64), (1000, 64)]
)
def test_buckets_obey_multiple_area_and_aspect(resolution: int, multiple: int) -> None:
    buckets = make_buckets(resolution, multiple)
    side = resolution // multiple * multiple
    assert (side, side) in buckets
    for width, height in buckets:
        assert width % multiple == 0
        assert height % multiple == 0
        assert 0.7 * side * side <= width * height <= side * side
        assert max(width, height) <= MAX_ASPECT * min(width, height)
        assert (height, width) in buckets


def test_the_buckets_of_a_512_base_are_the_known_ones() -> None:
    assert make_buckets(512, 64) == ((384, 640), (448, 576), (512, 512), (576, 448), (640, 384))


def test_without_bucketing_there_is_the_square_alone() -> None:
    assert make_buckets(520, 64, bucketing=False) == ((512, 512),)


def test_a_resolution_below_the_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        make_buckets(32, 64)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((2000, 2100), (512, 512)),
        ((1600, 1200), (576, 448)),
        ((1080, 1920), (384, 640)),
        ((9000, 100), (640, 384)),
    ],
)
def test_an_image_gets_the_bucket_nearest_to_its_shape(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert choose_bucket(*size, make_buckets(512, 64)) == bucket


def test_the_chosen_bucket_keeps_at_least_as_much_as_any_other() -> None:
    buckets = make_buckets(512, 64)
    for width in range(100, 1000, 37):
        best = kept_share(width, 500, choose_bucket(width, 500, buckets))
        assert best == max(kept_share(width, 500, bucket) for bucket in buckets)


@pytest.mark.parametrize("size", [(640, 480), (481, 640), (100, 1), (1, 100), (7, 7), (3001, 17)])
@pytest.mark.parametrize("bucket", [(512, 512), (640, 384), (384, 640)])
def test_a_crop_is_centred_inside_and_of_the_buckets_shape(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    width, height = size
    left, top, right, bottom = center_crop_box(width, height, bucket)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1
    assert right - left == width or bottom - top == height
    # No whole pixel more or less would be nearer to the bucket's aspect.
    ideal = min(width, height * bucket[0] / bucket[1])
    assert abs((right - left) - ideal) <= max(0.5, 1 - ideal)


def test_the_crop_of_an_image_of_the_buckets_shape_is_all_of_it() -> None:
    assert center_crop_box(1280, 768, (640, 384)) == (0, 0, 1280, 768)
    assert kept_share(1280, 768, (640, 384)) == 1


def test_enlargement_tells_how_many_times_the_crop_is_too_small() -> None:
    assert enlargement((0, 0, 128, 128), (512, 512)) == 4
    assert enlargement((10, 0, 1034, 1024), (512, 512)) == 0.5
