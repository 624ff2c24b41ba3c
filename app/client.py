"""What the interface calls: one `Studio` per app process, over the studio folder and its worker.

Every method may be called from any thread, returns plain values (`trainer.studio.views`) and, unless it says
otherwise, answers at once. Errors are `trainer.errors.PatinaError`: one sentence to show as it is.
Nothing here imports torch; models live in the worker process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer import config as configs
from trainer.config import FileLayout
from trainer.errors import StudioError
from trainer.studio.conductor import TRASH_SECONDS, Conductor
from trainer.studio.database import Database
from trainer.studio.desk import Desk, base_view, sample_sets
from trainer.studio.drafts import Drafts
from trainer.studio.gallery import Gallery
from trainer.studio.home import Home, studio_path
from trainer.studio.jobs import Jobs
from trainer.studio.lease import this_process
from trainer.studio.library import Library
from trainer.studio.machine import Device, best_device
from trainer.studio.overview import Overview
from trainer.studio.planning import Measured
from trainer.studio.store import State, Store
from trainer.studio.supervisor import Supervisor
from trainer.studio.views import (
    AddReport,
    BaseView,
    DraftView,
    JobView,
    MachineView,
    PlanView,
    PreviewOrder,
    RunSummary,
    RunView,
    SampleSet,
    StyleCard,
    StyleUse,
    StyleView,
)

LEASE = "studio"
ADOPT_SECONDS = 10.0


class Studio:
    """The open studio. Use as a context manager, or call `close`: then the worker saves what it does and ends."""

    def __init__(self, home: Path | None = None, *, idle_seconds: float = 300.0, address: str = "") -> None:
        """Open the studio folder and go on with what was running when it was last closed.

        Args:
            home: the studio folder; None is the user's (``PATINA_HOME``).
            idle_seconds: after so long without work the worker frees the base's memory.
            address: where this studio is served, told to whoever tries to open the folder a second time.

        Raises:
            StudioError: another studio has the folder open, or it cannot be written.
        """
        self.home = Home(home or studio_path()).prepare()
        self._database = Database(self.home.database)
        self._store = Store(self._database)
        holder = self._store.leases.take(LEASE, this_process(), address)
        if holder is not None:
            self._database.close()
            where = f" at {holder.detail}" if holder.detail else ""
            raise StudioError(
                f"The studio folder {self.home.path} is open already (process {holder.owner.pid}{where}). "
                "Use that one, or set PATINA_HOME to another folder."
            )
        jobs = Jobs(self._database, self.home)
        drafts = Drafts(self._database, self.home)
        self._supervisor = Supervisor(self.home, self._store, jobs, idle_seconds=idle_seconds)
        self._overview = Overview(self.home, self._store, drafts.first, self._supervisor.phase)
        self._library = Library(self._database, self.home, self._store, self._supervisor.ask)
        self._desk = Desk(self.home, self._store, drafts, Measured(self._database), self._device)
        self._conductor = Conductor(self.home, self._store, self._desk, self._overview, self._supervisor)
        self._gallery = Gallery(self.home, self._store, jobs, self._library, self._supervisor)
        self._adopted = 0.0
        self._closed = threading.Event()
        jobs.tidy_up()
        self._conductor.empty_trash()
        self._library.empty_trash(time.time() - TRASH_SECONDS)
        self._supervisor.start()

    def close(self) -> None:
        """Let the worker save and end; runs in training go on at the next start. Waits for it, at most 30 s."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._supervisor.close()
        self._store.leases.give_back(LEASE, this_process())
        self._database.close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- drafts

    def sample_sets(self) -> list[SampleSet]:
        """Styles that come along, for the first visit."""
        return sample_sets()

    def create_draft(self, settings: Mapping[str, Any] | None = None) -> str:
        """A new draft; ``settings`` as in `update_draft`. Returns its id."""
        return self._desk.create(settings)

    def create_from_samples(self, name: str) -> str:
        """A new draft filled with a sample set's images and captions, ready to train. Returns its id."""
        return self._desk.create_from_samples(name)

    def draft(self, run_id: str) -> DraftView:
        """A draft (or the images and settings of any run) with findings for every image."""
        return self._desk.view(run_id)

    def add_images(self, run_id: str, files: Sequence[str | Path]) -> AddReport:
        """Take uploaded files into a draft: decoded and re-encoded in a child process with limits.

        ``.txt`` files among them become captions of the images of the same name. Takes up to seconds.
        """
        return self._desk.add_images(run_id, files)

    def remove_image(self, run_id: str, image_id: str) -> None:
        """Take an image out of a draft; `restore_image` brings it back with its caption."""
        self._desk.move_image(run_id, image_id, removed=True)

    def restore_image(self, run_id: str, image_id: str) -> None:
        """Bring back an image that was taken out."""
        self._desk.move_image(run_id, image_id, removed=False)

    def set_captions(self, run_id: str, captions: Mapping[str, str]) -> None:
        """Set captions by image id; images that are not named keep theirs."""
        self._desk.set_captions(run_id, captions)

    def captions_add(self, run_id: str, words: str) -> int:
        """Put words (a trigger, say) behind every caption that lacks them; returns how many changed."""
        return self._desk.captions_add(run_id, words)

    def captions_replace(self, run_id: str, find: str, replacement: str) -> int:
        """Replace text in all captions; returns how many changed."""
        return self._desk.captions_replace(run_id, find, replacement)

    def captions_from_names(self, run_id: str) -> int:
        """Fill empty captions from meaningful file names; returns how many changed."""
        return self._desk.captions_from_names(run_id)

    def token_counts(self, run_id: str) -> dict[str, tuple[int, int]]:
        """Image id -> (tokens of caption with trigger, how many the base's text encoder reads)."""
        return self._desk.token_counts(run_id)

    def update_draft(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Set settings by dotted path, e.g. ``{"optim.learning_rate": 1e-4}``; None resets to *chosen for you*.

        Raises:
            ConfigError: names the field, the value and what is allowed; nothing is changed then.
        """
        self._desk.update(run_id, values)

    def plan(self, run_id: str) -> PlanView:
        """What the draft would do: steps, expected time, memory against the machine, disk space."""
        return self._desk.plan(run_id)

    # ---- runs

    def runs(self) -> list[RunSummary]:
        """All runs: in training, then the queue in order, then the others, newest first."""
        if time.monotonic() - self._adopted > ADOPT_SECONDS:
            self._adopted = time.monotonic()
            self._conductor.adopt()
        return self._overview.summaries()

    def active(self) -> RunSummary | None:
        """The run in training, for the chip on every tab."""
        return self._overview.active()

    def snapshot(self, run_id: str) -> RunView:
        """Everything about one run; cheap enough for a timer."""
        return self._overview.view(run_id)

    def enqueue(self, run_id: str) -> None:
        """Train a draft as soon as the worker is free.

        Raises:
            ConfigError, DatasetError, StudioError: it cannot start; nothing is changed then.
        """
        self._conductor.enqueue(run_id)

    def move(self, run_id: str, index: int) -> None:
        """Move a queued run to a place in the queue, 0 being the next."""
        self._conductor.move(run_id, index)

    def pause(self, run_id: str) -> None:
        """Save and wait; in the queue, step aside."""
        self._conductor.pause(run_id)

    def resume(self, run_id: str) -> None:
        """Go on with a paused, failed or cancelled run."""
        self._conductor.resume(run_id)

    def stop_and_keep(self, run_id: str) -> None:
        """End a run (in training or paused) now and export what it has learned as finished."""
        self._conductor.stop_and_keep(run_id)

    def cancel(self, run_id: str) -> None:
        """End a run without a file; what it saved is kept until it is deleted. A queued draft becomes a draft again."""
        self._conductor.cancel(run_id)

    def rename(self, item_id: str, name: str) -> None:
        """Give a run or an imported style another name, which is also that of its downloads."""
        checked = configs.parse({"name": name}).name
        if self._library.is_imported(item_id):
            self._library.rename(item_id, checked)
        elif self._store.get(item_id).state is State.DRAFT:
            self._desk.update(item_id, {"name": checked})
        else:
            self._store.rename(item_id, checked)

    def duplicate(self, run_id: str) -> str:
        """A new draft with a run's settings, images and captions. Returns its id."""
        return self._desk.duplicate(run_id)

    def delete(self, item_id: str) -> None:
        """Put a run or an imported style in the trash; `restore` takes it back. The trash is emptied after 30 days."""
        if self._library.is_imported(item_id):
            self._library.trash(item_id, deleted=True)
        else:
            self._conductor.delete(item_id)

    def restore(self, item_id: str) -> None:
        """Take a deleted run or style back."""
        if self._library.is_imported(item_id):
            self._library.trash(item_id, deleted=False)
        else:
            self._conductor.restore(item_id)

    # ---- pictures

    def preview(self, order: PreviewOrder) -> str:
        """Start making pictures; returns the job's id. Pictures made before with the same settings are reused."""
        return self._gallery.preview(order)

    def weights_now(self, styles: Sequence[StyleUse]) -> tuple[str, ...]:
        """Which weights the next picture with these styles would show (`trainer.studio.weights`)."""
        return self._gallery.weights_now(styles)

    def job(self, job_id: str) -> JobView:
        """A job's progress and pictures."""
        return self._gallery.job(job_id)

    def cancel_job(self, job_id: str) -> None:
        """Stop a job within one denoising step; what is finished of it is kept."""
        self._gallery.cancel(job_id)

    def gallery(self, limit: int = 60) -> list[JobView]:
        """Jobs that have pictures, newest first."""
        return self._gallery.newest(limit)

    def delete_job(self, job_id: str) -> None:
        """Remove a job and its pictures from the gallery."""
        self._gallery.delete(job_id)

    def sheet(self, job_id: str) -> Path:
        """The job's pictures as one labelled PNG.

        Raises:
            StudioError: it is not done, or was not ordered as a sheet.
        """
        return self._gallery.sheet(job_id)

    # ---- library

    def library(self, search: str = "", family: str = "") -> list[StyleCard]:
        """Finished and imported styles, newest first; ``search`` in name and trigger, ``family`` a key of the bases."""
        words = search.casefold().split()
        return [
            card
            for card in self._library.cards()
            if (not family or card.family == family)
            and all(word in f"{card.name} {card.trigger}".casefold() for word in words)
        ]

    def style(self, style_id: str) -> StyleView:
        """A style opened."""
        card = self._library.card(style_id)
        run = self._overview.view(style_id) if card.origin == "trained" else None
        return StyleView(card, self._library.metadata(card), self._library.facts(card), run)

    def import_style(self, path: Path, name: str = "") -> str:
        """Take a style file from elsewhere into the library, checked by the worker; returns its id. Takes seconds.

        Raises:
            AdapterFileError: it is no style file that can be used, with the reason.
        """
        return self._library.take(path, name)

    def download(self, style_id: str, layout: FileLayout = "kohya") -> Path:
        """The style's file under its name, in the wanted layout. Another layout than its own takes seconds."""
        return self._library.download(style_id, layout)

    # ---- environment

    def check_base(self, source: str, revision: str | None = None, variant: str | None = None) -> BaseView:
        """What a base is, or what is wrong with it, without loading it. May ask the network for a hub id."""
        return base_view(self._desk.look_at_base(source, revision, variant))

    def machine(self) -> MachineView:
        """The machine, for the device chip."""
        state, hello, status = self._supervisor.worker_state()
        device = self._device()
        used = status.memory_used if status is not None and device.kind != "cpu" else device.total - device.available
        return MachineView(
            device=device.kind,
            name=hello.device_name if hello is not None else device.name,
            memory_used_bytes=used,
            memory_total_bytes=device.total,
            worker=state,
            disk_free_bytes=self.home.free_bytes(),
        )

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, while there is one."""
        return self._supervisor.pid

    def _device(self) -> Device:
        """The device that trains: as the worker found it, or until one was started as it looks from here."""
        device = best_device()
        _, hello, status = self._supervisor.worker_state()
        if hello is None or hello.device == device.kind:
            return device
        used = status.memory_used if status is not None else 0
        return Device(hello.device, hello.device_name, hello.memory_total, hello.memory_total - used)
