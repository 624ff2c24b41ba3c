"""One run from its folder to its file: start and resume are the same call, because nothing is kept in memory only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.load import load_base
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.errors import RunError
from trainer.events import (
    Emit,
    Event,
    Failed,
    Finished,
    Found,
    Interrupted,
    Notice,
    Phase,
    Planned,
    Saved,
    Started,
    Validated,
    sentence_of,
)
from trainer.hardware import machine, physical_cores, pick_device, pick_dtype, set_up_threads
from trainer.presets import resolve
from trainer.training import checkpoint as checkpoints
from trainer.training.batches import Batches
from trainer.training.export import export
from trainer.training.fitting import Fitted, as_found, fit, memory_limit
from trainer.training.loop import Trainer
from trainer.training.pausing import Control, Signal
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder
from trainer.training.samples import Pictures, due, pictures_drawn
from trainer.training.validation import Validation, held_out

STYLE = "style"
"""The name of the adapter in training within its bank."""
BYTES_PER_VALUE = 4
"""The file holds fp32, so that what is shared is exactly what was trained."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended; ``adapter`` is the file of a finished one."""

    state: Literal["finished", "paused"]
    step: int
    adapter: Path | None = None


def create(config: RunConfig, path: Path) -> RunFolder:
    """Make a run folder with its settings, ready for `train`.

    Raises:
        RunError: the folder holds something already, or cannot be made.
    """
    folder = RunFolder(path)
    if folder.exists():
        raise RunError(f"{path} holds a run already: resume it with --resume, or choose another folder.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} is not an empty folder: choose another one, so that nothing is overwritten.")
    try:
        folder.write_config(config)
    except OSError as error:
        raise RunError(f"The folder {path} cannot be made: {error.strerror or error}.") from None
    return folder


def train(folder: RunFolder, *, emit: Emit, control: Control, base: Base | None = None) -> Outcome:
    """Train a run from where it stands to its verified file.

    Args:
        folder: from `create`, or of a run that was paused or killed.
        emit: told of everything; the same events lie in the folder's ``events.jsonl``.
        control: asked between steps.
        base: the run's base when it is loaded already; it is left as it was.

    Raises:
        PatinaError: something the user can mend; the folder keeps what was learned.
    """
    config = folder.config()
    with folder.held():
        log = _Log(folder, emit)
        try:
            return _train(folder, config, log, control, base)
        except Exception as error:
            log(Failed(step=log.step, message=sentence_of(error)))
            raise


def _train(folder: RunFolder, config: RunConfig, emit: _Log, control: Control, base: Base | None) -> Outcome:
    began = time.time()
    base = base or _open_base(config, emit)
    for note in base.notes:
        emit(Notice(text=note))
    emit(Phase(name="reading", detail=config.data.images))
    dataset = read_dataset(folder, config, base, lambda done, total: emit.quietly("reading", done, total))
    emit(_found(dataset))
    config = _resolved(config, base, dataset)
    set_up_threads(config.train.threads or 1)
    materials = prepare(dataset, config, base, folder.cache, lambda done, total: emit.quietly("caching", done, total))
    bank = Bank(base.roots)
    try:
        with as_found(base):
            _add_style(bank, config)
            emit(Phase(name="measuring"))
            fitted = fit(config, base, lambda settings: _trainer(base, bank, materials, settings))
            trainer, config = fitted.trainer, fitted.config
            emit(_plan(fitted, materials))
            folder.write_config(config)
            _restore(trainer, folder, emit)
            pictures = Pictures(folder, config, dataset, trainer, emit)
            signal = _learn(trainer, pictures, _validation(base, materials, config), folder, config, emit, control)
            if signal is Signal.PAUSE:
                emit(Interrupted(step=trainer.step, reason="paused"))
                return Outcome("paused", trainer.step)
            emit(Phase(name="sampling"))
            if not due(config.samples.every or 0, trainer.step, trainer.settings.steps):
                # Stopped between two samples: what is shown as the end must be the end.
                pictures.samples(trainer.step)
            thumbnail = pictures.sheet()
            emit(Phase(name="exporting"))
            proof = export(folder, config, dataset, trainer, started_at=began, thumbnail=thumbnail)
    finally:
        bank.detach()
    emit(
        Finished(
            step=trainer.step,
            adapter=folder.adapter_file.name,
            sheet=folder.sheet_file.name,
            verified=tuple(f"{tick.name}: {tick.detail}" for tick in proof.ticks),
            seconds=time.time() - began,
        )
    )
    return Outcome("finished", trainer.step, folder.adapter_file)


def _open_base(config: RunConfig, emit: Emit) -> Base:
    device = pick_device(config.train.device)
    emit(Phase(name="loading", detail=config.base.source))
    return load_base(
        config.base,
        device=device,
        dtype=pick_dtype(device, config.train.precision),
        offline=config.train.offline,
        memory_limit=memory_limit(config, device),
        report=lambda sentence: emit(Notice(text=sentence)),
    )


def _resolved(config: RunConfig, base: Base, dataset: Dataset) -> RunConfig:
    """The settings with nothing left to choose: a second start finds them all and chooses nothing again."""
    count = len(dataset.examples)
    kept_out = held_out(count, config.data.validation_share, config.train.seed)
    if config.train.threads is None:
        config.train.threads = physical_cores()
    return resolve(config, base.family, resolution=base.resolution, images=count - len(kept_out))


def _add_style(bank: Bank, config: RunConfig) -> None:
    adapter = config.adapter
    assert adapter.rank is not None
    bank.add(
        STYLE,
        adapter.targets,
        rank=adapter.rank,
        alpha=adapter.alpha,
        method=adapter.method,
        dropout=adapter.dropout,
        seed=config.train.seed,
    )


def _trainer(base: Base, bank: Bank, materials: Prepared, config: RunConfig) -> Trainer:
    batches = Batches(
        base,
        materials.training,
        materials.features,
        batch_size=config.images_per_pass,
        accumulation=config.passes_per_step,
        seed=config.train.seed,
        caption_dropout=config.data.caption_dropout,
    )
    return Trainer(base, bank, STYLE, batches, config)


def _validation(base: Base, materials: Prepared, config: RunConfig) -> Validation | None:
    if not materials.validation:
        return None
    return Validation(base, materials.validation, materials.features, seed=config.train.seed)


def _plan(fitted: Fitted, materials: Prepared) -> Planned:
    """What is about to happen, with time and memory as measured on a few real passes and a picture."""
    trainer, config, measured = fitted.trainer, fitted.config, fitted.measured
    steps = trainer.settings.steps
    has = machine(trainer.base.device)
    adapter, batches = trainer.bank[STYLE], trainer.batches
    return Planned(
        images=len(materials.training),
        held_out=len(materials.validation),
        steps=steps,
        batch_size=batches.batch_size * batches.accumulation,
        resolution=config.data.resolution or trainer.base.resolution,
        rank=adapter.spec.rank,
        learning_rate=trainer.settings.peak_rate,
        trainable_parameters=adapter.size,
        layers=len(adapter.spec.targets),
        file_bytes=BYTES_PER_VALUE * adapter.size,
        seconds=measured.seconds_per_step * steps + fitted.seconds_per_picture * pictures_drawn(config, steps),
        memory_bytes=measured.memory_bytes,
        memory_available_bytes=has.available + measured.memory_bytes,
        device=has.name,
        base=trainer.base.title,
        notes=fitted.notes,
    )


def _restore(trainer: Trainer, folder: RunFolder, emit: _Log) -> None:
    found, torn = checkpoints.newest(folder.checkpoints)
    for sentence in torn:
        emit(Notice(level="warning", text=sentence))
    if found is not None:
        trainer.restore(found)
    emit.step = trainer.step
    emit(Started(step=trainer.step, steps=trainer.settings.steps))


def _learn(
    trainer: Trainer,
    pictures: Pictures,
    validation: Validation | None,
    folder: RunFolder,
    config: RunConfig,
    emit: _Log,
    control: Control,
) -> Signal:
    """The training steps, with checkpoints, samples and validation where they are due."""
    steps, every = trainer.settings.steps, config.samples.every or 0

    def save() -> None:
        path = checkpoints.save(trainer.checkpoint(), folder.checkpoints, keep=config.train.keep_checkpoints)
        emit(Saved(step=trainer.step, path=path.relative_to(folder.path).as_posix()))

    def after_step(step: int) -> None:
        emit.step = step
        if due(config.train.checkpoint_every or 0, step, steps):
            save()
        if due(every, step, steps):
            pictures.samples(step)
            if validation is not None:
                losses = validation.measure(trainer)
                emit(Validated(step=step, loss=losses.style, base_loss=losses.base))

    if trainer.step == 0 and every:
        emit(Phase(name="sampling"))
        pictures.samples(0)
    emit(Phase(name="training"))
    signal = trainer.run(control=control, emit=emit, after_step=after_step)
    if signal is not Signal.GO:
        save()
    return signal


class _Log:
    """Writes every event into the run's folder and passes it on; knows the step for those who do not."""

    def __init__(self, folder: RunFolder, emit: Emit) -> None:
        self.folder, self.forward = folder, emit
        self.step = 0

    def __call__(self, event: Event) -> None:
        self.folder.append(event)
        self.forward(event)

    def quietly(self, name: Literal["reading", "caching"], done: int, total: int) -> None:
        """Progress that is worth showing but not worth keeping."""
        self.forward(Phase(name=name, done=done, total=total))


def _found(dataset: Dataset) -> Found:
    return Found(images=len(dataset.examples), findings=dataset.findings)
