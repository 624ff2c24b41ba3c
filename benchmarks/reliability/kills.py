"""Runs that are killed at any moment and go on: by ``kill -9``, by the polite signal, and through the studio."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.reliability.faults import Faults, Plan, install
from benchmarks.reliability.rows import Row
from benchmarks.reliability.tiny import Bench, bench_at
from trainer.styles.metadata import sshs_model_hash
from trainer.training import checkpoint
from trainer.training.run_folder import RunFolder


def kill_cli(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """``kill -9`` at random moments of ``patina train``, every second one inside the writing of a checkpoint."""
    bench, chance = bench_at(folder), random.Random(seed)
    wanted = sshs_model_hash(bench.whole.adapter_file)
    counted = bench.new_run("counted")
    seconds, moments = _measured(bench, counted)
    row.figures["processor_seconds_undisturbed"] = seconds
    trial = 0
    while row.done < count:
        trial += 1
        run = bench.new_run(f"kill-{trial}")
        inside = bool(row.done % 2)
        if inside:
            plan = Plan(str(run.path), os.sep + "checkpoints" + os.sep, chance.randint(1, moments), "kill")
            code = bench.train(run, partial(install, Faults(plan)))
        else:
            # By its own processor time, so that the moments are spread over the run on a busy machine, too.
            code = _killed_at(bench.spawn(run), chance.uniform(0, seconds))
        if code != -signal.SIGKILL:
            # It was over before its moment came.
            shutil.rmtree(run.path)
            continue
        row.add("inside_a_checkpoint", int(inside))
        torn = checkpoint.newest(run.checkpoints)[1]
        again = bench.train(run)
        row.count(_trouble(run, again, torn, wanted))
        shutil.rmtree(run.path, ignore_errors=True)


def _measured(bench: Bench, run: RunFolder) -> tuple[float, int]:
    """Processor seconds of an undisturbed run, and how many moments of writing its checkpoints have."""
    reading, writing = os.pipe()

    def before() -> None:
        faults = Faults(Plan(str(run.path), os.sep + "checkpoints" + os.sep))
        install(faults)

        def tell() -> None:
            # The process ends without cleaning up after itself, so the number is sent as it grows.
            said = 0
            while True:
                if faults.moments != said:
                    said = faults.moments
                    os.write(writing, f"{said}\n".encode())
                time.sleep(0.002)

        threading.Thread(target=tell, daemon=True).start()

    pid = bench.spawn(run, before)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as numbers:
        last = [line for line in numbers.read().splitlines() if line][-1]
    used = os.wait4(pid, 0)[2]
    return used.ru_utime + used.ru_stime, int(last)


def _killed_at(pid: int, seconds: float) -> int:
    """Kill a process once it has used so much processor time; returns how it ended."""
    process = psutil.Process(pid)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        times = process.cpu_times()
        if times.user + times.system >= seconds:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.003)


def _trouble(run: RunFolder, code: int, torn: list[str], wanted: str) -> str:
    if code:
        said = run.path.with_suffix(".log").read_text(encoding="utf-8").strip().splitlines()
        return f"{run.path.name}: resuming ended with {code}: {said[-1] if said else ''}"
    if torn:
        return f"{run.path.name}: {torn[0]}"
    if sshs_model_hash(run.adapter_file) != wanted:
        return f"{run.path.name}: other weights than the undisturbed run"
    left = [path.name for path in run.path.rglob(".*")]
    return f"{run.path.name}: {left[0]} was left behind" if left else ""


def sigterm(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """SIGTERM at random moments of a training: saved within a step and two seconds, and resumed to the same file."""
    bench, chance = bench_at(folder), random.Random(seed)
    wanted = sshs_model_hash(bench.whole.adapter_file)
    for trial in range(count):
        run = bench.new_run(f"term-{trial}", **{"train.checkpoint_every": 100})
        pid = bench.spawn(run)
        _until(partial(_has_started, run))
        time.sleep(chance.uniform(0, 0.25))
        asked, times = time.monotonic(), psutil.Process(pid).cpu_times()
        os.kill(pid, signal.SIGTERM)
        _, status, used = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - asked
        worked = used.ru_utime + used.ru_stime - times.user - times.system
        row.most("slowest_seconds", took)
        trouble = ""
        if code == 130 and "Saved at step" not in run.path.with_suffix(".log").read_text(encoding="utf-8"):
            # Nothing was learned yet, and nothing else was said.
            row.add("before_the_first_step")
        elif code == 130:
            row.add("saved")
            # Beside other programs it takes longer by the clock, but no more work.
            if worked > 2.0 + 1.0 or took > 60.0:
                trouble = f"{run.path.name}: took {took:.1f} s to save, {worked:.1f} s of them at work"
            if not run.saved():
                trouble = f"{run.path.name}: said that it was saved, and was not"
        elif code:
            trouble = f"{run.path.name}: ended with {code}"
        row.count(trouble or _trouble(run, bench.train(run), [], wanted))
        shutil.rmtree(run.path, ignore_errors=True)


def _has_started(run: RunFolder) -> bool:
    return any(event.type == "started" for event in run.events())


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s in vain")
        time.sleep(0.005)
