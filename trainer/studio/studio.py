"""The open studio: its folder, its worker, and the parts through which everything is done."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from trainer.bases.describe import Bases
from trainer.studio.captioning import Captioning
from trainer.studio.database import Database
from trainer.studio.drafts import Drafts
from trainer.studio.estimate import PastRuns
from trainer.studio.folder import StudioFolder, opened, studio_path
from trainer.studio.health import Health
from trainer.studio.images import DraftImages
from trainer.studio.jobs import Jobs
from trainer.studio.library import Library
from trainer.studio.machine import Machine, cards
from trainer.studio.pictures import Pictures
from trainer.studio.preferences import Preferences
from trainer.studio.runs import Runs
from trainer.studio.sharing import Sharing
from trainer.studio.shelves import Shelves
from trainer.studio.store import Store
from trainer.studio.trash import Trash
from trainer.studio.worker.supervisor import Supervisor
from trainer.studio.workshop import Workshop


class Studio:
    """One open studio per process. Use as a context manager, or call `close`: then the worker saves and ends.

    Every method of its parts may be called from any thread, returns plain values and, unless it says otherwise,
    answers at once. Errors are `trainer.errors.PatinaError`: one sentence to show as it is. Nothing here imports
    torch; models live in the worker process.

    Attributes:
        home: the studio folder.
        bases: what a base is, before it is loaded.
        drafts: settings, images and captions of runs that have not started.
        captioning: captions that a model writes for drafts.
        runs: the queue and everything that was started.
        pictures: previews and the gallery.
        library: finished and imported styles.
        workshop: new styles of those, and what is known of their layers.
        preferences: prompts and folders that people told the studio to keep.
        sharing: what is published of a style.
        shelves: what lies in folders that people named.
        machine: the device and its worker.
        health: what is wrong with the folder, and what takes its space.
    """

    def __init__(self, home: Path | None = None, *, idle_seconds: float = 300.0, address: str = "") -> None:
        """Open the studio folder and go on with what was running when it was last closed.

        Args:
            home: the studio folder; None is the user's (``PATINA_HOME``).
            idle_seconds: after so long without work the worker frees the base's memory.
            address: where this studio is served, told to whoever tries to open the folder a second time.

        Raises:
            StudioError: another studio has the folder open, or it cannot be written.
        """
        self.home = StudioFolder(home or studio_path()).prepare()
        self._open = ExitStack()
        self._open.enter_context(opened(self.home, address))
        try:
            database = Database(self.home.database)
        except BaseException:
            self._open.close()
            raise
        self._open.callback(database.close)
        store = Store(database)
        jobs, images = Jobs(database, self.home), DraftImages(database, self.home)
        supervisor = self._supervisor = Supervisor(
            self.home, store, jobs, idle_seconds=idle_seconds, cards=[card.card for card in cards()]
        )
        self.machine = Machine(self.home, supervisor)
        self.bases = Bases()
        self.preferences = Preferences(database)
        self.shelves = Shelves(self.preferences, self.bases)
        past = PastRuns(database)
        self.drafts = Drafts(self.home, store, images, self.bases, past, self.machine.device)
        self.captioning = Captioning(self.home, store, images, supervisor, self.preferences)
        self.runs = Runs(self.home, store, self.drafts, supervisor, images.first)
        self.library = Library(database, self.home, store, self.runs, supervisor.ask, self.shelves.styles)
        self.workshop = Workshop(self.home, self.library, supervisor.ask)
        self.trash = Trash(self.preferences, self.runs, self.library)
        self.sharing = Sharing(self.home, self.library)
        self.pictures = Pictures(self.home, store, jobs, self.library, supervisor)
        self.health = Health(self.home, database, in_use=True)
        self._closed = threading.Event()
        jobs.tidy_up()
        self.trash.tidy_up()
        supervisor.start()

    def close(self) -> None:
        """Let the worker save and end; runs in training go on at the next start. Waits for it, at most 30 s."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.captioning.close()
        self._supervisor.close()
        self._open.close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
