"""Aspect-ratio buckets: a few sizes of about the same area, so that little of an image is cropped.

All sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Size = tuple[int, int]
Box = tuple[int, int, int, int]

MAX_ASPECT = 2.5
"""Longest side over shortest. Beyond it a denoiser trained on near-square images makes repetitions,
so that a panorama is better cropped than squeezed into a very long bucket."""


def make_buckets(resolution: int, multiple: int, *, bucketing: bool = True) -> tuple[Size, ...]:
    """The buckets for a base that is trained at `resolution` x `resolution` pixels.

    Args:
        resolution: side of the square bucket; no bucket has more pixels than that square.
        multiple: every side is a multiple of this (the VAE's factor times the denoiser's).
        bucketing: False gives the square alone.

    Returns:
        Sizes in ascending width; always with the square, and with (h, w) for every (w, h).

    Raises:
        ValueError: `multiple` is below 1 or `resolution` is smaller than it.
    """
    if multiple < 1 or resolution < multiple:
        raise ValueError(f"resolution {resolution} must be at least one multiple of {multiple}")
    square = resolution // multiple * multiple
    sizes = {(square, square)}
    if bucketing:
        # From the square to the narrowest side that the limit on the aspect allows.
        narrowest = math.ceil(square / math.sqrt(MAX_ASPECT) / multiple) * multiple
        for width in range(narrowest, square, multiple):
            height = square * square // width // multiple * multiple
            if height > square and height <= MAX_ASPECT * width:
                sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def choose_bucket(width: int, height: int, buckets: Sequence[Size]) -> Size:
    """The bucket that keeps most of a `width` x `height` image; the larger one in a tie."""

    def lost(bucket: Size) -> tuple[float, int, Size]:
        return -kept_share(width, height, bucket), -bucket[0] * bucket[1], bucket

    return min(buckets, key=lost)


def kept_share(width: int, height: int, bucket: Size) -> float:
    """How much of a `width` x `height` image the bucket's crop keeps: 0 to 1, 1 = all of it."""
    ratio = (width * bucket[1]) / (height * bucket[0])
    return min(ratio, 1 / ratio)


CENTRE = (0.5, 0.5)


def center_crop_box(width: int, height: int, bucket: Size, focus: tuple[float, float] = CENTRE) -> Box:
    """The largest box of the bucket's aspect, as central as can be: (left, top, right, bottom) in source pixels.

    Args:
        focus: what should be in its middle, as shares of the width and height from the upper left corner.

    Whole pixels, at least one each way; the box is then scaled to the bucket's size.
    """
    bucket_width, bucket_height = bucket
    if width * bucket_height >= height * bucket_width:
        crop_width = max(1, round(height * bucket_width / bucket_height))
        crop_height = height
    else:
        crop_width = width
        crop_height = max(1, round(width * bucket_height / bucket_width))
    left = (width - crop_width) // 2
    top = (height - crop_height) // 2
    if focus != CENTRE:
        left = max(0, min(width - crop_width, round(focus[0] * width - crop_width / 2)))
        top = max(0, min(height - crop_height, round(focus[1] * height - crop_height / 2)))
    return left, top, left + crop_width, top + crop_height


def enlargement(box: Box, bucket: Size) -> float:
    """How many times the crop must be enlarged to fill the bucket; at most 1 means not at all."""
    left, top, right, bottom = box
    return max(bucket[0] / (right - left), bucket[1] / (bottom - top))
