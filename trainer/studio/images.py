"""The images of a draft: our own re-encoded copies, each with its caption, keyed by an id that never changes.

On the disk lie ``images/<id>.png`` and ``images/<id>.txt`` for the engine to read; the list in the studio's file adds
the uploaded name, the order, and what was found in the upload and is gone from the copy (a turned photo, say).
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from trainer.atomic import replace_file, write_file
from trainer.data.captions import Caption, UploadedCaptions, is_caption, unmatched
from trainer.data.decoder import Decoder, Seen, Source
from trainer.data.doctor import Candidate, CountTokens, Focus, Masks, file_findings, judge
from trainer.data.duplicates import Fingerprint, fingerprint
from trainer.data.folder import masked_by, natural_key
from trainer.data.suffixes import IMAGE_SUFFIXES
from trainer.errors import ImageError, StudioError
from trainer.findings import Finding
from trainer.studio.database import Database
from trainer.studio.folder import StudioFolder
from trainer.studio.masks import DraftMasks, transparency
from trainer.studio.views import ImageView

MAX_SIDE = 2048
"""Longest side of a copy in pixels: twice what the largest family is trained at."""
MAX_IMAGES = 2000
LEAST_SIDE = 32
"""Pixels of a part that a person chooses."""
T = TypeVar("T")


@dataclass(frozen=True)
class DraftImage:
    """An image of a draft as it is listed; sides in pixels of the upright upload, before it was made smaller.

    ``written`` is the caption that a model wrote last; one that is another is a person's.
    """

    id: str
    name: str
    caption: str
    removed: bool
    width: int
    height: int
    findings: tuple[Finding, ...]
    look: Fingerprint
    written: str = ""


class DraftImages:
    """Images and captions of runs."""

    def __init__(self, database: Database, home: StudioFolder) -> None:
        self._db = database
        self._home = home
        self._masks = DraftMasks(home)

    def images(self, run_id: str, *, removed: bool = False) -> list[DraftImage]:
        """The images in their order; with ``removed`` those that were taken out."""
        rows = self._db.all(
            "SELECT * FROM images WHERE run = ? AND removed = ? ORDER BY ordinal", (run_id, int(removed))
        )
        return [_image(row) for row in rows]

    def first(self, run_id: str) -> Path | None:
        """A picture to show for the run."""
        row = self._db.one("SELECT id FROM images WHERE run = ? AND removed = 0 ORDER BY ordinal LIMIT 1", (run_id,))
        return None if row is None else self.path(run_id, row["id"])

    def path(self, run_id: str, image_id: str, *, removed: bool = False) -> Path:
        """The image's file."""
        folder = self._home.removed_images(run_id) if removed else self._home.images(run_id)
        return folder / f"{image_id}.png"

    def view(
        self,
        run_id: str,
        *,
        removed: bool = False,
        resolution: int,
        multiple: int,
        buckets: bool,
        trigger: str,
        count_tokens: CountTokens | None,
        token_limit: int,
        focus: Focus | None = None,
        repeats: Mapping[str, int] | None = None,
        masks: Masks = "files",
    ) -> list[ImageView]:
        """Every image with its crop and findings, from what was noted at the upload: no image is opened.

        Args:
            removed: those that were taken out instead.
            resolution, multiple, buckets, trigger, count_tokens, token_limit, focus: as in
                `trainer.data.doctor.judge`.
            repeats: how often an image comes; once where it is not there. As of ``focus``, by id or name.
            masks: as in `trainer.data.doctor.examine`.
        """
        images = self.images(run_id, removed=removed)
        candidates = []
        for image in images:
            path, (width, height) = self.path(run_id, image.id, removed=removed), copy_size(image.width, image.height)
            caption = Caption(image.caption or None, "sidecar")
            candidates.append(Candidate(path, image.name, "", width, height, caption, image.look, image.findings))
        verdicts = judge(
            candidates,
            resolution=resolution,
            multiple=multiple,
            bucketing=buckets,
            trigger=trigger,
            count_tokens=count_tokens,
            token_limit=token_limit,
            focus=told_by_id(images, focus or {}),
        )
        often = told_by_id(images, repeats or {})
        masked = {image.id: self._masks.finding(run_id, image.id, image.name, masks) for image in images}
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
                findings=tuple(
                    replace(finding, image=image.id)
                    for finding in (*verdict.findings, masked[image.id])
                    if finding is not None
                ),
                removed=image.removed,
                part=self.is_part(run_id, image.id),
                repeats=often.get(image.id, 1),
            )
            for image, verdict in zip(images, verdicts, strict=True)
        ]

    def add(
        self, run_id: str, files: Sequence[Path], *, background: str = "white"
    ) -> tuple[list[str], list[tuple[str, str]]]:
        """Take files in: decoded in a child process with limits, re-encoded, upright.

        Captions come from text files and ``metadata.jsonl`` among the files, else from meaningful names.
        ``cat-mask.png`` is the mask of an image ``cat`` that comes along or is there.
        The same file twice is taken once. Returns the new ids, and (name, sentence) for what was refused.

        Raises:
            StudioError: too many images, or the disk is full.
        """
        images = sorted((file for file in files if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_name)
        refused = [
            (file.name, f"{file.name} is no image and no caption; it was left out.")
            for file in files
            if file not in images and not is_caption(file)
        ]
        present = {image.id: image for image in [*self.images(run_id), *self.images(run_id, removed=True)]}
        stems = {file.stem for file in images} | {Path(image.name).stem for image in present.values()}
        masks = [file for file in images if masked_by(file) in stems]
        images = [file for file in images if file not in masks]
        self._require_room(len(present) + len(images))
        self._home.require_space(sum(file.stat().st_size for file in images) * 4, "Adding these images")
        texts = UploadedCaptions(files)
        refused += texts.complaints
        folder = self._home.images(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        names = {image.id: image.name for image in present.values()}
        added: list[str] = []
        with (
            Decoder(background=background) as decoder,
            Decoder(background="white") as over_white,
            Decoder(background="black") as over_black,
        ):
            for file in images:
                try:
                    source = Source.read(file)
                    image_id = image_id_of(source)
                    if image_id in present and present[image_id].removed and image_id not in added:
                        self.restore(run_id, image_id)
                        added.append(image_id)
                        continue
                    if image_id in names:
                        twin = names[image_id]
                        refused.append((file.name, f"{file.name} is the same file as {twin}; it was left out."))
                        continue
                    names[image_id] = file.name
                    picture, seen = decoder.copy(source, max_side=MAX_SIDE)
                    replace_file(folder / f"{image_id}.png", partial(picture.save, format="PNG"))
                    if seen.facts.transparent:
                        opaque = transparency(source, over_white, over_black, max_side=MAX_SIDE)
                        self._masks.keep(run_id, image_id, "alpha", opaque)
                except (ImageError, OSError) as error:
                    is_ours = isinstance(error, ImageError)
                    sentence = str(error) if is_ours else f"{file.name} could not be kept ({error})."
                    refused.append((file.name, sentence))
                    continue
                caption, notes = texts.of(file)
                found = [*file_findings(file.name, seen.facts, background=background), *notes]
                self._insert(run_id, image_id, file.name, caption, source.sha256, seen, found)
                added.append(image_id)
            refused += self._take_masks(run_id, masks, decoder)
        refused += self._caption_present(run_id, texts.left_over(images))
        return added, refused

    def remove(self, run_id: str, image_id: str) -> None:
        """Take an image out, with its caption; nothing else changes."""
        self._move(run_id, image_id, removed=True)

    def restore(self, run_id: str, image_id: str) -> None:
        """Bring an image back to its place."""
        self._move(run_id, image_id, removed=False)

    def crop(self, run_id: str, image_id: str, box: tuple[float, float, float, float] | None) -> None:
        """Use a part of an image, chosen by hand; the whole is kept, so that None brings it back.

        Args:
            box: (left, top, right, bottom) as shares of the image as it is now, 0 to 1.

        Raises:
            StudioError: there is no such image, or the part is too small to be of use.
        """
        image = next((one for one in self.images(run_id) if one.id == image_id), None)
        if image is None:
            raise StudioError("This image is not there any more. Reload the page.")
        path, whole = self.path(run_id, image_id), self._home.whole_images(run_id) / f"{image_id}.png"
        for file, kept_whole in ((path, whole), *self._masks.layers(run_id, image_id)):
            if box is not None:
                _crop_file(file, kept_whole, box)
            elif kept_whole.is_file():
                kept_whole.replace(file)
        with Image.open(path, formats=("PNG",)) as opened:
            look, (width, height) = fingerprint(opened.convert("RGB")), opened.size
        row = self._db.one("SELECT findings FROM images WHERE run = ? AND id = ?", (run_id, image_id))
        kept = json.loads(row["findings"]) | {"bits": look.bits, "colours": base64.b64encode(look.colours).decode()}
        self._db.write(
            "UPDATE images SET width = ?, height = ?, findings = ? WHERE run = ? AND id = ?",
            (width, height, json.dumps(kept), run_id, image_id),
        )

    def is_part(self, run_id: str, image_id: str) -> bool:
        """Whether a person chose a part of the image."""
        return (self._home.whole_images(run_id) / f"{image_id}.png").is_file()

    def set_captions(self, run_id: str, captions: Mapping[str, str]) -> int:
        """Set captions by image id; returns how many changed.

        Raises:
            StudioError: an id that is not among the images.
        """
        present = {image.id: image for image in [*self.images(run_id), *self.images(run_id, removed=True)]}
        for image_id in captions:
            if image_id not in present:
                raise StudioError("An image that is not there any more was given a caption. Reload the page.")
        changed = 0
        for image_id, text in captions.items():
            tidy = " ".join(_whole_characters(text).split())
            if tidy != present[image_id].caption:
                self._write_caption(run_id, image_id, tidy, removed=present[image_id].removed)
                self._db.write("UPDATE images SET caption = ? WHERE run = ? AND id = ?", (tidy, run_id, image_id))
                changed += 1
        return changed

    def write_caption_for(self, run_id: str, image_id: str, caption: str, *, before: str) -> bool:
        """Set a caption that a model wrote, unless somebody changed it meanwhile or took the image out.

        Args:
            before: the caption as it was when the model was asked.

        Returns:
            Whether it was set.
        """
        with self._db.transaction():
            row = self._db.one(
                "SELECT caption, findings FROM images WHERE run = ? AND id = ? AND removed = 0", (run_id, image_id)
            )
            if row is None or row["caption"] != before:
                return False
            tidy = " ".join(_whole_characters(caption).split())
            kept = json.loads(row["findings"]) | {"written": tidy}
            self._write_caption(run_id, image_id, tidy)
            self._db.write(
                "UPDATE images SET caption = ?, findings = ? WHERE run = ? AND id = ?",
                (tidy, json.dumps(kept), run_id, image_id),
            )
        return True

    def by_run(self) -> dict[str, tuple[str, ...]]:
        """Run -> ids of its images, sorted."""
        rows = self._db.all("SELECT run, id FROM images WHERE removed = 0 ORDER BY run, id")
        return {run: tuple(row["id"] for row in group) for run, group in groupby(rows, key=lambda row: row["run"])}

    def copy(self, source: str, target: str) -> None:
        """Give a draft the images and captions of another run behind its own; those that both have stay as they are.

        Raises:
            StudioError: they would be too many.
        """
        own = [*self.images(target), *self.images(target, removed=True)]
        for image in own:
            if image.removed and any(other.id == image.id for other in self.images(source)):
                self.restore(target, image.id)
        present = {image.id for image in own}
        new = [image for image in self.images(source) if image.id not in present]
        self._require_room(len(present) + len(new))
        folder = self._home.images(target)
        folder.mkdir(parents=True, exist_ok=True)
        for image in new:
            shutil.copyfile(self.path(source, image.id), folder / f"{image.id}.png")
            self._write_caption(target, image.id, image.caption)
            if self.is_part(source, image.id):
                self._home.whole_images(target).mkdir(exist_ok=True)
                name = f"{image.id}.png"
                shutil.copyfile(self._home.whole_images(source) / name, self._home.whole_images(target) / name)
            self._masks.copy(source, target, image.id)
        self._db.write(
            "INSERT INTO images SELECT ?, id, name, ordinal + 1 + (SELECT coalesce(max(ordinal), -1) FROM images"
            " WHERE run = ?), caption, 0, width, height, source_sha256, findings FROM images"
            " WHERE run = ? AND removed = 0 AND id NOT IN (SELECT id FROM images WHERE run = ?)",
            (target, target, source, target),
        )

    def lay_masks(self, run_id: str, masks: Masks) -> None:
        """Put the masks that count where a run looks for them."""
        self._masks.lay_out(run_id, [image.id for image in self.images(run_id)], masks)

    def _take_masks(self, run_id: str, files: Sequence[Path], decoder: Decoder) -> list[tuple[str, str]]:
        """Keep the masks of images that are there; a sentence for each that cannot be used."""
        by_stem = {Path(image.name).stem: image for image in self.images(run_id)}
        refused = []
        for file in files:
            try:
                self._take_mask(run_id, file, by_stem.get(masked_by(file)), decoder)
            except ImageError as error:
                refused.append((file.name, str(error)))
            except OSError as error:
                refused.append((file.name, f"{file.name} could not be kept ({error})."))
        return refused

    def _take_mask(self, run_id: str, file: Path, image: DraftImage | None, decoder: Decoder) -> None:
        if image is None:
            raise ImageError(f"{file.name} is the mask of an image that was not taken, so it was left out.")
        if self.is_part(run_id, image.id):
            raise ImageError(
                f"{file.name} came after a part of {image.name} was chosen: use the whole image, then add it again."
            )
        mask, seen = decoder.copy(Source.read(file), max_side=MAX_SIDE)
        width, height = seen.facts.width, seen.facts.height
        if (width, height) != (image.width, image.height):
            raise ImageError(
                f"{file.name} is {width} x {height} pixels, but its image is {image.width} x {image.height}: give the "
                "mask the image's size."
            )
        self._masks.keep(run_id, image.id, "mask", mask)

    def _require_room(self, count: int) -> None:
        if count > MAX_IMAGES:
            raise StudioError(f"A run holds at most {MAX_IMAGES} images, and a style needs 8 to 50. Choose fewer.")

    def _caption_present(self, run_id: str, captions: Mapping[str, str]) -> list[tuple[str, str]]:
        """Give captions, by file name, to images that came earlier; a sentence for each that belongs to none."""
        by_stem = {Path(image.name).stem: image.id for image in self.images(run_id)}
        refused = []
        for name, caption in captions.items():
            image_id = by_stem.get(Path(name).stem)
            if image_id is None:
                finding = unmatched(name)
                refused.append((name, f"{name} {finding.message}; it was {finding.action}."))
            else:
                self.set_captions(run_id, {image_id: caption})
        return refused

    def _insert(
        self,
        run_id: str,
        image_id: str,
        name: str,
        caption: str,
        digest: str,
        seen: Seen,
        found: Sequence[Finding],
    ) -> None:
        self._write_caption(run_id, image_id, caption)
        # Images that were uploaded together arrive in the natural order of their names.
        self._db.write(
            "INSERT INTO images (run, id, name, ordinal, caption, width, height, source_sha256, findings)"
            " SELECT ?, ?, ?, coalesce(max(ordinal), -1) + 1, ?, ?, ?, ?, ? FROM images WHERE run = ?",
            (
                run_id,
                image_id,
                name,
                caption,
                seen.facts.width,
                seen.facts.height,
                digest,
                json.dumps(
                    {
                        "findings": [asdict(finding) for finding in found],
                        "bits": seen.look.bits,
                        "colours": base64.b64encode(seen.look.colours).decode(),
                    }
                ),
                run_id,
            ),
        )

    def _move(self, run_id: str, image_id: str, *, removed: bool) -> None:
        changed = self._db.write(
            "UPDATE images SET removed = ? WHERE run = ? AND id = ? AND removed = ?",
            (int(removed), run_id, image_id, int(not removed)),
        )
        if not changed:
            return
        for suffix in (".png", ".txt"):
            source = self.path(run_id, image_id, removed=not removed).with_suffix(suffix)
            target = self.path(run_id, image_id, removed=removed).with_suffix(suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                source.replace(target)

    def _write_caption(self, run_id: str, image_id: str, caption: str, *, removed: bool = False) -> None:
        # An empty file says that there is no caption; without one the engine would make words of the id.
        write_file(self.path(run_id, image_id, removed=removed).with_suffix(".txt"), caption.encode())


def image_id_of(source: Source) -> str:
    """The id of an uploaded file's image."""
    return source.sha256[:16]


def told_by_id(images: Sequence[DraftImage], told: Mapping[str, T]) -> dict[str, T]:
    """Image id -> what is told of it by its id or by the name that it came with, where anything is."""
    keys = {image.id: (image.id, f"{image.id}.png", image.name, Path(image.name).stem) for image in images}
    found = {image_id: next((key for key in names if key in told), None) for image_id, names in keys.items()}
    return {image_id: told[key] for image_id, key in found.items() if key is not None}


def _image(row: sqlite3.Row) -> DraftImage:
    kept: dict[str, Any] = json.loads(row["findings"])
    return DraftImage(
        id=row["id"],
        name=row["name"],
        caption=row["caption"],
        removed=bool(row["removed"]),
        width=row["width"],
        height=row["height"],
        findings=tuple(Finding(**finding) for finding in kept["findings"]),
        look=Fingerprint(kept["bits"], base64.b64decode(kept["colours"])),
        written=kept.get("written", ""),
    )


def _whole_characters(text: str) -> str:
    """The text with halves of characters put together, or marked where the other half is missing.

    A page or a program can send them, and no file can hold them.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _crop_file(file: Path, whole: Path, box: tuple[float, float, float, float]) -> None:
    """Leave a part of a picture; what it was before anything was cut off lies at ``whole``."""
    with Image.open(file, formats=("PNG",)) as opened:
        part = opened.crop(_pixels(box, opened.size))
    if not whole.is_file():
        whole.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, whole)
    replace_file(file, partial(part.save, format="PNG"))


def _pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A part of an image in pixels.

    Raises:
        StudioError: it is not inside, or smaller than anything could be learned from.
    """
    left, top, right, bottom = (
        round(max(0.0, min(1.0, share)) * side) for share, side in zip(box, (*size, *size), strict=True)
    )
    if right - left < LEAST_SIDE or bottom - top < LEAST_SIDE:
        raise StudioError(f"This part is smaller than {LEAST_SIDE} x {LEAST_SIDE} pixels: choose a larger one.")
    return left, top, right, bottom


def _by_name(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    return natural_key(file.name)


def copy_size(width: int, height: int) -> tuple[int, int]:
    """Sides of our copy of an upload of that size: no larger than `MAX_SIDE`, as Pillow's thumbnail rounds."""
    if max(width, height) <= MAX_SIDE:
        return width, height
    if width >= height:
        return MAX_SIDE, max(1, round(height * MAX_SIDE / width))
    return max(1, round(width * MAX_SIDE / height)), MAX_SIDE
