"""What is worth knowing about a draft's images, from what was noted when they were uploaded: no image is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.data.captions import Caption
from trainer.data.doctor import Candidate, CountTokens, judge
from trainer.studio.images import MAX_SIDE, DraftImage
from trainer.studio.views import ImageView


def check(
    images: Sequence[DraftImage],
    path_of: Callable[[DraftImage], Path],
    *,
    resolution: int,
    multiple: int,
    buckets: bool,
    trigger: str,
    count_tokens: CountTokens | None,
    token_limit: int,
) -> list[ImageView]:
    """Every image with its crop and findings, in the given order.

    Args:
        path_of: the image's file.
        resolution, multiple, buckets, trigger, count_tokens, token_limit: as in `trainer.data.doctor.judge`.
    """
    candidates = []
    for image in images:
        width, height = copy_size(image.width, image.height)
        caption = Caption(image.caption or None, "sidecar")
        candidates.append(
            Candidate(path_of(image), image.name, "", width, height, caption, image.look, opened=image.findings)
        )
    verdicts = judge(
        candidates,
        resolution=resolution,
        multiple=multiple,
        bucketing=buckets,
        trigger=trigger,
        count_tokens=count_tokens,
        token_limit=token_limit,
    )
    return [
        ImageView(
            id=image.id,
            name=image.name,
            path=verdict.example.path,
            width=verdict.example.width,
            height=verdict.example.height,
            caption=image.caption,
            crop=verdict.example.crop,
            bucket=verdict.example.bucket,
            findings=tuple(replace(finding, image=image.id) for finding in verdict.findings),
            removed=image.removed,
        )
        for image, verdict in zip(images, verdicts, strict=True)
    ]


def copy_size(width: int, height: int) -> tuple[int, int]:
    """Sides of our copy of an upload of that size: no larger than `MAX_SIDE`, as Pillow's thumbnail rounds."""
    if max(width, height) <= MAX_SIDE:
        return width, height
    if width >= height:
        return MAX_SIDE, max(1, round(height * MAX_SIDE / width))
    return max(1, round(width * MAX_SIDE / height)), MAX_SIDE
