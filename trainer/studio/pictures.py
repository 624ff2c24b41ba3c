"""Pictures on order: from what a user wants to see to jobs of the worker, and back to pictures to show.

Styles become files, and pictures that were made before with the same settings are found again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from trainer.adapters.blocks import read_blocks
from trainer.config import BaseConfig
from trainer.errors import StudioError
from trainer.preview.begin import NAME, keep_image
from trainer.preview.order import (
    PlacedStyle,
    PreviewOrder,
    PreviewRow,
    PreviewSettings,
    StyleUse,
    live_weights,
    weights_in,
)
from trainer.studio.folder import StudioFolder, new_id
from trainer.studio.jobs import SHEET_NAME, Jobs
from trainer.studio.library import Library
from trainer.studio.store import State, Store
from trainer.studio.views import JobView, PictureView
from trainer.studio.worker.protocol import Draw
from trainer.studio.worker.supervisor import Supervisor
from trainer.training.run_folder import RunFolder, checkpoint_name


class Pictures:
    """Preview jobs with their pictures."""

    def __init__(self, home: StudioFolder, store: Store, jobs: Jobs, library: Library, supervisor: Supervisor) -> None:
        self._home, self._store, self._jobs = home, store, jobs
        self._library, self._supervisor = library, supervisor

    def order(self, order: PreviewOrder) -> str:
        """Start making pictures; returns the job's id. Those made before with the same settings are there at once."""
        order = self._with_base(order)
        for settings in {order.settings, *(row.settings for row in order.rows if row.settings)}:
            self._with_image(settings)
        styles = self._placed(order)
        order = order.drawn_with([style.weights for style in styles])
        keys = keys_of(order, styles)
        self._home.require_space(0, "A preview")
        job_id = new_id("job")
        self._jobs.add(job_id, order)
        missing: list[int] = []
        for index, key in enumerate(keys):
            before = self._jobs.made_before(key)
            if before is None:
                missing.append(index)
            else:
                self._jobs.add_picture(job_id, index, key, before)
        if not missing:
            self._jobs.settle(job_id, "done")
            return job_id
        request = Draw(
            job=job_id,
            base=order.base,
            styles=styles,
            rows=tuple(self._to_draw(order.rows[index]) for index in missing),
            indices=tuple(missing),
            settings=self._with_image(order.settings),
            folder=str(self._home.preview(job_id)),
        )
        self._supervisor.draw(request, {index: keys[index] for index in missing})
        return job_id

    def begin_with(self, source: Path) -> str:
        """Take in a picture to begin with; returns what `PreviewSettings.image` of an order calls it.

        Raises:
            ImageError: the file is no image that can be used.
        """
        self._home.require_space(0, "A picture")
        return keep_image(source, self._home.begun)

    def begun(self, name: str) -> Path:
        """The file of such a picture.

        Raises:
            StudioError: there is none of that name.
        """
        path = self._home.begun / name
        if not NAME.fullmatch(name) or not path.is_file():
            raise StudioError("The picture to begin with is not there any more. Choose it again.")
        return path

    def _with_image(self, settings: PreviewSettings) -> PreviewSettings:
        """Settings for the worker, which is told where the picture lies."""
        if not settings.image:
            return settings
        return settings.model_copy(update={"image": str(self.begun(settings.image))})

    def _to_draw(self, row: PreviewRow) -> PreviewRow:
        if row.settings is None:
            return row
        return row.model_copy(update={"settings": self._with_image(row.settings)})

    def weights_now(self, styles: Sequence[StyleUse]) -> tuple[str, ...]:
        """Which weights the next picture with these styles would show (`trainer.preview.order`).

        Raises:
            StudioError: a style or checkpoint that is not there.
        """
        return tuple(self._place(use).weights for use in styles)

    def view(self, job_id: str) -> JobView:
        """A job's progress and pictures."""
        # Asked first: when the drawing ends in between, the list already has its end.
        drawing = self._supervisor.drawing(job_id)
        row = self._jobs.get(job_id)
        pictures = self._jobs.pictures(job_id)
        return JobView(
            id=row.id,
            state=row.state,
            created=row.created,
            done=drawing.done if drawing is not None else 0,
            total=drawing.total if drawing is not None else 0,
            pictures=tuple(
                PictureView(index, path, row.order.rows[index])
                for index, path in pictures.items()
                if index < len(row.order.rows)
            ),
            order=row.order,
            message=drawing.waits if drawing is not None and drawing.waits else row.message,
        )

    def cancel(self, job_id: str) -> None:
        """Stop a job within one denoising step; what is finished of it is kept."""
        self._supervisor.cancel(job_id)

    def newest(self, limit: int = 60) -> list[JobView]:
        """Jobs that have pictures, newest first."""
        return [self.view(job_id) for job_id in self._jobs.gallery(limit)]

    def delete(self, job_id: str) -> None:
        """Remove a job and its pictures."""
        self._supervisor.cancel(job_id)
        self._jobs.delete(job_id)

    def sheet(self, job_id: str) -> Path:
        """The job's pictures as one labelled PNG, with what was ordered in its text.

        Raises:
            StudioError: it is not done, or was not ordered as a sheet.
        """
        from PIL import Image, PngImagePlugin

        from trainer.preview.sheet import contact_sheet

        view = self.view(job_id)
        order = view.order
        if order.columns < 1:
            raise StudioError("This preview was not made as a sheet.")
        if len(view.pictures) < len(order.rows):
            raise StudioError("The sheet is not complete yet. Wait until all its pictures are made.")
        path = self._home.preview(job_id) / SHEET_NAME
        if path.is_file():
            return path
        pictures: list[Image.Image] = []
        for picture in view.pictures:
            with Image.open(picture.path, formats=("PNG",)) as image:
                pictures.append(image.convert("RGB"))
        grid = [pictures[start : start + order.columns] for start in range(0, len(pictures), order.columns)]
        sheet = contact_sheet(grid, rows=order.row_labels, columns=order.column_labels, title=order.title)
        text = PngImagePlugin.PngInfo()
        text.add_text("patina", json.dumps(order.model_dump(mode="json")))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two pages may ask at once.
        partial = path.with_name(f".sheet-{threading.get_ident()}.tmp")
        sheet.save(partial, "PNG", pnginfo=text)
        partial.replace(path)
        return path

    def _placed(self, order: PreviewOrder) -> tuple[PlacedStyle, ...]:
        """The styles of an order, looked up.

        Raises:
            StudioError: a style or checkpoint that is not there, or a row with other than one strength a style.
        """
        if not order.rows:
            raise StudioError("Nothing was asked for: write a prompt.")
        for row in order.rows:
            if row.strengths and len(row.strengths) != len(order.styles):
                raise StudioError(f"A picture has {len(row.strengths)} strengths for {len(order.styles)} styles.")
        return tuple(self._place(use) for use in order.styles)

    def _place(self, use: StyleUse) -> PlacedStyle:
        """A style with where it lies and which weights it has at this moment.

        A training's step is known only once it was drawn with.
        """
        name, path = self._file_of(use)
        weights = live_weights() if path is None else weights_in(path)
        read_blocks(use.blocks)
        return PlacedStyle(**use.model_dump(exclude={"weights"}), weights=weights, name=name, path=str(path or ""))

    def _file_of(self, use: StyleUse) -> tuple[str, Path | None]:
        """A style's name, and its file or checkpoint's folder; none for the weights in training."""
        if self._library.is_imported(use.style):
            card = self._library.card(use.style)
            return card.name, card.file
        run = self._store.get(use.style)
        folder = RunFolder(self._home.run(run.id))
        if use.step:
            checkpoint = folder.checkpoints / checkpoint_name(use.step)
            if not checkpoint.is_dir():
                raise StudioError(f"{run.name} keeps no checkpoint of step {use.step} any more. Choose a later one.")
            return run.name, checkpoint
        if run.state is State.TRAINING:
            return run.name, None
        if run.state is State.FINISHED and folder.adapter_file.is_file():
            return run.name, folder.adapter_file
        saved = folder.saved()
        if not saved:
            raise StudioError(f"{run.name} has learned nothing yet that could be shown. Train it first.")
        return run.name, saved[0][1]

    def _with_base(self, order: PreviewOrder) -> PreviewOrder:
        """The order with a base: the one it names, or else that of its first style that was trained here."""
        if "base" in order.model_fields_set:
            return order
        trained = next((use.style for use in order.styles if not self._library.is_imported(use.style)), None)
        if trained is None:
            return order
        settings = self._store.get(trained).settings.get("base", {})
        return order.model_copy(update={"base": BaseConfig.model_validate({"source": "bundled", **settings})})


def keys_of(order: PreviewOrder, styles: Sequence[PlacedStyle]) -> list[str]:
    """For each row what decides its pixels, or an empty text when that changes from moment to moment."""
    marks = [_mark(style) for style in styles]
    return [_key(order, row, marks) for row in order.rows]


def _mark(style: PlacedStyle) -> str:
    """What changes when the weights do; empty for the weights in training."""
    if not style.path:
        return ""
    path = Path(style.path)
    try:
        status = (path / "manifest.json" if path.is_dir() else path).stat()
    except OSError:
        return ""
    mark = f"{style.path}:{status.st_mtime_ns}:{status.st_size}"
    return f"{mark}:{style.blocks}" if style.blocks else mark


def _key(order: PreviewOrder, row: PreviewRow, marks: Sequence[str]) -> str:
    # A style at strength 0 changes nothing, so the base's picture serves for every style.
    used = [
        (mark, strength) for mark, strength in zip(marks, row.strengths or [0.0] * len(marks), strict=True) if strength
    ]
    if not all(mark for mark, _ in used):
        return ""
    base = order.base.model_dump()
    if base["quantize"] == "off":
        # As it was written down before bases could be quantised: those pictures are found again.
        del base["quantize"]
    facts = {
        "base": base,
        "settings": (row.settings or order.settings).deciding(),
        "prompt": row.prompt,
        "negative": row.negative,
        "seed": row.seed,
        "styles": used,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
