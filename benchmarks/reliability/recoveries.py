"""Memory that runs out and losses that are no number, at chosen moments of a whole run."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from benchmarks.reliability.rows import Row
from benchmarks.reliability.tiny import Bench, bench_at
from trainer.training.run_folder import RunFolder

Kind = Literal["memory", "number"]
Put = Callable[[object, str, object], object]
PLACES: dict[Kind, tuple[str, ...]] = {
    "memory": ("encode_images", "encode_texts", "predict", "accumulate", "update", "decode"),
    "number": ("predict", "weighed", "gradient"),
}
"""Where it happens: on entering a method of the base or the trainer; ``number`` only within a step."""
SETTINGS: dict[str, Any] = {
    "optim.batch_size": 2,
    "data.validation_share": 0.3,
    "samples.every": 4,
    "samples.steps": 2,
    "train.steps": 8,
    "judging.strengths": [1.0],
    "judging.share": 10.0,
}
JUDGED_FROM = 10
"""Trials from which on runs are judged, too."""


class Troubles:
    """Counts what a run asks of the model; at one moment memory runs out, or a value is no number.

    Args:
        kind: what happens.
        at: the moment, from 1 on; 0 only counts.
    """

    def __init__(self, kind: Kind, at: int = 0) -> None:
        self.kind, self.at = kind, at
        self.moments: list[str] = []
        self.phase = ""
        self._step = False

    def install(self, base: Any, put: Put = setattr) -> None:
        """Put the counting under this process's trainings on a base.

        Args:
            put: sets an attribute; pytest's ``monkeypatch.setattr`` takes it back.
        """
        from trainer.training.log import Log
        from trainer.training.loop import Trainer

        for place in PLACES[self.kind]:
            owner = Trainer if hasattr(Trainer, place) else type(base)
            if place != "gradient":
                put(owner, place, self._counted(getattr(owner, place), place))
        whole, told = Trainer.accumulate, Log.__call__

        def accumulate(trainer: Any, *rest: Any, **more: Any) -> Any:
            self._step = True
            try:
                loss = whole(trainer, *rest, **more)
            finally:
                self._step = False
            if self.kind == "number" and self.phase == "training" and self._now("gradient"):
                trainer.parameters[-1].grad.fill_(float("nan"))
            return loss

        def heard(log: Any, event: Any) -> None:
            if event.type == "phase":
                self.phase = event.name
            told(log, event)

        put(Trainer, "accumulate", accumulate)
        put(Log, "__call__", heard)

    def _counted(self, method: Callable[..., Any], place: str) -> Callable[..., Any]:
        def counted(*rest: Any, **more: Any) -> Any:
            import torch

            counts = self.kind == "memory" or (self.phase == "training" and self._step)
            now = counts and self._now(place)
            if now and self.kind == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            result = method(*rest, **more)
            return result * float("nan") if now else result

        return counted

    def _now(self, place: str) -> bool:
        phase = self.phase or "loading"
        where = "a step" if phase == "training" and (self._step or place == "update") else phase
        self.moments.append(f"{where}: {place}")
        return len(self.moments) == self.at


def recover(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Memory runs out, then a value is no number, each at half of ``count`` moments spread over a run."""
    bench, chance = bench_at(folder), random.Random(seed)
    # Judging takes most of such a run's time, and a few trials seldom meet it.
    settings = {**SETTINGS, "judging.enabled": count >= JUDGED_FROM}
    each: tuple[tuple[Kind, int], ...] = (("memory", count - count // 2), ("number", count // 2))
    for kind, trials in each:
        moments = _moments(bench, kind, settings)
        row.figures[f"moments_{kind}"] = len(moments)
        for trial in range(trials):
            # One of each stretch, so that no phase of a run is left out.
            at = 1 + int((trial + chance.random()) * len(moments) / trials)
            run = bench.new_run(f"{kind}-{trial}", **settings)
            code = bench.train(run, partial(_under, bench, kind, at))
            row.add(f"{kind} while {moments[at - 1].partition(':')[0]}")
            row.count(_trouble(run, code, kind, moments[at - 1]))
            shutil.rmtree(run.path, ignore_errors=True)


def _under(bench: Bench, kind: Kind, at: int) -> None:
    Troubles(kind, at).install(bench.base)


def _moments(bench: Bench, kind: Kind, settings: dict[str, Any]) -> list[str]:
    """What an undisturbed run counts."""
    run = bench.new_run(f"counted-{kind}", **settings)
    written = run.path.with_suffix(".moments")

    def before() -> None:
        troubles = Troubles(kind)
        troubles.install(bench.base)
        ended = os._exit

        def end(code: int) -> None:
            written.write_text(json.dumps(troubles.moments), encoding="utf-8")
            ended(code)

        os._exit = end  # type: ignore[assignment]

    code = bench.train(run, before)
    assert code == 0, run.path.with_suffix(".log").read_text(encoding="utf-8")
    found: list[str] = json.loads(written.read_text(encoding="utf-8"))
    return found


def _trouble(run: RunFolder, code: int, kind: Kind, moment: str) -> str:
    """What did not hold: a file, a sentence for people, and where a step was touched the change and the file's word."""
    log = run.path.with_suffix(".log").read_text(encoding="utf-8")
    name = f"{run.path.name} ({moment})"
    if code or not run.adapter_file.is_file():
        return f"{name}: ended with {code}: {(log.strip().splitlines() or [''])[-1]}"
    heard = "emory ran out" if kind == "memory" else "no longer a number"
    said = [event.text for event in run.events() if event.type == "notice" and heard in event.text]
    plain = moment.startswith(("measuring", "verifying"))
    if not plain and not said:
        return f"{name}: nothing was said"
    if said and said[0] not in log:
        return f"{name}: the terminal was not told"
    if not moment.startswith("a step"):
        return ""
    with safe_open(run.adapter_file, "pt") as file:
        facts = file.metadata()
    changes = json.loads(run.recovery_file.read_text(encoding="utf-8")) if run.recovery_file.is_file() else []
    if [change["said"] for change in changes] != json.loads(facts["patina.config"]).get("recovery", []):
        return f"{name}: the file does not say what was changed"
    return "" if changes else f"{name}: no change was written down"
