"""Pictures on order: from what a user wants to see to jobs of the worker, and back to pictures to show."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import StudioError
from trainer.studio.home import Home, new_id
from trainer.studio.jobs import SHEET_NAME, Jobs
from trainer.studio.library import Library
from trainer.studio.orders import keys_of, source_of, sources_of, weights_of, with_base
from trainer.studio.protocol import Draw
from trainer.studio.store import Store
from trainer.studio.supervisor import Supervisor
from trainer.studio.views import JobView, PictureView, PreviewOrder, StyleUse


class Gallery:
    """Preview jobs with their pictures."""

    def __init__(self, home: Home, store: Store, jobs: Jobs, library: Library, supervisor: Supervisor) -> None:
        self._home, self._store, self._jobs = home, store, jobs
        self._library, self._supervisor = library, supervisor

    def preview(self, order: PreviewOrder) -> str:
        """Start making pictures; those made before with the same settings are there at once."""
        order = with_base(order, self._store, self._library)
        sources = sources_of(order, self._home, self._store, self._library)
        order = order.drawn_with(weights_of(sources))
        keys = keys_of(order, sources)
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
            sources=sources,
            rows=tuple(order.rows[index] for index in missing),
            indices=tuple(missing),
            settings=order.settings,
            folder=str(self._home.preview(job_id)),
        )
        self._supervisor.draw(request, {index: keys[index] for index in missing})
        return job_id

    def weights_now(self, styles: Sequence[StyleUse]) -> tuple[str, ...]:
        """Which weights the next picture with these styles would show (`trainer.studio.weights`).

        Raises:
            StudioError: a style or checkpoint that is not there.
        """
        return weights_of([source_of(use, self._home, self._store, self._library) for use in styles])

    def job(self, job_id: str) -> JobView:
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
        """Stop a job within one denoising step."""
        self._supervisor.cancel(job_id)

    def newest(self, limit: int) -> list[JobView]:
        """Jobs that have pictures, newest first."""
        return [self.job(job_id) for job_id in self._jobs.gallery(limit)]

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

        view = self.job(job_id)
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
