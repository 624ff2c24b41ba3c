"""The studio's parts without a worker: the supervisor is there but never started, so nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.studio.conductor import Conductor
from trainer.studio.database import Database
from trainer.studio.desk import Desk
from trainer.studio.drafts import Drafts
from trainer.studio.gallery import Gallery
from trainer.studio.home import Home
from trainer.studio.jobs import Jobs
from trainer.studio.library import Library
from trainer.studio.machine import Device
from trainer.studio.overview import Overview
from trainer.studio.planning import Measured
from trainer.studio.store import Store
from trainer.studio.supervisor import Supervisor


@dataclass
class Parts:
    """What `app.client.Studio` puts together."""

    home: Home
    store: Store
    drafts: Drafts
    jobs: Jobs
    supervisor: Supervisor
    overview: Overview
    library: Library
    desk: Desk
    conductor: Conductor
    gallery: Gallery
    measured: Measured


def put_together(folder: Path) -> Parts:
    """The parts over a new studio folder; close ``store.db`` afterwards."""
    home = Home(folder).prepare()
    database = Database(home.database)
    store, jobs, drafts = Store(database), Jobs(database, home), Drafts(database, home)
    supervisor = Supervisor(home, store, jobs, idle_seconds=60)
    overview = Overview(home, store, drafts.first, supervisor.phase)
    library = Library(database, home, store, supervisor.ask)
    measured = Measured(database)
    desk = Desk(home, store, drafts, measured, lambda: Device("cpu", "CPU, 2 cores", 8 * 2**30, 6 * 2**30))
    conductor = Conductor(home, store, desk, overview, supervisor)
    gallery = Gallery(home, store, jobs, library, supervisor)
    return Parts(home, store, drafts, jobs, supervisor, overview, library, desk, conductor, gallery, measured)
