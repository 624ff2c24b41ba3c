"""The library: styles that were trained here (finished runs) and files that came from elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trainer import config as configs
from trainer.atomic import replace_file
from trainer.bases.families import title_of
from trainer.config import FileLayout, RunConfig
from trainer.errors import AdapterFileError, ImageError, PatinaError, StudioError
from trainer.safetensors_file import Header, copy_with_metadata, read_header
from trainer.studio.database import Database
from trainer.studio.folder import StudioFolder, new_id
from trainer.studio.runs import Runs
from trainer.studio.store import RunRow, State, Store
from trainer.studio.views import StyleCard, StyleView
from trainer.studio.worker.protocol import Convert, FileRequest, Inspect
from trainer.styles.alpha import KEY, Alpha
from trainer.styles.headers import Headers
from trainer.styles.metadata import copy_titled, family_of, rank_of, strength_of
from trainer.training.run_folder import RunFolder

THUMBNAILS = 4
MOST_TAGS = 20
LONGEST_TAG = 40
_LINKED = "linked-"
THUMBNAIL = "thumbnail.png"
"""Beside a style's file: the picture that the file brought along."""
Ask = Callable[[FileRequest], Mapping[str, Any]]

logger = logging.getLogger(__name__)

# Files of ComfyUI, OneTrainer and LyCORIS's wrapper; they are written anew for a download in kohya's names.
_OTHER_NAMES = (
    "lycoris_",
    "diffusion_model.",
    "text_encoders.",
    "clip_",
    "lora_unet.",
    "lora_te.",
    "lora_te1.",
    "lora_te2.",
)


class Library:
    """Styles as cards; what a card says comes from the file's own header.

    Args:
        runs: where the styles that were trained here come from.
        ask: has the worker look into a file or write it anew, and waits for the answer.
        linked: style files in folders that people named; they are shown and used where they lie.
    """

    def __init__(
        self,
        database: Database,
        home: StudioFolder,
        store: Store,
        runs: Runs,
        ask: Ask,
        linked: Callable[[], Sequence[Path]] = tuple,
    ) -> None:
        self._db, self._home, self._store, self._runs, self._ask = database, home, store, runs, ask
        self._linked_files = linked
        self._headers = Headers()

    def cards(self, search: str = "", family: str = "", tag: str = "") -> list[StyleCard]:
        """Styles whose files are there, newest first.

        Args:
            search: words that name, trigger or tags must hold.
            family: a key of the bases' families.
            tag: one of its tags.
        """
        words = search.casefold().split()
        return [
            card
            for card in self._all()
            if (not family or card.family == family)
            and (not tag or tag in card.tags)
            and all(word in " ".join([card.name, card.trigger, *card.tags]).casefold() for word in words)
        ]

    def _all(self) -> list[StyleCard]:
        cards = [self._trained(run) for run in self._store.in_state(State.FINISHED)]
        rows = self._db.all("SELECT * FROM styles WHERE trashed IS NULL")
        cards += [self._imported(row) for row in rows]
        cards += [self._linked(file) for file in self._linked_files()]
        tags: dict[str, list[str]] = {}
        for row in self._db.all("SELECT style, tag FROM tags ORDER BY tag"):
            tags.setdefault(row["style"], []).append(row["tag"])
        found = [replace(card, tags=tuple(tags.get(card.id, ()))) for card in cards if card is not None]
        return sorted(found, key=lambda card: card.created, reverse=True)

    def card(self, style_id: str) -> StyleCard:
        """One style.

        Raises:
            StudioError: there is none, or its file is gone.
        """
        if style_id.startswith(_LINKED):
            there = (file for file in self._linked_files() if linked_id(file) == style_id)
            card = self._linked(file) if (file := next(there, None)) is not None else None
        else:
            row = self._db.one("SELECT * FROM styles WHERE id = ? AND trashed IS NULL", (style_id,))
            card = self._imported(row) if row is not None else self._trained(self._store.get(style_id))
        if card is None:
            raise StudioError("This style has no file. Its run is not finished, or the file was removed.")
        return replace(card, tags=self.tags(style_id))

    def tags(self, style_id: str) -> tuple[str, ...]:
        """What people call a style to find it again."""
        rows = self._db.all("SELECT tag FROM tags WHERE style = ? ORDER BY tag", (style_id,))
        return tuple(row["tag"] for row in rows)

    def set_tags(self, style_id: str, tags: Sequence[str]) -> None:
        """Replace a style's tags.

        Raises:
            StudioError: there is no such style, or a tag is too long.
        """
        self.card(style_id)
        wanted = list(dict.fromkeys(" ".join(tag.split()) for tag in tags if tag.strip()))
        if len(wanted) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in wanted):
            raise StudioError(f"A style has at most {MOST_TAGS} tags of at most {LONGEST_TAG} letters.")
        with self._db.transaction():
            self._db.write("DELETE FROM tags WHERE style = ?", (style_id,))
            for tag in wanted:
                self._db.write("INSERT INTO tags (style, tag) VALUES (?, ?)", (style_id, tag))

    def twins(self, card: StyleCard) -> list[str]:
        """Names of other styles with the very same weights; reads those files whose headers say the same."""
        mine = self._headers.of(card.file)
        if mine is None:
            return []
        return [
            other.name
            for other in self._all()
            if other.id != card.id
            and (its := self._headers.of(other.file)) is not None
            and its.shapes == mine.shapes
            and self._headers.weights(other.file) == self._headers.weights(card.file)
        ]

    def view(self, style_id: str) -> StyleView:
        """A style opened."""
        card = self.card(style_id)
        run = self._runs.view(style_id) if card.origin == "trained" else None
        return StyleView(card, self.metadata(card), self.facts(card), run, tuple(self.twins(card)))

    def is_imported(self, style_id: str) -> bool:
        """Whether the id names a file from elsewhere, deleted ones too."""
        if style_id.startswith(_LINKED):
            return True
        return self._db.one("SELECT 1 FROM styles WHERE id = ?", (style_id,)) is not None

    def metadata(self, card: StyleCard) -> dict[str, str]:
        """What the file says about itself."""
        header = self._headers.of(card.file)
        return {} if header is None else dict(header.metadata)

    def facts(self, card: StyleCard) -> dict[str, Any]:
        """What was found in the file: at its import, or for one of our own what its header tells."""
        row = self._db.one("SELECT facts FROM styles WHERE id = ?", (card.id,))
        if row is not None:
            found: dict[str, Any] = json.loads(row["facts"])
            return found
        header = self._headers.of(card.file)
        if header is None:
            return {}
        return {
            "layout": card.layout,
            "bytes": header.size,
            "parameters": header.parameters(""),
            "dtypes": sorted(set(header.dtypes.values())),
            "trigger": card.trigger,
        }

    def add(self, source: Path, name: str = "", alpha: Alpha | None = None) -> str:
        """Take a file from elsewhere into the library, checked by the worker; returns its id. Takes seconds.

        Args:
            alpha: what was answered for a file that does not say it; it is kept in the library's copy.

        Raises:
            AlphaUnknown: the file does not say its alpha, and ``alpha`` is None.
            AdapterFileError: it is no style file that can be used, with the reason, or it is here already.
        """
        try:
            header = read_header(source, AdapterFileError)
        except AdapterFileError as error:
            raise AdapterFileError(str(error).replace(str(source), source.name)) from None
        self._home.require_space(header.size, "Importing this style")
        style_id = new_id("style")
        folder = self._home.styles / style_id
        file = folder / "adapter.safetensors"
        try:
            folder.mkdir(parents=True)
            if alpha is None:
                shutil.copyfile(source, file)
            else:
                copy_with_metadata(header, file, alpha.to_metadata())
            weights = self._headers.weights(file)
            twin = self._twin(weights)
            if twin:
                raise AdapterFileError(f"{source.name} is in the library already, with the very same weights: {twin}.")
            found = self._ask(Inspect(ask=style_id, path=str(file)))
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, PatinaError):
                # Where the studio keeps its copy says nothing to whoever chose the file.
                raise type(error)(str(error).replace(str(file), source.name)) from None
            raise
        # The path names the file only while it lies where it was looked at.
        facts = {key: value for key, value in found.items() if key != "path"}
        title = _shown_name(name or str(found.get("title") or "") or source.stem)
        self._db.write(
            "INSERT INTO styles (id, name, file, created, facts, weights) VALUES (?, ?, ?, ?, ?, ?)",
            (
                style_id,
                title,
                file.relative_to(self._home.path).as_posix(),
                time.time(),
                json.dumps(facts),
                weights,
            ),
        )
        copied = self._headers.of(file)
        if copied is not None:
            unpack_thumbnail(copied, folder)
        return style_id

    def download(self, style_id: str, layout: FileLayout = "kohya", *, half: bool = False) -> Path:
        """The style's file under its name, in the wanted layout; another one than its own takes seconds.

        Args:
            half: in fp16, at half the size.

        Raises:
            StudioError: there is no such style, or the worker does not answer.
            AdapterFileError: its file cannot be read.
        """
        card = self.card(style_id)
        self._home.require_space(card.size_bytes, "This download")
        target = self._home.downloads / style_id / (f"{layout}-fp16" if half else layout) / file_name(card.name)
        if target.is_file() and target.stat().st_mtime >= card.file.stat().st_mtime:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob("*.safetensors"):
            old.unlink(missing_ok=True)
        header = self._headers.of(card.file)
        as_it_is = header is not None and not header.has(*_OTHER_NAMES) and KEY not in header.metadata
        if layout == card.layout and as_it_is and not half:
            copy_titled(card.file, target, card.name)
        else:
            ask, source = new_id("convert"), str(card.file)
            self._ask(Convert(ask=ask, source=source, target=str(target), layout=layout, name=card.name, half=half))
        return target

    def rename(self, style_id: str, name: str) -> None:
        """Give a style another name, which is also that of its downloads.

        Raises:
            StudioError: its file lies in a folder of somebody's own, where Patina changes nothing.
        """
        _refuse_linked(style_id)
        if not self.is_imported(style_id):
            self._runs.rename(style_id, name)
            return
        checked = configs.parse({"name": name}).name
        self._db.write("UPDATE styles SET name = ? WHERE id = ?", (checked, style_id))

    def delete(self, style_id: str) -> None:
        """Put a style in the trash, from which `restore` takes it back; it is emptied after 30 days.

        Raises:
            StudioError: as of `rename`.
        """
        _refuse_linked(style_id)
        if not self.is_imported(style_id):
            self._runs.delete(style_id)
            return
        self._db.write("UPDATE styles SET trashed = ? WHERE id = ?", (time.time(), style_id))

    def restore(self, style_id: str) -> None:
        """Take a deleted style back."""
        if not self.is_imported(style_id):
            self._runs.restore(style_id)
            return
        self._db.write("UPDATE styles SET trashed = NULL WHERE id = ?", (style_id,))

    def trashed(self) -> list[tuple[str, str, float]]:
        """(id, name, when it was deleted in Unix time) of imported styles that `restore` would take back."""
        rows = self._db.all("SELECT id, name, trashed FROM styles WHERE trashed IS NOT NULL")
        return [(row["id"], row["name"], row["trashed"]) for row in rows]

    def empty_trash(self, before: float) -> None:
        """Remove for good what was deleted before a time."""
        for row in self._db.all("SELECT id, file FROM styles WHERE trashed < ?", (before,)):
            shutil.rmtree((self._home.path / row["file"]).parent, ignore_errors=True)
            self._db.write("DELETE FROM styles WHERE id = ?", (row["id"],))

    def _trained(self, run: RunRow) -> StyleCard | None:
        folder = RunFolder(self._home.run(run.id))
        samples = sorted(folder.samples.glob("*.png"), reverse=True)
        newest = [path for path in samples if path.stem[:6] == samples[0].stem[:6]]
        base = str(run.settings.get("base", {}).get("source", "bundled"))
        return self._card(
            run.id,
            run.name,
            folder.adapter_file,
            created=run.created,
            origin="trained",
            thumbnails=tuple(
                sorted(newest)[:THUMBNAILS] or [own for own in [folder.path / THUMBNAIL] if own.is_file()]
            ),
            base=base,
            trigger=str(run.settings.get("trigger", "")),
        )

    def _imported(self, row: Any) -> StyleCard | None:
        file = self._home.path / row["file"]
        picture = file.parent / THUMBNAIL
        thumbnails = (picture,) if picture.is_file() else ()
        return self._card(
            row["id"], row["name"], file, created=row["created"], origin="imported", thumbnails=thumbnails
        )

    def _linked(self, file: Path) -> StyleCard | None:
        try:
            made = file.stat().st_mtime
        except OSError:
            return None
        return self._card(linked_id(file), file.stem, file, created=made, origin="linked", thumbnails=())

    def _card(
        self,
        style_id: str,
        name: str,
        file: Path,
        *,
        created: float,
        origin: Literal["trained", "imported", "linked"],
        thumbnails: tuple[Path, ...],
        base: str = "",
        trigger: str = "",
    ) -> StyleCard | None:
        """The card of a file, or None when there is no readable one.

        Whatever stands in a header was written by somebody else: a file that says nonsense of itself gets a card that
        says less, and never takes the list down with it.

        Args:
            base, trigger: what the studio knows itself, where the file does not say.
        """
        header = self._headers.of(file)
        if header is None:
            return None
        said = header.metadata
        family, rank = "", None
        try:
            family, rank = family_of(said) or "", rank_of(said)
        except Exception:
            logger.exception("The header of %s cannot be understood; its card says less.", style_id)
        return StyleCard(
            id=style_id,
            name=name,
            trigger=said.get("modelspec.trigger_phrase", "") or trigger,
            origin=origin,
            base=base or said.get("ss_sd_model_name", "") or title_of(family),
            family=family,
            rank=rank,
            size_bytes=header.size,
            created=created,
            file=file,
            layout="kohya" if header.has("lora_", *_OTHER_NAMES) else "diffusers",
            thumbnails=thumbnails,
            strength=strength_of(said),
        )

    def _twin(self, weights: str) -> str:
        """The name of a style with the very same weights, or an empty text."""
        for row in self._db.all("SELECT id, file FROM styles WHERE trashed IS NULL AND weights = ''"):
            # Imported before hashes were kept.
            found = self._headers.weights(self._home.path / row["file"])
            self._db.write("UPDATE styles SET weights = ? WHERE id = ?", (found, row["id"]))
        row = self._db.one("SELECT name FROM styles WHERE trashed IS NULL AND weights = ?", (weights,))
        if row is not None:
            return str(row["name"])
        runs = self._store.in_state(State.FINISHED)
        files = ((run.name, RunFolder(self._home.run(run.id)).adapter_file) for run in runs)
        return next((name for name, file in files if self._headers.weights(file) == weights), "")


def unpack_thumbnail(header: Header, folder: Path) -> bool:
    """Put the picture that came with a file beside it; returns whether there is one that can be opened.

    It is decoded in a child, as nobody knows who made it.
    """
    from trainer.data.decoder import Decoder, Source

    kind, _, data = header.metadata.get("modelspec.thumbnail", "").partition(";base64,")
    if not kind.startswith("data:image/"):
        return False
    try:
        source = Source("thumbnail", base64.b64decode(data, validate=True))
        with Decoder() as decoder:
            picture, _ = decoder.copy(source, max_side=512)
    except (binascii.Error, ValueError, ImageError):
        # A style without a picture is still a style.
        return False
    replace_file(folder / THUMBNAIL, partial(picture.save, format="PNG"))
    return True


def linked_id(file: Path) -> str:
    """The id of a style that lies in a folder that somebody named."""
    return _LINKED + hashlib.sha256(str(file).encode()).hexdigest()[:20]


def _refuse_linked(style_id: str) -> None:
    if style_id.startswith(_LINKED):
        raise StudioError(
            "This style lies in a folder of your own, where Patina changes nothing: rename or delete its file there, "
            "or remove the folder in the settings."
        )


def file_name(name: str) -> str:
    """A style's name as the name of its file."""
    return f"{RunConfig.model_construct(name=name).file_stem}.safetensors"


def _shown_name(title: str) -> str:
    """A title that somebody else chose, as a name that a style can have here."""
    kept = " ".join("".join(c if c.isprintable() else " " for c in title).split())[:80].strip()
    return kept if any(c.isalnum() for c in kept) else "Imported style"
