"""A study from its plan to its file: as many arms in one pass as there is room for, and nothing is done twice.

The folder holds ``study.json``, which grows as arms are done, a style file for each of them, and while arms are in
training a checkpoint of each.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.errors import ConfigError, DoesNotFit
from trainer.events import Emit, Notice
from trainer.judging.judge import MOST_SUBJECTS, Judge, Questions
from trainer.presets import resolve
from trainer.randomness import stable_seed
from trainer.study import result
from trainer.study.arms import Arm, Kind, arms_of
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
    steps_within,
    trainer_of_arm,
    with_held_out,
)
from trainer.study.result import Measured, Study
from trainer.training import checkpoint as checkpoints
from trainer.training.ladder import step_down
from trainer.training.loop import Diverged, Trainer
from trainer.training.picking import references_of, subjects_of
from trainer.training.prepare import Prepared
from trainer.training.room import as_found, settle, tidy
from trainer.training.together import train_together
from trainer.training.validation import LEVELS, Validation
from trainer.version import __version__

IN_TRAINING = "in_training"


def run(
    kind: Kind,
    config: RunConfig,
    folder: Path,
    *,
    seeds: int = 3,
    ranks: Sequence[int] = (),
    scores: bool = False,
    together: int | None = None,
    within: float | None = None,
    emit: Emit = lambda event: None,
    told: Callable[[Pace], None] = lambda pace: None,
    base: Base | None = None,
) -> Study:
    """Do a study, or what is left of it in its folder.

    Args:
        config: what all arms share; ``train.seed`` is the first seed, the others follow it. Without a
            ``data.validation_share`` it is `USUAL_SHARE`.
        folder: made when it is not there; an earlier call's study in it goes on.
        ranks: of a study of ranks.
        scores: also judge what each arm draws (`trainer.judging`).
        together: most arms in one pass; None is as many as memory has room for, `MOST_TOGETHER` at most.
        within: seconds that the study may take: each arm is then trained fewer steps where the pace, measured before,
            is too slow for those of ``config``. A study that goes on keeps its steps.
        told: of the pace, a few times a second.
        base: that of ``config`` when it is loaded already; it is left as it was.

    Raises:
        PatinaError: something the user can mend; the folder keeps what was done.
    """
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}, but a study needs at least 1.")
    config = with_held_out(config)
    with opened(config, folder, emit, base) as (base, dataset, prepared):
        arms = arms_of(kind, base, config, ranks)
        earlier = result.read(folder)
        if within is not None:
            config = _within(within, config, base, prepared, arms, seeds, earlier, emit)
        planned = _planned(kind, config, base, dataset, prepared, arms, seeds)
        study = planned if earlier is None else planned.going_on(earlier)
        result.write(study, folder)
        bench = _Bench(base, prepared, dataset, config, folder, study, scores, together, emit, told)
        try:
            with as_found(base):
                settle(base, config.memory)
                bench.work()
        finally:
            bench.bank.detach()
    return bench.study


def _within(
    seconds: float,
    config: RunConfig,
    base: Base,
    prepared: Prepared,
    arms: Sequence[Arm],
    seeds: int,
    earlier: Study | None,
    emit: Emit,
) -> RunConfig:
    """The settings with as many steps as a study of these arms has time for, by real steps of the first."""
    shorter = config.model_copy(deep=True)
    if earlier is not None:
        shorter.train.steps = int(earlier.settings["train"]["steps"])
        return shorter
    common = resolve(config, base.family, resolution=base.resolution, images=len(prepared.training))
    asked, batch = common.train.steps or 1, common.optim.batch_size or 1
    bank = Bank(base.roots)
    step = None
    try:
        with as_found(base):
            settle(base, config.memory)
            for arm in arms:
                try:
                    trainer, _ = trainer_of_arm(
                        bank, base, prepared, config, arm.name, arm.changes, images_per_pass=config.memory.micro_batch
                    )
                except ConfigError:
                    continue
                _, step = room_for(trainer, config)
                break
    finally:
        bank.detach()
    if step is None:
        return shorter
    # A pass forward takes about a third of a step, and an arm's grids see each held-out image at every level.
    rows = DRAWS * LEVELS * len(prepared.validation)
    measuring = rows * step / (3 * batch * common.optim.gradient_accumulation)
    shorter.train.steps = steps_within(seconds, asked, arms=len(arms) * seeds, step=step, measuring=measuring)
    if shorter.train.steps < asked:
        emit(
            Notice(
                text=f"{asked} steps each would take longer than {seconds / 60:.0f} minutes here: each is trained "
                f"{shorter.train.steps} steps."
            )
        )
    return shorter


def _planned(
    kind: Kind,
    config: RunConfig,
    base: Base,
    dataset: Dataset,
    prepared: Prepared,
    arms: Sequence[Arm],
    seeds: int,
) -> Study:
    return Study(
        kind=kind,
        version=__version__,
        style=config.name,
        base=base.title,
        base_sha256=base.identity,
        dataset=fingerprint(dataset),
        settings=common_settings(config, base, prepared),
        training=len(prepared.training),
        held_out=len(prepared.validation),
        draws=DRAWS,
        seeds=tuple(config.train.seed + number for number in range(seeds)),
        arms=result.facts_of(arms),
    )


class _Bench:
    """Where the arms are trained and measured; ``study`` is what is done so far."""

    def __init__(
        self,
        base: Base,
        prepared: Prepared,
        dataset: Dataset,
        config: RunConfig,
        folder: Path,
        study: Study,
        scores: bool,
        together: int | None,
        emit: Emit,
        told: Callable[[Pace], None],
    ) -> None:
        self.base, self.prepared, self.dataset, self.config = base, prepared, dataset, config
        self.folder, self.study, self.scores, self.emit = folder, study, scores, emit
        self.most = together
        self.bank = Bank(base.roots)
        self.memory = config.memory
        self.configs: dict[str, RunConfig] = {}
        self.judge: Judge | None = None
        self.grids = [
            Validation(base, prepared.validation, prepared.features, seed=stable_seed(config.train.seed, "study", draw))
            for draw in range(study.draws)
        ]
        steps = int(study.settings["train"]["steps"])
        self.total = steps * sum(len(study.missing(seed)) for seed in study.seeds)
        self.done = 0
        self.teller = Teller(told)
        if scores and len(prepared.training) < 2:
            raise ConfigError("--scores compares pictures with the training images, and needs at least two of them.")

    def work(self) -> None:
        """Train and measure what is missing, all arms with one seed before the next."""
        for seed in self.study.seeds:
            if self.most is None and self.study.missing(seed):
                self.most = self._room(self.study.missing(seed), seed)
            while arms := self.study.missing(seed):
                self.wave(arms[: self.most], seed)
        shutil.rmtree(self.folder / IN_TRAINING, ignore_errors=True)

    def wave(self, arms: Sequence[result.ArmFacts], seed: int) -> None:
        """Train some arms with one seed in shared passes, measure them, and write that down."""
        began = time.monotonic()
        trainers = [trainer for arm in arms if (trainer := self._trainer(arm, seed)) is not None]
        for trainer in trainers:
            self._go_on_from_checkpoint(trainer, seed)
        told = tuple(trainer.style for trainer in trainers)
        alongside = len(trainers)
        while trainers:
            try:
                self._train(trainers, lambda: self.teller.tell(told, seed, self.done, self.total))
                break
            except Diverged as trouble:
                for trainer in [t for t in trainers if t.style in trouble.styles]:
                    trainers.remove(trainer)
                    self._give_up(trainer, seed, "came apart: its loss was no longer a number")
        seconds = (time.monotonic() - began) / max(1, alongside)
        for trainer in trainers:
            self._finish(trainer, seed, seconds, alongside)
        for trainer in trainers:
            self._forget(trainer, seed)

    def _trainer(self, arm: result.ArmFacts, seed: int) -> Trainer | None:
        """A trainer of an arm in the bank, at step 0; None when it cannot be trained on this base, which is noted."""
        name = f"{self.study.style[:40]} {arm.name} seed {seed}"
        changes = {**arm.changes, "train.seed": seed, "name": name}
        try:
            trainer, config = trainer_of_arm(
                self.bank,
                self.base,
                self.prepared,
                self.config,
                arm.name,
                changes,
                images_per_pass=self.memory.micro_batch,
            )
        except ConfigError as error:
            rank = arm.changes.get("adapter.rank") or self.study.settings["adapter"]["rank"] or 0
            self._note(Measured(arm=arm.name, seed=seed, values=0, layers=0, rank=rank, note=str(error)))
            return None
        self.configs[arm.name] = config
        return trainer

    def _go_on_from_checkpoint(self, trainer: Trainer, seed: int) -> None:
        found, _ = checkpoints.newest(self._resting(trainer, seed))
        if found is not None:
            trainer.restore(found)
            self.done += trainer.step

    def _train(self, trainers: Sequence[Trainer], tell: Callable[[], None]) -> None:
        """All steps of all trainers; where memory runs out, fewer at once or a step in smaller parts."""
        try:
            self._advance(trainers, tell)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            trouble = MemoryError(str(error))
        else:
            return
        for trainer in trainers:
            trainer.optimizer.zero_grad(set_to_none=True)
        tidy(self.base.device)
        if len(trainers) > 1:
            self.most = middle = len(trainers) // 2
            self.emit(Notice(level="warning", text=f"Memory ran out: from here on {middle} arms at most share a pass."))
            for half in (trainers[:middle], trainers[middle:]):
                self._train(half, tell)
            return
        config = self.configs[trainers[0].style].model_copy(update={"memory": self.memory})
        lower = step_down(config, self.base.levels)
        if lower is None:
            raise DoesNotFit(
                "Memory ran out although every saving is in use: close other programs, or study a smaller base or "
                "data.resolution. What is done stays in the folder."
            ) from trouble
        self.memory = self.memory.model_copy(
            update={
                "micro_batch": lower.micro_batch,
                "checkpoint_levels": lower.checkpoint_levels,
                "park_encoders": lower.park_encoders,
            }
        )
        settle(self.base, self.memory)
        trainers[0].batches.images_per_pass = lower.micro_batch
        self._train(trainers, tell)

    def _advance(self, trainers: Sequence[Trainer], tell: Callable[[], None]) -> None:
        """Train to the end, and save where they stand once a minute."""

        def after_step(trainer: Trainer, loss: float) -> None:
            self.done += 1
            tell()

        while any(trainer.step < trainer.settings.steps for trainer in trainers):
            train_together(trainers, go_on=self._for_a_minute(), after_step=after_step)
            for trainer in trainers:
                if trainer.step < trainer.settings.steps:
                    where = self._resting(trainer, trainer.settings.seed)
                    checkpoints.save(trainer.checkpoint(), where, keep=1)

    def _for_a_minute(self) -> Callable[[], bool]:
        """Whether to go on without saving: for a minute, but for one step at least."""
        before, until = self.done, time.monotonic() + SAVE_SECONDS
        return lambda: self.done == before or time.monotonic() < until

    def _finish(self, trainer: Trainer, seed: int, seconds: float, alongside: int) -> None:
        """Measure an arm that is trained, keep its style, and write both down."""
        name = trainer.style
        with trainer.as_exported():
            found = [grid.measure(trainer) for grid in self.grids]
            scores = self._scores(trainer) if self.scores else {}
        loss, base_loss = fmean(each.style for each in found), fmean(each.base for each in found)
        if not math.isfinite(loss):
            return self._give_up(trainer, seed, "came apart: its loss is no number", forget=False)
        file = Path("styles") / f"{slug(name)}-{seed}.safetensors"
        (self.folder / "styles").mkdir(exist_ok=True)
        keep_style(trainer, self.configs[name], self.dataset, self.folder / file)
        self._note(
            Measured(
                **_size(trainer),
                seed=seed,
                loss=loss,
                by_level=tuple(map(fmean, zip(*(each.by_level for each in found), strict=True))),
                scores=scores,
                seconds=seconds,
                alongside=alongside,
                file=file.as_posix(),
            ),
            base_loss,
        )
        return None

    def _give_up(self, trainer: Trainer, seed: int, why: str, *, forget: bool = True) -> None:
        self._note(Measured(**_size(trainer), seed=seed, note=why))
        self.emit(Notice(level="warning", text=f"{trainer.style}, seed {seed}, {why}."))
        if forget:
            self.done += trainer.settings.steps - trainer.step
            self._forget(trainer, seed)

    def _note(self, measured: Measured, base_loss: float | None = None) -> None:
        self.study = self.study.with_measured(measured, self.study.base_loss if base_loss is None else base_loss)
        result.write(self.study, self.folder)

    def _forget(self, trainer: Trainer, seed: int) -> None:
        self.bank.remove(trainer.style)
        shutil.rmtree(self._resting(trainer, seed), ignore_errors=True)

    def _scores(self, trainer: Trainer) -> dict[str, float]:
        if self.judge is None:
            subjects = subjects_of(self.base, self.dataset, self.config)
            self.judge = Judge(
                self.base,
                self.bank,
                trainer.style,
                references_of(self.base, self.dataset, self.prepared, self.config),
                Questions(subjects=tuple(subjects[:MOST_SUBJECTS]), trigger=self.config.trigger),
            )
        self.judge.style = trainer.style
        self.judge.suspect()
        candidate, _ = self.judge.at(trainer.step, (1.0,))[0]
        return {
            "style": candidate.style_mean,
            "subject": candidate.subject_mean,
            "copying": max(candidate.nearness),
            "recall": max(candidate.recall),
            "drift": candidate.drift,
            "variety": candidate.variety,
        }

    def _room(self, arms: Sequence[result.ArmFacts], seed: int) -> int:
        """How many arms memory has room for in one pass, by real passes of the first that can be trained."""
        trainer = next((found for arm in arms if (found := self._trainer(arm, seed)) is not None), None)
        if trainer is None:
            return 1
        room, _ = room_for(trainer, self.config)
        self.bank.remove(trainer.style)
        return room

    def _resting(self, trainer: Trainer, seed: int) -> Path:
        """Where an arm's checkpoint lies while it is in training."""
        return self.folder / IN_TRAINING / f"{slug(trainer.style)}-{seed}"


def _size(trainer: Trainer) -> dict[str, object]:
    adapter = trainer.bank[trainer.style]
    values = sum(p.numel() for _, p in adapter.parameters if p.requires_grad)
    return {"arm": trainer.style, "values": values, "layers": len(adapter.spec.targets), "rank": adapter.spec.rank}
