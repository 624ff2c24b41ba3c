"""Captions for a draft's images, written by a model in the background: the worker looks, one image at a time.

Between two images it does whatever else is asked of it, so a picture never waits long; while it trains, captions wait.
A caption that a person wrote or changed stays, whenever they did so.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import uuid
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainer import child
from trainer.captioning.kept import Kept
from trainer.captioning.style_words import content_of
from trainer.captioning.writers import Length, Writer, fetched_bytes, kind_of, locate, require_length
from trainer.data.decoder import Source
from trainer.errors import BaseError, StudioError
from trainer.events import sentence_of
from trainer.studio.folder import StudioFolder
from trainer.studio.images import DraftImage, DraftImages
from trainer.studio.preferences import Preferences
from trainer.studio.store import State, Store
from trainer.studio.worker.protocol import Describe
from trainer.studio.worker.supervisor import Supervisor

LOOK_SECONDS = 0.2
CLOSE_SECONDS = 5.0

Stage = Literal["downloading", "waiting", "writing", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class CaptioningView:
    """Where the captions of a draft stand.

    Attributes:
        stage: ``waiting`` is for the training that the worker is at.
        done: images looked at, of ``total``; while downloading bytes.
        written: captions that were written.
        unsaid: images of which only the style was spoken.
        message: why it failed.
    """

    stage: Stage
    done: int = 0
    total: int = 0
    written: int = 0
    unsaid: int = 0
    message: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.stage in ("downloading", "waiting", "writing")


class _Cancelled(Exception):
    """Somebody wants no more captions."""


class _Job:
    def __init__(self) -> None:
        self.view = CaptioningView("writing")
        self.cancelled = threading.Event()
        self.thread: threading.Thread | None = None

    def note(self, **changes: object) -> None:
        self.view = replace(self.view, **changes)  # type: ignore[arg-type]


class Captioning:
    """The captions that are being written, by run; at most one job for each.

    Args:
        home, store, images, supervisor, preferences: the studio's.
    """

    def __init__(
        self, home: StudioFolder, store: Store, images: DraftImages, supervisor: Supervisor, preferences: Preferences
    ) -> None:
        self._home, self._store, self._images, self._supervisor = home, store, images, supervisor
        self._preferences = preferences
        self._kept = Kept(home.kept_captions)
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def start(
        self, run_id: str, model: str, length: str = "short", *, anew: bool = False, download: bool = False
    ) -> Writer | None:
        """Begin to write captions for a draft's images that have none; asks the hub for a model that is not here.

        Args:
            model: as `trainer.captioning.writers.locate` takes it.
            length: ``short`` or ``long``.
            anew: for all images, a person's captions included.
            download: the model may be fetched.

        Returns:
            None when it has begun; else the model, which has to be downloaded and may not be yet.

        Raises:
            StudioError: the run is no draft, or its captions are being written already.
            BaseError, ConfigError: the model cannot be used, or not in this way.
        """
        if self._store.get(run_id).state is not State.DRAFT:
            raise StudioError("This run has started with its captions. Duplicate it to change them.")
        writer = locate(model)
        wanted: Length = "long" if length == "long" else "short"
        if writer.folder is not None:
            wanted = require_length(kind_of(writer.folder), length)
        elif not download:
            return writer
        with self._lock:
            before = self._jobs.get(run_id)
            if before is not None and before.view.is_open:
                raise StudioError("Captions are being written already.")
            job = self._jobs[run_id] = _Job()
        words = self._preferences.style_words()
        job.thread = threading.Thread(
            target=self._work, args=(job, run_id, writer, wanted, words, anew), name="captions", daemon=True
        )
        job.thread.start()
        return None

    def cancel(self, run_id: str) -> None:
        """Write no more; what is written stays."""
        job = self._jobs.get(run_id)
        if job is not None:
            job.cancelled.set()

    def view(self, run_id: str) -> CaptioningView | None:
        """Where a draft's captions stand; None where none were asked for since the studio was opened."""
        job = self._jobs.get(run_id)
        return None if job is None else job.view

    def close(self) -> None:
        """End what goes on; it is asked for again by whoever wants it."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancelled.set()
        for job in jobs:
            if job.thread is not None:
                job.thread.join(CLOSE_SECONDS)

    # ---- on the job's thread

    def _work(self, job: _Job, run_id: str, writer: Writer, length: Length, words: tuple[str, ...], anew: bool) -> None:
        try:
            here = self._fetched(job, writer, length)
            images = [image for image in self._images.images(run_id) if anew or image.caption in ("", image.written)]
            job.note(stage="writing", done=0, total=len(images))
            for number, image in enumerate(images, start=1):
                said = self._said(job, run_id, image, here, length)
                caption = content_of(said, words)
                if caption and self._store.get(run_id).state is State.DRAFT:
                    is_new = self._images.write_caption_for(run_id, image.id, caption, before=image.caption)
                    job.note(written=job.view.written + is_new)
                job.note(done=number, unsaid=job.view.unsaid + (not caption))
            job.note(stage="done")
        except _Cancelled:
            job.note(stage="cancelled")
        except Exception as error:
            job.note(stage="failed", message=sentence_of(error))

    def _said(self, job: _Job, run_id: str, image: DraftImage, writer: Writer, length: Length) -> str:
        """What the model says of an image, at once where it was asked before."""
        path = self._images.path(run_id, image.id)
        digest = Source.read(path).sha256
        said = self._kept.get(digest, writer, length)
        if said is None:
            ask = f"describe-{uuid.uuid4().hex}"
            future = self._supervisor.begin(
                Describe(ask=ask, folder=str(writer.folder), image=str(path), length=length)
            )
            while True:
                if job.cancelled.is_set():
                    self._supervisor.forget(ask)
                    raise _Cancelled
                with contextlib.suppress(FutureTimeoutError):
                    said = str(future.result(LOOK_SECONDS)["said"])
                    break
                job.note(stage="waiting" if self._supervisor.waits_for_training(ask) else "writing")
            self._kept.put(digest, writer, length, said)
        if job.cancelled.is_set():
            raise _Cancelled
        return said

    def _fetched(self, job: _Job, writer: Writer, length: Length) -> Writer:
        """The model on this machine; its download ends with the job.

        Raises:
            BaseError, StudioError: it cannot be downloaded, and why.
        """
        if writer.folder is not None:
            return writer
        job.note(stage="downloading", done=fetched_bytes(writer), total=writer.download_bytes)
        with child.start("trainer.captioning.fetch", writer.name, length, stdout=subprocess.PIPE) as process:
            try:
                while process.poll() is None:
                    if job.cancelled.wait(LOOK_SECONDS):
                        raise _Cancelled
                    job.note(done=fetched_bytes(writer))
            finally:
                process.kill()
            assert process.stdout is not None
            answer = process.stdout.read()
        try:
            told = json.loads(answer)
        except ValueError:
            raise StudioError("The program that downloads the model ended before it was done. Try again.") from None
        if "problem" in told:
            raise BaseError(str(told["problem"]))
        return writer.lying_in(Path(told["folder"]))
