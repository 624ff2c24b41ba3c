"""A race: several settings trained side by side, of which the better half goes on, until one is left.

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization", figure 1), by the loss on held-out images: with eight settings all are trained an eighth of the steps,
four of them to a quarter, two to a half and one to the end, which takes 2.5 trainings instead of eight. Settings share
the base's passes. The folder holds ``race.json`` with what was decided, checkpoints while it runs, and at the end the
winner's style and its settings.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from trainer.adapters.bank import Bank
from trainer.atomic import write_file
from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import RunConfig, overlay, parse
from trainer.data.dataset import Dataset
from trainer.errors import ConfigError, DoesNotFit, RunError
from trainer.events import Emit, Notice
from trainer.randomness import stable_seed
from trainer.study.arms import Arm
from trainer.study.bench import (
    DRAWS,
    SAVE_SECONDS,
    Pace,
    Teller,
    common_settings,
    fingerprint,
    keep_style,
    opened,
    room_for,
    slug,
    trainer_of_arm,
    with_held_out,
)
from trainer.study.heats import FACTORS, cost_of, heats_of
from trainer.study.result import ArmFacts, Fact
from trainer.training import checkpoint as checkpoints
from trainer.training.loop import Diverged, Trainer
from trainer.training.prepare import Prepared
from trainer.training.room import as_found, settle, tidy
from trainer.training.run_folder import listed
from trainer.training.together import train_together
from trainer.training.validation import Validation
from trainer.version import __version__

FILE = "race.json"
WINNER = "winner.safetensors"
WINNER_SETTINGS = "winner.toml"
RUNNING = "running"


class Heat(Fact):
    """A stretch of the race.

    Attributes:
        steps: at which those in it were compared.
        losses: on the held-out images, by name; None for one that came apart or cannot be trained.
        kept: who goes on, the best first.
        seconds: that it took, by the clock.
    """

    steps: int
    losses: dict[str, float | None]
    kept: tuple[str, ...]
    seconds: float = 0.0


class Race(Fact):
    """A race as far as it has come.

    Attributes:
        settings: those that all share, without what belongs to the machine.
        together: how many share a pass.
        cost: steps that the race takes in all; ``sweep`` those of training each to its end.
        out: who came apart on the way.
        base_loss: the base's own loss on the held-out images.
        winner: empty before the end.
        file: the winner's style, relative to the folder.
    """

    version: str
    style: str
    base: str
    base_sha256: str
    dataset: str
    settings: dict[str, Any]
    training: int
    held_out: int
    draws: int
    seed: int
    steps: int
    together: int
    cost: int
    sweep: int
    entrants: tuple[ArmFacts, ...]
    heats: tuple[Heat, ...] = ()
    out: tuple[str, ...] = ()
    base_loss: float | None = None
    winner: str = ""
    file: str = ""

    def to_json(self) -> str:
        """As the file holds it."""
        return self.model_dump_json(indent=1) + "\n"

    @property
    def running(self) -> tuple[str, ...]:
        """Who has not dropped out, the best first."""
        names = self.heats[-1].kept if self.heats else tuple(entrant.name for entrant in self.entrants)
        return tuple(name for name in names if name not in self.out)


def read(folder: Path) -> Race | None:
    """The race in a folder, or None where there is none.

    Raises:
        RunError: its file is damaged.
    """
    try:
        return Race.model_validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise RunError(f"{folder / FILE} is damaged: choose another folder with --out.") from None


def entrants_of(
    usual_rate: float,
    *,
    rates: Sequence[float] = (),
    ranks: Sequence[int] = (),
    targets: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> list[Arm]:
    """Every combination of what is named; with nothing named, learning rates around the preset's.

    Raises:
        ConfigError: there is only one.
    """
    if not (rates or ranks or targets or methods):
        rates = [float(f"{usual_rate * factor:.3g}") for factor in FACTORS]
    named: dict[str, Sequence[Any]] = {
        "optim.learning_rate": rates,
        "adapter.rank": ranks,
        "adapter.targets": targets,
        "adapter.method": methods,
    }
    dials = {path: list(dict.fromkeys(values)) for path, values in named.items() if values}
    arms = []
    for values in product(*dials.values()):
        changes = dict(zip(dials, values, strict=True))
        arms.append(Arm(", ".join(_said(path, value) for path, value in changes.items()), changes))
    if len(arms) < 2:
        raise ConfigError("A race needs two settings at least: name several rates, ranks, targets or methods.")
    return arms


def _said(path: str, value: object) -> str:
    word = {"optim.learning_rate": "rate", "adapter.rank": "rank"}.get(path, "")
    return f"{word} {value:g}" if word and isinstance(value, float | int) else str(value)


def race(
    config: RunConfig,
    folder: Path,
    *,
    rates: Sequence[float] = (),
    ranks: Sequence[int] = (),
    targets: Sequence[str] = (),
    methods: Sequence[str] = (),
    together: int | None = None,
    emit: Emit = lambda event: None,
    told: Callable[[Pace], None] = lambda pace: None,
    base: Base | None = None,
) -> Race:
    """Race some settings, or go on with the race in the folder, bit for bit.

    Args:
        config: what all share. Without a ``data.validation_share`` a quarter of the images is held out.
        folder: made when it is not there.
        rates, ranks, targets, methods: what races, in every combination; nothing is learning rates around the preset's.
        together: most in one pass; None is as many as memory has room for.
        emit: told first what the race will cost.
        told: of the pace, a few times a second.
        base: that of ``config`` when it is loaded already; it is left as it was.

    Raises:
        PatinaError: something the user can mend; the folder keeps what was done.
    """
    asked = config
    config = with_held_out(config)
    with opened(config, folder, emit, base) as (base, dataset, prepared):
        settings = common_settings(config, base, prepared)
        arms = entrants_of(
            float(settings["optim"]["learning_rate"]), rates=rates, ranks=ranks, targets=targets, methods=methods
        )
        heats = heats_of(len(arms), int(settings["train"]["steps"]))
        planned = Race(
            version=__version__,
            style=config.name,
            base=base.title,
            base_sha256=base.identity,
            dataset=fingerprint(dataset),
            settings=settings,
            training=len(prepared.training),
            held_out=len(prepared.validation),
            draws=DRAWS,
            seed=config.train.seed,
            steps=heats[-1][1],
            together=together or 0,
            cost=cost_of(heats),
            sweep=len(arms) * heats[-1][1],
            entrants=tuple(ArmFacts(name=arm.name, changes=dict(arm.changes)) for arm in arms),
        )
        if not prepared.validation:
            raise ConfigError("A race is decided by images that are held out, and there is none to spare: add images.")
        track = _Track(base, prepared, dataset, config, folder, going_on(planned, read(folder)), emit, told)
        try:
            with as_found(base):
                settle(base, config.memory)
                track.run()
        finally:
            track.bank.detach()
        done = track.race
        winning = next(entrant for entrant in done.entrants if entrant.name == done.winner)
        values = asked.model_dump(exclude_none=True)
        overlay(values, dict(winning.changes))
        write_file(folder / WINNER_SETTINGS, parse(values).to_toml().encode())
        return done


def going_on(planned: Race, earlier: Race | None) -> Race:
    """The plan with what an earlier call has done of it.

    Raises:
        ConfigError: the folder holds a race with other settings.
    """
    if earlier is None:
        return planned
    for what in ("base_sha256", "dataset", "settings", "draws", "seed", "entrants"):
        if getattr(planned, what) != getattr(earlier, what):
            raise ConfigError(
                f"The folder holds a race in which {what} was something else. Choose another folder with --out, or ask "
                "for the same again."
            )
    if planned.together not in (0, earlier.together):
        raise ConfigError(
            f"The race was begun with {earlier.together} settings in a pass: leave --together out, or say that."
        )
    return earlier


class _Track:
    """Where settings race; ``race`` is what is decided so far."""

    def __init__(
        self,
        base: Base,
        prepared: Prepared,
        dataset: Dataset,
        config: RunConfig,
        folder: Path,
        race: Race,
        emit: Emit,
        told: Callable[[Pace], None],
    ) -> None:
        self.base, self.prepared, self.dataset, self.config = base, prepared, dataset, config
        self.folder, self.race, self.emit = folder, race, emit
        self.bank = Bank(base.roots)
        self.settings: dict[str, RunConfig] = {}
        self.heats = heats_of(len(race.entrants), race.steps)
        self.grids = [
            Validation(base, prepared.validation, prepared.features, seed=stable_seed(race.seed, "race", draw))
            for draw in range(race.draws)
        ]
        self.done = 0
        self.teller = Teller(told)

    def run(self) -> None:
        """All heats that are left, and the winner's file."""
        if self.race.winner:
            return
        racing = {name: trainer for name in self.race.running if (trainer := self._trainer(name)) is not None}
        if not racing:
            raise ConfigError("None of these settings can be trained on this base.")
        self._announce(next(iter(racing.values())))
        for group in self._groups(racing):
            self._stand(group)
        self.done = sum(trainer.step for trainer in racing.values())
        for number, end in self.heats[len(self.race.heats) :]:
            began, begun = time.monotonic(), self.race.running
            self._train(racing, end)
            losses = {name: self._loss(racing[name]) if name in racing else None for name in begun}
            ranked = sorted((name for name in racing if losses[name] is not None), key=lambda n: (losses[n], n))
            if not ranked:
                raise RunError("Every setting came apart: race lower learning rates.")
            last = (number, end) == self.heats[-1]
            kept = ranked[:1] if last else ranked[: math.ceil(number / 2)]
            heat = Heat(steps=end, losses=losses, kept=tuple(kept), seconds=time.monotonic() - began)
            for name in [name for name in racing if name not in kept]:
                self._drop(racing.pop(name))
            if last:
                self._finish(racing[kept[0]])
            self._write(heats=(*self.race.heats, heat), **({"winner": kept[0], "file": WINNER} if last else {}))
        shutil.rmtree(self.folder / RUNNING, ignore_errors=True)

    def _announce(self, one: Trainer) -> None:
        """Say what the race takes before it takes it; a race that goes on has said it."""
        if self.race.together and self.race.heats:
            return
        room, seconds = room_for(one, self.config)
        if not self.race.together:
            self._write(together=room)
        ends = ", ".join(str(end) for _, end in self.heats[:-1])
        said = (
            f"{len(self.race.entrants)} settings race over {self.race.steps} steps; after step {ends} the better half "
            f"goes on. That is {self.race.cost} steps in all, where training each to its end takes {self.race.sweep}"
        )
        if seconds is not None:
            said += f", and about {seconds * self.race.cost / 60:.1f} minutes here or less; one training takes "
            said += f"{seconds * self.race.steps / 60:.1f}"
        self.emit(Notice(text=f"{said}."))

    def _trainer(self, name: str) -> Trainer | None:
        """A setting's trainer at step 0; None when it cannot be trained on this base, which is said."""
        entrant = next(each for each in self.race.entrants if each.name == name)
        changes: Mapping[str, Any] = {**entrant.changes, "name": f"{self.race.style[:40]} {name}"[:80]}
        try:
            trainer, self.settings[name] = trainer_of_arm(
                self.bank,
                self.base,
                self.prepared,
                self.config,
                name,
                changes,
                images_per_pass=self.config.memory.micro_batch,
            )
        except ConfigError as error:
            self.emit(Notice(level="warning", text=f"{name} cannot race: {error}"))
            return None
        return trainer

    def _groups(self, racing: Mapping[str, Trainer]) -> list[list[Trainer]]:
        """Who shares passes: the same ones whenever a heat is begun again, so that it comes out the same."""
        names, size = self.race.running, max(1, self.race.together)
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        return [group for part in parts if (group := [racing[name] for name in part if name in racing])]

    def _stand(self, trainers: Sequence[Trainer]) -> None:
        """Let all of a group stand where they last stood together: a kill may come between two of their checkpoints."""
        places = [{step for step, _ in listed(self._resting(trainer))} for trainer in trainers]
        for step in sorted(set.intersection(*places), reverse=True):
            try:
                found = [checkpoints.read(dict(listed(self._resting(trainer)))[step]) for trainer in trainers]
            except RunError:
                continue
            for trainer, state in zip(trainers, found, strict=True):
                trainer.restore(state)
            break

    def _train(self, racing: dict[str, Trainer], end: int) -> None:
        """Train all to a step; who comes apart is dropped from ``racing``."""
        while behind := [group for group in self._groups(racing) if min(each.step for each in group) < end]:
            group = behind[0]
            step = min(trainer.step for trainer in group)
            until = time.monotonic() + SAVE_SECONDS

            def go_on(group: Sequence[Trainer] = group, step: int = step, until: float = until) -> bool:
                now = min(trainer.step for trainer in group)
                return now < end and (now == step or time.monotonic() < until)

            lost: list[Trainer] = []
            try:
                train_together(group, go_on=go_on, after_step=self._tell)
            except Diverged as trouble:
                lost = [each for each in group if each.style in trouble.styles]
                group = [each for each in group if each not in lost]
                for trainer in lost:
                    self.emit(Notice(level="warning", text=f"{trainer.style} came apart and drops out."))
                    self._drop(racing.pop(trainer.style))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                tidy(self.base.device)
                raise DoesNotFit(
                    f"Memory ran out with {len(group)} settings in a pass: begin again in another folder with a "
                    "smaller --together."
                ) from None
            for trainer in group:
                checkpoints.save(trainer.checkpoint(), self._resting(trainer), keep=2)
            if lost:
                self._write(out=(*self.race.out, *(trainer.style for trainer in lost)))

    def _loss(self, trainer: Trainer) -> float | None:
        """Mean squared error on the held-out images; None when it is no number."""
        with trainer.as_exported():
            found = [grid.measure(trainer) for grid in self.grids]
        if self.race.base_loss is None:
            self._write(base_loss=fmean(each.base for each in found))
        loss = fmean(each.style for each in found)
        return loss if math.isfinite(loss) else None

    def _finish(self, trainer: Trainer) -> None:
        keep_style(trainer, self.settings[trainer.style], self.dataset, self.folder / WINNER)

    def _drop(self, trainer: Trainer) -> None:
        self.bank.remove(trainer.style)
        shutil.rmtree(self._resting(trainer), ignore_errors=True)

    def _resting(self, trainer: Trainer) -> Path:
        return self.folder / RUNNING / slug(trainer.style)

    def _write(self, **changes: Any) -> None:
        self.race = self.race.model_copy(update=changes)
        try:
            write_file(self.folder / FILE, self.race.to_json().encode())
        except OSError as error:
            raise RunError(f"{self.folder / FILE} cannot be written: {error.strerror or error}.") from None

    def _tell(self, trainer: Trainer, loss: float) -> None:
        self.done += 1
        self.teller.tell(self.race.running, self.race.seed, self.done, self.race.cost)
