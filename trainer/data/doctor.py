"""Looks at images before anything is trained: what is wrong, and what is done about it.

`judge` decides for a folder of the command line and for a draft of the studio alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainer.data.buckets import CENTRE, center_crop_box, choose_bucket, enlargement, kept_share, make_buckets
from trainer.data.captions import Caption, compose, read_captions
from trainer.data.dataset import Dataset, Example
from trainer.data.decoder import Decoder, Source
from trainer.data.duplicates import Fingerprint
from trainer.data.folder import common_folder, list_images, natural_key, without_masks
from trainer.data.images import ImageFacts
from trainer.data.repeats import with_repeats
from trainer.data.tags import kind_of
from trainer.errors import DatasetError, ImageError
from trainer.findings import Finding

MIN_SIDE = 16
"""Pixels; an image with a shorter side shows no style."""
MIN_KEPT = 2 / 3
"""Share of an image that a crop should keep; below it somebody should look at what is left."""
CLEAR_ENLARGEMENT = 1.1
"""Smaller enlargements cannot be seen."""
FEW_IMAGES = 5
MANY_IMAGES = 200

Masks = Literal["files", "alpha", "off"]
Focus = Mapping[str, tuple[float, float]]
"""Shares of width and height from the upper left corner, by file name."""

CountTokens = Callable[[str], int]
"""Tokens of a text without start and end."""


@dataclass(frozen=True)
class Candidate:
    """An image that was opened, before anything is decided about it.

    Attributes:
        path, name, sha256: as in `Example`.
        width, height: of the upright image in pixels.
        look: what it is compared by.
        opened: what was done to it on opening, from `file_findings`.
        mask, mask_sha256: as in `Example`.
    """

    path: Path
    name: str
    sha256: str
    width: int
    height: int
    caption: Caption
    look: Fingerprint
    opened: tuple[Finding, ...] = ()
    mask: Path | None = None
    mask_sha256: str = ""


@dataclass(frozen=True)
class Judged:
    """How an image would be trained on, and what is to be said of it; `usable` is False where it is left out."""

    example: Example
    findings: tuple[Finding, ...]
    usable: bool


def examine(
    source: Path | Sequence[Path],
    *,
    resolution: int,
    multiple: int,
    background: str = "white",
    trigger: str = "",
    bucketing: bool = True,
    count_tokens: CountTokens | None = None,
    token_limit: int = 75,
    masks: Masks = "files",
    focus: Focus | None = None,
    repeats: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read every image of a folder (or the given files), in a child process, and decide how each is trained on.

    Args:
        source: a folder, or image files.
        background: colour behind transparent images.
        resolution, multiple, bucketing, trigger, count_tokens, token_limit, focus: as in `judge`.
        repeats: by name of an image or subfolder, how often it comes; see `trainer.data.repeats.repeats_of`.
        masks: whether ``cat-mask.png`` beside ``cat.png`` is a mask, and whether transparency is one too.
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

    beside: dict[Path, Path] = {}
    if masks != "off":
        files, beside = without_masks(files)
    captions, about_captions = read_captions(root, files)
    opened: list[Candidate | Finding] = []
    names: dict[str, str] = {}
    with Decoder(background=background) as decoder:
        for number, file in enumerate(files, start=1):
            name = file.relative_to(root).as_posix()
            opened.append(_opened(file, name, captions[name], names, decoder, background))
            if file in beside and isinstance(candidate := opened[-1], Candidate):
                opened[-1] = _with_mask(candidate, beside[file], decoder)
            if progress is not None:
                progress(number, len(files))
    judged = iter(
        judge(
            [each for each in opened if isinstance(each, Candidate)],
            resolution=resolution,
            multiple=multiple,
            bucketing=bucketing,
            trigger=trigger,
            count_tokens=count_tokens,
            token_limit=token_limit,
            focus=focus,
        )
    )
    examples: list[Example] = []
    for each in opened:
        if isinstance(each, Finding):
            findings.append(each)
            continue
        verdict = next(judged)
        findings += verdict.findings
        if verdict.usable:
            transparent = any(finding.kind == "transparent" for finding in each.opened)
            alpha = masks == "alpha" and transparent and each.mask is None
            examples.append(replace(verdict.example, mask=each.mask, mask_sha256=each.mask_sha256, alpha=alpha))
    if not examples:
        raise DatasetError(_nothing_usable(root, findings))
    about = about_the_set([example.content for example in examples], trigger)
    return Dataset(tuple(with_repeats(examples, repeats or {})), (*findings, *about_captions, *about))


def judge(
    candidates: Sequence[Candidate],
    *,
    resolution: int,
    multiple: int,
    bucketing: bool,
    trigger: str,
    count_tokens: CountTokens | None,
    token_limit: int,
    focus: Focus | None = None,
) -> list[Judged]:
    """How each image would be trained on; no file is opened.

    Args:
        resolution: side in pixels of the square bucket, see `buckets.make_buckets`.
        multiple: every side of a bucket is a multiple of this many pixels.
        bucketing: False crops every image to a square.
        trigger: added to each caption.
        count_tokens: to find captions that are cut; None where the base is not known yet.
        token_limit: tokens that the text encoder reads.
        focus: by file name, with or without its ending, what of an image should stay in the middle of its crop.
    """
    sizes = make_buckets(resolution, multiple, bucketing=bucketing)
    looks: list[tuple[Fingerprint, str]] = []
    verdicts: list[Judged] = []
    for each in candidates:
        bucket = choose_bucket(each.width, each.height, sizes)
        example = Example(
            path=each.path,
            name=each.name,
            sha256=each.sha256,
            width=each.width,
            height=each.height,
            content=each.caption.text or "",
            caption=compose(each.caption.text, trigger),
            caption_source=each.caption.source,
            bucket=bucket,
            crop=center_crop_box(each.width, each.height, bucket, _focus_of(each, focus or {})),
        )
        if min(each.width, each.height) < MIN_SIDE:
            verdicts.append(Judged(example, (*each.opened, _tiny(each)), usable=False))
            continue
        found = [*each.opened, *_crop_findings(example)]
        twin = next((name for look, name in looks if look.looks_like(each.look)), None)
        if twin is None:
            looks.append((each.look, each.name))
        else:
            found.append(_near_duplicate(each.name, twin))
        found += _caption_findings(example, trigger, count_tokens, token_limit)
        verdicts.append(Judged(example, tuple(found), usable=True))
    return verdicts


def about_the_set(contents: Sequence[str], trigger: str) -> list[Finding]:
    """What concerns no single image: how many there are, and their captions as a whole.

    Args:
        contents: each image's caption without the trigger, empty where there is none.
    """
    count = len(contents)
    if not count:
        return [Finding("", "no_images", "skipped", "there are no images yet", "add 8 to 50 pictures of one style")]
    findings = []
    if count < FEW_IMAGES:
        few = "1 image is not much" if count == 1 else f"{count} images are few"
        advice = "8 or more show the style rather than the pictures"
        findings.append(Finding("", "few_images", "warning", few, advice))
    if count > MANY_IMAGES:
        advice = "a choice of the 50 most typical often learns better"
        findings.append(Finding("", "many_images", "note", f"{count} images are many", advice))
    without = sum(not content for content in contents)
    if without and count > 1:
        have = "has" if without == 1 else "have"
        message = f"{without} of {count} images {have} no caption"
        advice = "a few words on what each shows keep the content apart from the style"
        findings.append(Finding("", "caption_missing", "note" if trigger else "warning", message, advice))
    if kind_of(contents) == "tags":
        advice = "data.shuffle_tags gives them in another order each time, data.tag_dropout leaves some out"
        findings.append(Finding("", "caption_tags", "note", "the captions are lists of tags", advice))
    foreign = sum(any("\u2e80" <= character <= "\uffdc" for character in content) for content in contents)
    if foreign:
        message = f"{foreign} of {count} captions {'is' if foreign == 1 else 'are'} not in English"
        advice = "Stable Diffusion's text models were taught in English and hardly know others; translate them"
        findings.append(Finding("", "caption_language", "warning", message, advice))
    return findings


def file_findings(name: str, facts: ImageFacts, *, background: str) -> list[Finding]:
    """What is done to a file on opening it."""
    findings = []
    if facts.rotated:
        findings.append(Finding(name, "rotated", "note", "the camera was held sideways or mirrored", "turned upright"))
    if facts.animated:
        findings.append(Finding(name, "animated", "note", "has several frames or pages", "the first one is used"))
    if facts.transparent:
        findings.append(Finding(name, "transparent", "note", "has transparent parts", f"laid over {background}"))
    return findings


def _opened(
    file: Path, name: str, caption: Caption, names: dict[str, str], decoder: Decoder, background: str
) -> Candidate | Finding:
    """The image, or why it is left out; `names` holds the images so far by the hash of their bytes."""
    try:
        source = Source.read(file)
        twin = names.setdefault(source.sha256, name)
        if twin != name:
            return Finding(name, "exact_duplicate", "skipped", f"is the same file as {twin}", "left out")
        seen = decoder.look(source)
    except ImageError as error:
        return Finding(name, "unreadable", "skipped", str(error).rstrip("."), "left out")
    found = file_findings(name, seen.facts, background=background)
    facts = seen.facts
    return Candidate(file.absolute(), name, source.sha256, facts.width, facts.height, caption, seen.look, tuple(found))


def _focus_of(each: Candidate, focus: Focus) -> tuple[float, float]:
    names = (each.name, each.path.name, each.path.stem)
    return next((focus[name] for name in names if name in focus), CENTRE)


def _with_mask(each: Candidate, file: Path, decoder: Decoder) -> Candidate:
    """An image with the mask beside it, or with what is wrong with that."""
    try:
        source = Source.read(file)
        facts = decoder.look(source).facts
    except ImageError as error:
        found = Finding(each.name, "mask", "warning", str(error).rstrip("."), "trained without its mask")
        return replace(each, opened=(*each.opened, found))
    if (facts.width, facts.height) != (each.width, each.height):
        found = Finding(
            each.name,
            "mask",
            "warning",
            f"its mask {file.name} is {facts.width} x {facts.height} pixels, not {each.width} x {each.height}",
            "trained without it; give the mask the image's size",
        )
        return replace(each, opened=(*each.opened, found))
    found = Finding(each.name, "mask", "note", f"has a mask, {file.name}", "what is black there is not learned")
    return replace(each, mask=file.absolute(), mask_sha256=source.sha256, opened=(*each.opened, found))


def _crop_findings(example: Example) -> Iterator[Finding]:
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


def _caption_findings(
    example: Example, trigger: str, count_tokens: CountTokens | None, token_limit: int
) -> Iterator[Finding]:
    """What is to be said of an image's caption."""
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


def _near_duplicate(name: str, twin: str) -> Finding:
    """Two images that look the same although their files differ."""
    return Finding(
        name,
        "near_duplicate",
        "warning",
        f"looks almost like {twin}",
        "both are used, so that picture weighs double; remove one if that is not meant",
    )


def _tiny(each: Candidate) -> Finding:
    return Finding(each.name, "too_small", "skipped", f"is only {each.width} x {each.height} pixels", "left out")


def _nothing_usable(root: Path, findings: Sequence[Finding]) -> str:
    """One sentence with the first reason; the others are as likely as not the same."""
    reasons = [f for f in findings if f.severity == "skipped"]
    first = reasons[0]
    reason = first.message if first.kind == "unreadable" else f"{first.image} {first.message}"
    others = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"No image in {root} can be used: {reason}{others}."
