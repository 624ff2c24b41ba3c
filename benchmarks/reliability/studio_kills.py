"""The studio with its real processes: app, worker or both killed, and a disk that is full at any write."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from benchmarks.reliability.faults import Plan, in_children
from benchmarks.reliability.rows import Row
from benchmarks.reliability.tiny import bench_at
from trainer.styles.metadata import sshs_model_hash
from trainer.training.run_folder import RunFolder

PATIENCE = 600.0
STEPS = 24
KILLS_PER_RUN = 4
WRITES = 50
_APP = """
import signal, sys
from pathlib import Path
from trainer.studio.studio import Studio
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with Studio(Path(sys.argv[1])):
    while True:
        signal.pause()
"""


class App:
    """The studio's process without its page, which is what opens the folder and keeps the worker."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Open the folder."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        with (self.home.parent / "app.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _APP, str(self.home)], stderr=log, env=environment
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def worker(self) -> int | None:
        """The worker's process id, while there is one."""
        with suppress(psutil.Error):
            for each in psutil.Process(self.pid).children():
                if "trainer.studio.worker.main" in each.cmdline():
                    return int(each.pid)
        return None

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


def kill_studio(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """App, worker or both killed at random moments; every run finishes once, with the undisturbed one's weights."""
    from trainer.studio.store import State
    from trainer.studio.studio import Studio

    bench, chance, home = bench_at(folder), random.Random(seed), folder / "studio"
    runs = max(1, count // KILLS_PER_RUN)
    with Studio(home) as studio:
        drafts = []
        for number in range(runs + 1):
            values = bench.settings(**{"name": f"Run {number}", "train.steps": STEPS, "train.checkpoint_every": 3})
            drafts.append(studio.drafts.create(values))
            studio.drafts.add_images(drafts[-1], bench.images)
        studio.runs.enqueue(drafts[0])
        _until(lambda: studio.runs.view(drafts[0]).state in (State.FINISHED, State.FAILED), "the undisturbed run")
        whole = studio.runs.view(drafts[0])
        assert whole.adapter is not None, whole.error
        wanted = sshs_model_hash(whole.adapter)
        for draft in drafts[1:]:
            studio.runs.enqueue(draft)
    app = App(home)
    app.start()
    try:
        for run_id in drafts[1:]:
            run = RunFolder(home / "runs" / run_id)
            kills: list[str] = []
            for _ in range(min(KILLS_PER_RUN, count - row.done - len(kills))):
                # Half of them in the middle of training, the others while the worker starts or the file is made.
                if chance.random() < 0.6:
                    at = chance.randint(1, STEPS - 1)
                    _until(partial(_reached, run, at), f"step {at} of {run_id}")
                else:
                    time.sleep(chance.uniform(0, 12))
                if _over(run):
                    break
                in_training = 0 < _step(run) < STEPS
                what = chance.choice(("app", "worker", "both"))
                worker = app.worker()
                if worker is None and what != "app":
                    what = "app"
                if what in ("worker", "both") and worker is not None:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                if what in ("app", "both"):
                    app.kill()
                    if worker is not None:
                        _until(partial(_is_gone, worker), "the orphan's end")
                    app.start()
                kills.append(what)
                row.add(f"killed_{what}")
                row.add("in_the_middle_of_training", int(in_training))
            _until(partial(_over, run), f"the end of {run_id}")
            finished = sum(
                1
                for line in run.events_file.read_bytes().splitlines()
                if b'"type":"finished"' in line.replace(b" ", b"")
            )
            trouble = ""
            if not run.adapter_file.is_file():
                trouble = f"{run_id} has no file"
            elif sshs_model_hash(run.adapter_file) != wanted:
                trouble = f"{run_id} has other weights"
            elif finished != 1:
                trouble = f"{run_id} finished {finished} times"
            for _ in kills:
                row.count(trouble)
    finally:
        app.stop()


def _step(run: RunFolder) -> int:
    """The last step that the run's log tells of."""
    try:
        steps = [getattr(event, "step", 0) for event in run.events()]
    except OSError:
        return 0
    return int(steps[-1]) if steps else 0


def _reached(run: RunFolder, step: int) -> bool:
    return _step(run) >= step or run.adapter_file.exists()


def _over(run: RunFolder) -> bool:
    with suppress(OSError):
        return any(event.type in ("finished", "failed") for event in run.events())
    return False


def _is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def _until(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.02)


# ---- a full disk


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 48 MiB, which only the system's administrator can make."""
    place = folder / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        raise SystemExit(f"No disk can be mounted here ({made.stderr.strip()}); run this as root on Linux.")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def full_disk_studio(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """A real small disk is filled to the brim at the n-th write of the worker, and emptied again when that is said."""
    from trainer.studio import drafts as drafts_module
    from trainer.studio import folder as folder_module
    from trainer.studio.store import State
    from trainer.studio.studio import Studio

    bench, plan = bench_at(folder), folder / "plan.json"
    folder_module.SPARE_BYTES = 0
    folder_module.ROOM_BYTES = 2**20
    drafts_module.START_BYTES = 0
    with small_disk(folder) as disk, in_children(plan) as planned, Studio(disk / "studio") as studio:
        wanted = ""
        for moment in range(count + 1):
            run_id = studio.drafts.create(bench.settings(name=f"Full {moment}"))
            studio.drafts.add_images(run_id, bench.images)
            path = studio.home.run(run_id)
            planned(Plan(str(path), "", moment, "fill" if moment else "none"))
            studio.runs.enqueue(run_id)
            filler, was_full, trouble = studio.home.runs / "filler", False, ""
            end = time.monotonic() + PATIENCE
            while (view := studio.runs.view(run_id)).state not in (State.FINISHED, State.FAILED, State.PAUSED):
                if filler.exists() and (view.waits or time.monotonic() > end - PATIENCE + 60):
                    # Nothing may be lost of what was saved before.
                    was_full = was_full or bool(view.waits)
                    filler.unlink()
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            filler.unlink(missing_ok=True)
            if view.state is not State.FINISHED or view.adapter is None:
                trouble = f"write {moment}: {view.state} {view.error}"
            elif moment == 0:
                wanted = sshs_model_hash(view.adapter)
            elif sshs_model_hash(view.adapter) != wanted:
                trouble = f"write {moment}: other weights"
            row.add("said_that_the_disk_is_full", int(was_full))
            studio.runs.delete(run_id)
            studio.runs.empty_trash(before=time.time() + 1)
            if moment:
                row.count(trouble)


def full_disk_cli(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """From the n-th write on every one fails for want of room; then the run is resumed with room."""
    from benchmarks.reliability.faults import Faults, install

    bench = bench_at(folder)
    wanted = sshs_model_hash(bench.whole.adapter_file)
    for trial in range(count):
        # Fewer trials are spread over as many writes.
        moment = 1 + trial * (WRITES - 1) // max(1, count - 1)
        run = bench.new_run(f"full-{moment}")
        log = run.path.with_suffix(".log")
        code = bench.train(run, partial(install, Faults(Plan(str(run.path), "", moment, "full"))))
        said = log.read_text(encoding="utf-8")
        trouble = ""
        if code != 2 or "Traceback" in said or not ("is full" in said or "No space left" in said):
            trouble = f"write {moment}: ended with {code}: {said.strip().splitlines()[-1:]}"
        again = bench.train(run)
        if again or sshs_model_hash(run.adapter_file) != wanted:
            trouble = trouble or f"write {moment}: resuming ended with {again}"
        if [path for path in run.path.rglob(".*") if path.is_file()]:
            trouble = trouble or f"write {moment}: something was left behind"
        row.count(trouble)
        shutil.rmtree(run.path, ignore_errors=True)
