"""What is worth knowing about a draft's images, from what was noted when they were uploaded: no image is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.data.buckets import center_crop_box, choose_bucket, make_buckets
from trainer.data.captions import compose
from trainer.data.dataset import Example
from trainer.data.doctor import MIN_SIDE, caption_findings, crop_findings, near_duplicate
from trainer.findings import Finding
from trainer.studio.images import MAX_SIDE, DraftImage
from trainer.studio.views import FindingView, ImageView

FEW_IMAGES = 5
MANY_IMAGES = 200


def check(
    images: Sequence[DraftImage],
    path_of: Callable[[DraftImage], Path],
    *,
    resolution: int,
    multiple: int,
    buckets: bool,
    trigger: str,
    count_tokens: Callable[[str], int] | None,
    token_limit: int,
) -> list[ImageView]:
    """Every image with its crop and findings, in the given order.

    Args:
        path_of: the image's file.
        resolution, multiple, buckets: as in `trainer.data.buckets.make_buckets`.
        count_tokens, token_limit: as in `trainer.data.doctor.examine`.
    """
    sizes = make_buckets(resolution, multiple, bucketing=buckets)
    views: list[ImageView] = []
    for place, image in enumerate(images):
        width, height = copy_size(image.width, image.height)
        bucket = choose_bucket(width, height, sizes)
        example = Example(
            path=path_of(image),
            name=image.name,
            sha256="",
            width=width,
            height=height,
            content=image.caption,
            caption=compose(image.caption, trigger),
            caption_source="sidecar",
            bucket=bucket,
            crop=center_crop_box(width, height, bucket),
        )
        found = list(image.findings)
        found += [_tiny(image)] if min(width, height) < MIN_SIDE else crop_findings(example)
        twin = next((other for other in images[:place] if other.look.looks_like(image.look)), None)
        if twin is not None:
            found.append(near_duplicate(image.name, twin.name))
        found += caption_findings(example, trigger, count_tokens, token_limit)
        views.append(
            ImageView(
                id=image.id,
                name=image.name,
                path=example.path,
                width=width,
                height=height,
                caption=image.caption,
                crop=example.crop,
                bucket=bucket,
                findings=tuple(_view(image.id, finding) for finding in found),
                removed=image.removed,
            )
        )
    return views


def about_the_set(images: Sequence[DraftImage]) -> list[FindingView]:
    """What concerns no single image."""
    if not images:
        return [FindingView("", "no_images", "skipped", "there are no images yet", "add 8 to 50 pictures of one style")]
    if len(images) < FEW_IMAGES:
        text = f"{len(images)} images are few"
        return [FindingView("", "few_images", "warning", text, "8 or more show the style rather than the pictures")]
    if len(images) > MANY_IMAGES:
        text = f"{len(images)} images are many"
        return [FindingView("", "many_images", "note", text, "a choice of the 50 most typical often learns better")]
    return []


def copy_size(width: int, height: int) -> tuple[int, int]:
    """Sides of our copy of an upload of that size: no larger than `MAX_SIDE`, as Pillow's thumbnail rounds."""
    if max(width, height) <= MAX_SIDE:
        return width, height
    if width >= height:
        return MAX_SIDE, max(1, round(height * MAX_SIDE / width))
    return max(1, round(width * MAX_SIDE / height)), MAX_SIDE


def _tiny(image: DraftImage) -> Finding:
    return Finding(image.name, "too_small", "skipped", f"is only {image.width} x {image.height} pixels", "left out")


def _view(image_id: str, finding: Finding) -> FindingView:
    return FindingView(image_id, finding.kind, finding.severity, finding.message, finding.action)
