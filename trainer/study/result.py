"""What a study found, as the file that grows while it runs (``study.json``); read without torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.atomic import write_file
from trainer.errors import ConfigError, RunError
from trainer.study.arms import Arm, Kind
from trainer.study.spread import Spread, difference, spread

FILE = "study.json"
FORMAT = 1

Standing = Literal["best", "within noise", "behind", "one seed", "failed"]


class Fact(BaseModel):
    """What a file of a study or a race holds; what a later version added is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ArmFacts(Fact):
    """An arm as the file holds it: its name and what differs from the common settings, by dotted path."""

    name: str
    changes: dict[str, Any]


class Measured(Fact):
    """One arm trained with one seed.

    Attributes:
        values: number of trained values.
        rank: asked for.
        loss: mean squared error on the held-out images; None when there is none, and ``note`` says why.
        by_level: the share of the base's loss that is gone at each noise level, from the least noise to the most.
        scores: of judging at strength 1 (``style``, ``subject``, ``copying``, ``recall``, ``drift``, ``variety``),
            where asked.
        seconds: its share of the passes that it was trained in, by the clock.
        alongside: how many arms shared its passes at the start.
        file: the style, relative to the study's folder; empty when there is none.
    """

    arm: str
    seed: int
    values: int
    layers: int
    rank: int
    loss: float | None = None
    note: str = ""
    by_level: tuple[float, ...] = ()
    scores: dict[str, float] = {}
    seconds: float = 0.0
    alongside: int = 1
    file: str = ""


class Study(Fact):
    """A study as far as it has come.

    Attributes:
        settings: those that all arms share, without what belongs to the machine.
        base_loss: the base's own on the held-out images; None before the first arm is done.
        draws: of noise for each held-out image; they are the same for all arms and seeds.
        seeds: to be trained with; the first one also decides which images are held out.
    """

    kind: Kind
    version: str
    style: str
    base: str
    base_sha256: str
    dataset: str
    settings: dict[str, Any]
    training: int
    held_out: int
    draws: int
    seeds: tuple[int, ...]
    arms: tuple[ArmFacts, ...]
    base_loss: float | None = None
    measured: tuple[Measured, ...] = ()
    format: int = FORMAT

    def to_json(self) -> str:
        """As the file holds it."""
        return self.model_dump_json(indent=1) + "\n"

    def find(self, arm: str, seed: int) -> Measured | None:
        """What was measured of an arm with a seed, if it was."""
        return next((one for one in self.measured if (one.arm, one.seed) == (arm, seed)), None)

    def missing(self, seed: int) -> list[ArmFacts]:
        """The arms that are still to be trained with a seed."""
        return [arm for arm in self.arms if self.find(arm.name, seed) is None]

    def with_measured(self, more: Measured, base_loss: float | None) -> Study:
        """The study with one more arm and seed done."""
        return self.model_copy(update={"measured": (*self.measured, more), "base_loss": base_loss})

    def going_on(self, earlier: Study) -> Study:
        """This plan with what an earlier call in the same folder has done of it; arms of that one stay.

        Raises:
            ConfigError: they compare other things.
        """
        mine, theirs = _comparable(self), _comparable(earlier)
        for what in mine:
            if mine[what] != theirs.get(what):
                raise ConfigError(
                    f"The folder holds a study with other settings: {what} was {theirs.get(what)!r} and is "
                    f"{mine[what]!r} now. Choose another folder with --out, or ask for the same again."
                )
        known = {arm.name: arm for arm in earlier.arms}
        for arm in self.arms:
            if arm.name in known and known[arm.name].changes != arm.changes:
                raise ConfigError(
                    f"The folder holds a study in which {arm.name!r} was something else: {known[arm.name].changes} "
                    f"instead of {arm.changes}. Choose another folder with --out."
                )
        done = {one.arm for one in earlier.measured}
        asked = {arm.name for arm in self.arms}
        kept = [arm for arm in earlier.arms if arm.name in asked | done]
        names = {arm.name for arm in kept}
        return self.model_copy(
            update={
                "arms": (*kept, *(arm for arm in self.arms if arm.name not in names)),
                "seeds": tuple(dict.fromkeys((*earlier.seeds, *self.seeds))),
                "base_loss": earlier.base_loss,
                "measured": earlier.measured,
            }
        )


def facts_of(arms: Sequence[Arm]) -> tuple[ArmFacts, ...]:
    """Arms as the file holds them."""
    return tuple(ArmFacts(name=arm.name, changes=dict(arm.changes)) for arm in arms)


def read(folder: Path) -> Study | None:
    """The study in a folder, if there is one.

    Raises:
        RunError: its file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Study.model_validate_json(path.read_bytes())
    except ValidationError:
        raise RunError(f"{path} is damaged; move it away, and the study begins anew.") from None


def write(study: Study, folder: Path) -> None:
    """Write the study into its folder, whole or not at all.

    Raises:
        RunError: the disk refuses.
    """
    try:
        write_file(folder / FILE, study.to_json().encode())
    except OSError as error:
        raise RunError(f"{folder / FILE} cannot be written: {error.strerror or error}.") from None


@dataclass(frozen=True)
class Row:
    """An arm over its seeds.

    Attributes:
        values, rank: of its first seed.
        loss: on the held-out images; None where no seed came to an end, and ``note`` says why.
        gain: the share of the base's loss that is gone, over the seeds.
        behind: how much less gain than the best arm, seed by seed; None for the best itself.
        scores: means over the seeds.
    """

    arm: str
    values: int
    rank: int
    loss: Spread | None
    gain: Spread | None
    behind: Spread | None
    standing: Standing
    scores: Mapping[str, float]
    seconds: float
    each: tuple[float, ...] = ()
    note: str = ""


def rows(study: Study) -> list[Row]:
    """One row for each arm that was measured: by trained values in a study of methods, else in the study's order."""
    losses = {arm.name: _losses(study, arm.name) for arm in study.arms}
    finished = {name: found for name, found in losses.items() if found}
    most = max((len(found) for found in finished.values()), default=0)
    means = {name: statistics.fmean(found.values()) for name, found in finished.items() if len(found) == most}
    best = min(means, key=means.__getitem__, default="")
    table = [
        _row(study, arm.name, losses[arm.name], losses.get(best, {}), is_best=arm.name == best)
        for arm in study.arms
        if any(one.arm == arm.name for one in study.measured)
    ]
    return sorted(table, key=lambda row: row.values) if study.kind == "methods" else table


def _row(study: Study, name: str, losses: Mapping[int, float], best: Mapping[int, float], *, is_best: bool) -> Row:
    own = [one for one in study.measured if one.arm == name]
    gains, best_gains = (
        {seed: 1 - loss / (study.base_loss or 1.0) for seed, loss in found.items()} for found in (losses, best)
    )
    behind = None if is_best else difference(best_gains, gains)
    standing: Standing = "behind"
    if not losses:
        standing = "failed"
    elif is_best:
        standing = "best"
    elif behind is None or behind.interval is None:
        standing = "one seed"
    elif behind.is_noise:
        standing = "within noise"
    return Row(
        arm=name,
        values=own[0].values,
        rank=own[0].rank,
        loss=spread(list(losses.values())) if losses else None,
        gain=spread(list(gains.values())) if gains else None,
        behind=behind,
        standing=standing,
        scores={
            key: statistics.fmean(one.scores[key] for one in own if key in one.scores)
            for key in dict.fromkeys(key for one in own for key in one.scores)
        },
        seconds=statistics.fmean(one.seconds for one in own),
        each=tuple(gains.values()),
        note=next((one.note for one in own if one.note), ""),
    )


def _losses(study: Study, arm: str) -> dict[int, float]:
    return {one.seed: one.loss for one in study.measured if one.arm == arm and one.loss is not None}


def _comparable(study: Study) -> dict[str, Any]:
    """What must be alike for two studies to be one."""
    facts: dict[str, Any] = {
        "kind": study.kind,
        "base": study.base_sha256,
        "images": study.dataset,
        "draws": study.draws,
        "first seed": study.seeds[0],
    }
    for section, values in study.settings.items():
        if isinstance(values, dict):
            facts |= {f"{section}.{name}": value for name, value in values.items()}
        else:
            facts[section] = values
    return facts
