"""One run from its folder to its file: start and resume are the same call, because nothing is kept in memory only."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from trainer.adapters.bank import Bank
from trainer.adapters.blocks import read_blocks
from trainer.adapters.methods import METHODS
from trainer.bases.base import Base
from trainer.bases.compiling import compile_blocks
from trainer.bases.open import load_base
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.errors import ConfigError, ImagesChanged, RunError
from trainer.events import (
    Emit,
    Failed,
    Found,
    Interrupted,
    Notice,
    Phase,
    Planned,
    Started,
    sentence_of,
)
from trainer.hardware import give_back_memory, machine, physical_cores, pick_device, pick_dtype, set_up_threads
from trainer.judging.judge import LEAST_SUBJECTS, Judge, Questions
from trainer.optimizers import OPTIMIZERS
from trainer.presets import resolve
from trainer.training.batches import Batches
from trainer.training.ending import finished, judged_of, written
from trainer.training.export import foretold
from trainer.training.fitting import Fitted, fit
from trainer.training.ladder import shared_out
from trainer.training.log import Log
from trainer.training.loop import Trainer
from trainer.training.measured import PastFits, shape_of
from trainer.training.pausing import Control, Signal, Uncontrolled
from trainer.training.picking import references_of, subjects_of
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.processes import from_main, open_accelerator
from trainer.training.recovery import Recovery
from trainer.training.room import as_found, memory_limit, settle
from trainer.training.run_folder import RunFolder
from trainer.training.samples import Pictures, affordable, due, samples_drawn, sheet_drawn
from trainer.training.steps import Steps, after_kill
from trainer.training.stopping import Watch
from trainer.training.texts import learns_words
from trainer.training.tracking import check_installed, tracked
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
    check_installed(config)
    accelerator = open_accelerator(config.train.device)
    if not accelerator.is_main_process:
        return _train(folder, config, Log(None, lambda event: None), Uncontrolled(), base, accelerator)
    with folder.held(), tracked(folder, config, emit) as told:
        folder.clear_scratch()
        log = Log(folder, told)
        try:
            return _train(folder, config, log, control, base, accelerator)
        except Exception as error:
            changed = isinstance(error, ImagesChanged)
            log.at_last(Failed(step=log.step, message=sentence_of(error), images_changed=changed))
            raise


def _train(
    folder: RunFolder, config: RunConfig, emit: Log, control: Control, base: Base | None, accelerator: Accelerator
) -> Outcome:
    began = time.time()
    base = base or open_base(config, emit, accelerator)
    for warning in base.warnings:
        emit(Notice(text=warning, level="warning"))
    for note in base.notes:
        emit(Notice(text=note))
    emit(Phase(name="reading", detail=config.data.images))
    # Whoever comes second finds what the main process wrote.
    with accelerator.main_process_first():
        dataset = read_dataset(
            folder,
            config,
            base,
            lambda done, total: emit.quietly("reading", done, total),
            note=lambda sentence: emit(Notice(level="warning", text=sentence)),
        )
        emit(_found(dataset))
        config = _resolved(config, base, dataset, accelerator.num_processes)
        set_up_threads(config.train.threads or 1)
        prepared = prepare(
            dataset, config, base, folder.cache, lambda done, total: emit.quietly("caching", done, total)
        )
    bank = Bank(base.roots)
    try:
        with as_found(base):
            add_style(bank, base, config)
            for sentence in foretold(config, base, bank, STYLE):
                emit(Notice(text=sentence))
            emit(Phase(name="measuring"))
            recovery = Recovery(folder.recovery_file)
            # Killed while it was measured, a run has not chosen anything yet.
            asked = config.memory if recovery.changes and config.memory.previews is not None else None
            # What had to be given up before may not fit at first either.
            config = recovery.with_memory(config)
            if recovery.kill is not None:
                change = after_kill(recovery.kill, config, base, accelerator.num_processes)
                recovery.add(change, write=accelerator.is_main_process)
                emit(Notice(level="warning", text=change.said))
                config = recovery.with_memory(config)
            shape = shape_of(config, base, prepared.training, prepared.features, accelerator.num_processes)
            trainer, config = _fitted(config, base, bank, prepared, accelerator, emit, shape)
            steps = Steps(
                trainer,
                folder,
                config,
                asked or config.memory,
                recovery,
                Pictures(folder, config, dataset, trainer, emit, emit.drawing),
                _validation(base, prepared, config),
                emit,
                emit.at,
            )
            if accelerator.is_main_process:
                folder.write_config(config.model_copy(update={"memory": steps.asked_memory}))
            steps.restore()
            emit(Started(step=trainer.step, steps=trainer.settings.steps))
            signal = steps.run(_watched(control, trainer, folder, config, dataset, prepared, emit))
            _paced(trainer, recovery, shape)
            if signal is Signal.PAUSE:
                emit(Interrupted(step=trainer.step, reason="paused"))
                return Outcome("paused", trainer.step)
            if not accelerator.is_main_process:
                return Outcome("finished", trainer.step, folder.adapter_file)
            done_at = time.monotonic()
            emit(Phase(name="sampling"))
            if not due(config.samples.every or 0, trainer.step, trainer.settings.steps):
                # Stopped between two samples: what is shown as the end must be the end.
                steps.pictures.samples(trainer.step)
            judged = judged_of(trainer, folder, config, dataset, prepared, emit)
            proof = written(trainer, steps.pictures, folder, config, dataset, judged, began, emit)
            _remember(shape, seconds_after=time.monotonic() - done_at)
    finally:
        bank.detach()
        give_back_memory()
    emit(finished(trainer, folder, config, proof, judged, began))
    return Outcome("finished", trainer.step, folder.adapter_file)


def _watched(
    control: Control,
    trainer: Trainer,
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    prepared: Prepared,
    emit: Log,
) -> Control:
    """Who is asked between steps: also early stopping, where that is on and there is something to compare with."""
    train = config.train
    if train.stop_when == "never" or not trainer.accelerator.is_main_process:
        return control
    shown = references_of(trainer.base, dataset, prepared, config)
    subjects = subjects_of(trainer.base, dataset, config)
    if min(len(shown), len(subjects)) < 2:
        return control
    questions = Questions(subjects=tuple(subjects[:LEAST_SUBJECTS]), trigger=config.trigger)
    return Watch(
        trainer,
        folder,
        control,
        lambda: Judge(trainer.base, trainer.bank, trainer.style, shown, questions),
        rule=train.stop_when,
        floor=train.stop_floor or 1,
        every=train.checkpoint_every or 1,
        said=lambda sentence: emit(Notice(text=sentence)),
    )


def open_base(config: RunConfig, emit: Emit, accelerator: Accelerator) -> Base:
    """The run's base on the device it trains on."""
    device = pick_device(config.train.device) if accelerator.num_processes == 1 else accelerator.device
    emit(Phase(name="loading", detail=config.base.source))
    return load_base(
        config.base,
        device=device,
        dtype=pick_dtype(device, config.train.precision),
        offline=config.train.offline,
        memory_limit=memory_limit(config, device),
        report=lambda sentence: emit(Notice(text=sentence)),
    )


def _resolved(config: RunConfig, base: Base, dataset: Dataset, processes: int) -> RunConfig:
    """The settings with nothing left to choose: a second start finds them all and chooses nothing again.

    Raises:
        ConfigError: a step's images cannot be shared by so many processes, or a style without a trigger is to stay
            behind it.
    """
    if config.train.preserve and not config.trigger.strip():
        raise ConfigError(
            f"train.preserve is {config.train.preserve}, but there is no trigger that the style could stay behind: "
            "give the run a trigger, or set train.preserve to 0."
        )
    count = len(dataset.examples)
    kept_out = held_out(count, config.data.validation_share, config.train.seed)
    if config.train.threads is None:
        config.train.threads = max(1, physical_cores() // (processes if base.device.type == "cpu" else 1))
    if config.optim.learning_rate is None:
        config.optim.learning_rate = OPTIMIZERS[config.optim.optimizer].usual_rate
    asked = config.optim.batch_size
    config = resolve(config, base.family, resolution=base.resolution, images=count - len(kept_out))
    return shared_out(config, processes, free=asked is None)


def add_style(bank: Bank, base: Base, config: RunConfig, name: str = STYLE) -> None:
    """Attach the adapter that a resolved config asks for, untrained.

    Raises:
        ConfigError: its targets match no layer, a layer has no room for its rank, or words are to be trained that are
            not there.
    """
    adapter = config.adapter
    assert adapter.rank is not None
    assert adapter.targets is not None
    bank.add(
        name,
        adapter.targets,
        rank=adapter.rank,
        alpha=adapter.alpha,
        method=adapter.method,
        settings=adapter.model_dump(),
        dropout=adapter.dropout,
        seed=config.train.seed,
        blocks=read_blocks(adapter.blocks),
        tokens=_trigger_tokens(base, config) if METHODS[adapter.method].site == "words" else None,
    )


def _trigger_tokens(base: Base, config: RunConfig) -> dict[str, tuple[int, ...]]:
    """Ids of the trigger's tokens, which are to be trained, by text encoder."""
    method = config.adapter.method
    for setting, value in (("adapter.dropout", config.adapter.dropout), ("train.preserve", config.train.preserve)):
        if value:
            raise ConfigError(
                f"{setting} is {value}, but adapter.method {method!r} changes nothing but the trigger's words, so that "
                "there is nothing to drop out or to preserve: set it to 0."
            )
    tokens = base.tokens_of(config.trigger)
    count = max(map(len, tokens.values()), default=0)
    if not count:
        raise ConfigError(f"adapter.method is {method!r}, which trains the trigger's words, but there is no trigger.")
    if count > base.window_tokens:
        raise ConfigError(
            f"adapter.method is {method!r}, which trains the trigger's words, but this trigger has {count} tokens, of "
            f"which the base reads {base.window_tokens} at once: choose a shorter one."
        )
    return tokens


def _fitted(
    config: RunConfig,
    base: Base,
    bank: Bank,
    prepared: Prepared,
    accelerator: Accelerator,
    emit: Emit,
    shape: str,
) -> tuple[Trainer, RunConfig]:
    """A trainer that fits, with the settings it was made for: measured by the main process, and the same in all."""

    def made(settings: RunConfig) -> Trainer:
        return trainer_of(base, bank, prepared, settings, accelerator)

    if accelerator.is_main_process:
        past = PastFits()
        known = past.get(shape)
        fitted = fit(config, base, made, processes=accelerator.num_processes, known=known)
        if known is None:
            past.note(shape, fitted.known)
        seconds = fitted.measured.seconds_per_step * fitted.trainer.settings.steps
        settings, said = affordable(fitted.config, fitted.seconds_per_picture, seconds)
        fitted = replace(fitted, config=settings, notes=(*fitted.notes, *([said] if said else [])))
        emit(_plan(fitted, prepared))
        return fitted.trainer, from_main(accelerator, fitted.config)
    config = from_main(accelerator, None)
    settle(base, config.memory)
    if config.train.compile == "blocks":
        compile_blocks(base.denoiser)
    return made(config), config


def _paced(trainer: Trainer, recovery: Recovery, shape: str) -> None:
    """Remember how long steps took in the training itself, for the plan of the next run of this shape."""
    if trainer.pace is not None and not recovery.changes and trainer.accelerator.is_main_process:
        _remember(shape, seconds_per_step=trainer.pace)


def _remember(shape: str, **took: float) -> None:
    past = PastFits()
    known = past.get(shape)
    if known is not None:
        past.note(shape, replace(known, **took))  # type: ignore[arg-type]


def trainer_of(base: Base, bank: Bank, prepared: Prepared, config: RunConfig, accelerator: Accelerator) -> Trainer:
    """A trainer of the style in ``bank`` at step 0."""
    batches = Batches(
        base,
        prepared.training,
        prepared.told(base, anew=learns_words(bank, STYLE)),
        batch_size=config.optim.batch_size or 1,
        accumulation=config.optim.gradient_accumulation,
        images_per_pass=config.images_per_pass,
        seed=config.train.seed,
        caption_dropout=config.data.caption_dropout,
        preserve=config.train.preserve,
        noise_offset=config.train.noise_offset,
        noise_levels=config.train.noise_levels,
    )
    return Trainer(base, bank, STYLE, batches, config, accelerator=accelerator)


def _validation(base: Base, prepared: Prepared, config: RunConfig) -> Validation | None:
    if not prepared.validation:
        return None
    return Validation(base, prepared.validation, prepared.features, seed=config.train.seed)


def _plan(fitted: Fitted, prepared: Prepared) -> Planned:
    """What is about to happen, with time and memory as measured on a few real passes and a picture."""
    trainer, config, measured = fitted.trainer, fitted.config, fitted.measured
    steps = trainer.settings.steps
    has = machine(trainer.base.device)
    adapter, batches = trainer.bank[STYLE], trainer.batches
    return Planned(
        images=len(prepared.training),
        held_out=len(prepared.validation),
        steps=steps,
        batch_size=batches.batch_size * batches.accumulation,
        resolution=config.data.resolution or trainer.base.resolution,
        rank=adapter.spec.rank,
        learning_rate=trainer.settings.peak_rate,
        trainable_parameters=adapter.size,
        layers=len(adapter.spec.targets),
        file_bytes=BYTES_PER_VALUE * sum(layer.size for layer in trainer.bank.weights_of(STYLE).values()),
        seconds=_whole_time(fitted, steps),
        memory_bytes=measured.memory_bytes,
        memory_available_bytes=has.with_ours(measured.memory_bytes),
        device=has.name,
        base=trainer.base.title,
        notes=fitted.notes,
    )


PROOF_SAMPLES = 7
"""Writing the file and proving it takes as long as about so many training samples: 62 s where one took 9."""


def _whole_time(fitted: Fitted, steps: int) -> float:
    """Seconds from the first step to the file: as the last run of this shape took from its last step on, else reckoned.

    Judging is counted with the most that it may cost.
    """
    config, trainer, measured = fitted.config, fitted.trainer, fitted.measured
    training = measured.seconds_per_step * steps
    until_then = training + fitted.seconds_per_picture * samples_drawn(config, steps)
    if fitted.seconds_after is not None:
        return until_then + fitted.seconds_after
    sample = measured.seconds_per_step / (trainer.batches.batch_size * trainer.batches.accumulation)
    judging = config.judging.share * training if config.judging.enabled else 0.0
    return until_then + judging + fitted.seconds_per_picture * sheet_drawn(config) + PROOF_SAMPLES * sample


def _found(dataset: Dataset) -> Found:
    return Found(images=len(dataset.examples), findings=dataset.findings)
