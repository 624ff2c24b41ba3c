"""Looks at a folder of images before anything is trained: what is wrong, and what is done about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trainer.data.buckets import (
    Size,
    center_crop_box,
    choose_bucket,
    enlargement,
    kept_share,
    make_buckets,
)
from trainer.data.captions import Caption, compose, read_captions
from trainer.data.dataset import Dataset, Example
from trainer.data.duplicates import Fingerprint, fingerprint
from trainer.data.folder import common_folder, list_images, natural_key
from trainer.data.images import ImageFacts, decode
from trainer.errors import DatasetError, ImageError
from trainer.findings import Finding, Kind, Severity

__all__ = [
    "Dataset",
    "Example",
    "Finding",
    "Kind",
    "Severity",
    "caption_findings",
    "crop_findings",
    "examine",
    "file_findings",
    "near_duplicate",
]

MIN_SIDE = 16
"""Pixels; an image with a shorter side shows no style."""
MIN_KEPT = 2 / 3
"""Share of an image that a crop should keep; below it somebody should look at what is left."""
CLEAR_ENLARGEMENT = 1.1
"""Smaller enlargements cannot be seen."""


def examine(
    source: Path | Sequence[Path],
    *,
    resolution: int,
    multiple: int,
    background: str = "white",
    trigger: str = "",
    bucketing: bool = True,
    count_tokens: Callable[[str], int] | None = None,
    token_limit: int = 75,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read every image of a folder (or the given files) and decide how each is trained on.

    Args:
        source: a folder, or image files.
        resolution: side in pixels of the square bucket, see `buckets.make_buckets`.
        multiple: every side of a bucket is a multiple of this many pixels.
        background: colour behind transparent images.
        trigger: added to each caption.
        bucketing: False crops every image to a square.
        count_tokens: tokens of a caption without start and end, to find captions that are cut.
        token_limit: tokens that the text encoder reads.
        progress: told (images done, images in all) after each image.

    Returns:
        At least one example; the findings are in the order of the images.

    Raises:
        DatasetError: no usable image, or a caption file that cannot be read.
        ConfigError: `background` is no colour.
    """
    if isinstance(source, Path):
        root = source
        files, findings = list_images(source)
        if not files:
            raise DatasetError(f"There are no images in {source}: put PNG, JPEG or WebP files in it.")
    else:
        root = common_folder(source)
        files, findings = [file.absolute() for file in source], []
        files.sort(key=lambda f: natural_key(f.relative_to(root).as_posix()))

    captions = read_captions(root, files)
    buckets = make_buckets(resolution, multiple, bucketing=bucketing)
    seen = _Seen()
    examples: list[Example] = []
    for number, file in enumerate(files, start=1):
        name = file.relative_to(root).as_posix()
        try:
            digest = file_sha256(file)
            if (twin := seen.same_file(name, digest)) is not None:
                findings.append(_exact_duplicate(name, twin))
                continue
            decoded = decode(file, background=background)
            facts = decoded.facts
            if min(facts.width, facts.height) < MIN_SIDE:
                findings.append(_tiny(name, facts))
                continue
            example = _example(file, name, digest, facts, captions[name], trigger, buckets)
            findings += file_findings(name, facts, background=background)
            findings += crop_findings(example)
            if (twin := seen.same_look(name, fingerprint(decoded.image))) is not None:
                findings.append(near_duplicate(name, twin))
            findings += caption_findings(example, trigger, count_tokens, token_limit)
            examples.append(example)
        except ImageError as error:
            message = str(error).rstrip(".")
            findings.append(Finding(name, "unreadable", "skipped", message, "left out"))
        finally:
            if progress is not None:
                progress(number, len(files))
    if not examples:
        raise DatasetError(_nothing_usable(root, findings))
    return Dataset(tuple(examples), tuple(findings))


def file_findings(name: str, facts: ImageFacts, *, background: str) -> list[Finding]:
    """What is done to a file on opening it, from `images.decode` or an upload's `reencode`."""
    findings = []
    if facts.rotated:
        findings.append(Finding(name, "rotated", "note", "the camera was held sideways or mirrored", "turned upright"))
    if facts.animated:
        findings.append(Finding(name, "animated", "note", "has several frames or pages", "the first one is used"))
    if facts.transparent:
        findings.append(Finding(name, "transparent", "note", "has transparent parts", f"laid over {background}"))
    return findings


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror or error}).") from error


class _Seen:
    """The images so far, to recognise the next one by."""

    def __init__(self) -> None:
        self._by_digest: dict[str, str] = {}
        self._by_look: list[tuple[Fingerprint, str]] = []

    def same_file(self, name: str, digest: str) -> str | None:
        """The earlier image with the same bytes; else None, and this one is remembered."""
        first = self._by_digest.setdefault(digest, name)
        return None if first == name else first

    def same_look(self, name: str, look: Fingerprint) -> str | None:
        """The first image that looks like this one; else None, and this one is remembered."""
        for other, twin in self._by_look:
            if other.looks_like(look):
                return twin
        self._by_look.append((look, name))
        return None


def _example(
    file: Path,
    name: str,
    digest: str,
    facts: ImageFacts,
    caption: Caption,
    trigger: str,
    buckets: Sequence[Size],
) -> Example:
    bucket = choose_bucket(facts.width, facts.height, buckets)
    return Example(
        path=file.absolute(),
        name=name,
        sha256=digest,
        width=facts.width,
        height=facts.height,
        content=caption.text or "",
        caption=compose(caption.text, trigger),
        caption_source=caption.source,
        bucket=bucket,
        crop=center_crop_box(facts.width, facts.height, bucket),
    )


def crop_findings(example: Example) -> Iterator[Finding]:
    """What becomes of an image's size and shape in its bucket."""
    bucket = f"{example.bucket[0]} x {example.bucket[1]}"
    times = enlargement(example.crop, example.bucket)
    if times > 1:
        yield Finding(
            example.name,
            "too_small",
            "warning" if times > CLEAR_ENLARGEMENT else "note",
            f"is {example.width} x {example.height} pixels, smaller than {bucket}",
            f"enlarged {times:.1f} times; a larger original would be sharper",
        )
    kept = kept_share(example.width, example.height, example.bucket)
    if kept < MIN_KEPT:
        yield Finding(
            example.name,
            "aspect",
            "warning",
            f"is {example.width} x {example.height} pixels, far from the shape {bucket}",
            f"only the middle {kept:.0%} is used; crop it yourself to choose the part",
        )


def caption_findings(
    example: Example,
    trigger: str,
    count_tokens: Callable[[str], int] | None,
    token_limit: int,
) -> Iterator[Finding]:
    """What is to be said of an image's caption; arguments as in `examine`."""
    if not example.content:
        yield Finding(
            example.name,
            "caption_missing",
            "note" if trigger else "warning",
            "has no caption",
            "trained with the trigger alone" if trigger else "trained with an empty caption",
        )
    elif count_tokens is not None and (tokens := count_tokens(example.caption)) > token_limit:
        yield Finding(
            example.name,
            "caption_long",
            "warning",
            f"its caption has {tokens} tokens and the text encoder reads {token_limit}",
            "the end of the caption is not read; shorten it",
        )


def _exact_duplicate(name: str, twin: str) -> Finding:
    return Finding(name, "exact_duplicate", "skipped", f"is the same file as {twin}", "left out")


def near_duplicate(name: str, twin: str) -> Finding:
    """Two images that look the same although their files differ."""
    return Finding(
        name,
        "near_duplicate",
        "warning",
        f"looks almost like {twin}",
        "both are used, so that picture weighs double; remove one if that is not meant",
    )


def _tiny(name: str, facts: ImageFacts) -> Finding:
    return Finding(
        name,
        "too_small",
        "skipped",
        f"is only {facts.width} x {facts.height} pixels",
        "left out",
    )


def _nothing_usable(root: Path, findings: Sequence[Finding]) -> str:
    """One sentence with the first reason; the others are as likely as not the same."""
    reasons = [f for f in findings if f.severity == "skipped"]
    first = reasons[0]
    reason = first.message if first.kind == "unreadable" else f"{first.image} {first.message}"
    others = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"No image in {root} can be used: {reason}{others}."
