"""The studio's parts without a worker: the supervisor is there but never started, so nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.bases.describe import Bases
from trainer.studio.database import Database
from trainer.studio.drafts import Drafts
from trainer.studio.estimate import PastRuns
from trainer.studio.folder import StudioFolder
from trainer.studio.images import DraftImages
from trainer.studio.jobs import Jobs
from trainer.studio.library import Library
from trainer.studio.machine import Device
from trainer.studio.pictures import Pictures
from trainer.studio.runs import Runs
from trainer.studio.store import Store
from trainer.studio.worker.supervisor import Supervisor


@dataclass
class Parts:
    """What `trainer.studio.studio.Studio` puts together."""

    home: StudioFolder
    store: Store
    jobs: Jobs
    images: DraftImages
    past: PastRuns
    bases: Bases
    supervisor: Supervisor
    drafts: Drafts
    runs: Runs
    library: Library
    pictures: Pictures


def put_together(folder: Path) -> Parts:
    """The parts over a new studio folder; close ``store.db`` afterwards."""
    home = StudioFolder(folder).prepare()
    database = Database(home.database)
    store, jobs, images = Store(database), Jobs(database, home), DraftImages(database, home)
    past, bases = PastRuns(database), Bases()
    supervisor = Supervisor(home, store, jobs, idle_seconds=60)
    device = Device("cpu", "CPU, 2 cores", 8 * 2**30, 6 * 2**30)
    drafts = Drafts(home, store, images, bases, past, lambda: device)
    runs = Runs(home, store, drafts, supervisor, images.first)
    library = Library(database, home, store, runs, supervisor.ask)
    pictures = Pictures(home, store, jobs, library, supervisor)
    return Parts(home, store, jobs, images, past, bases, supervisor, drafts, runs, library, pictures)
