"""Judging a run again after it has ended, or keeping another of its states than was recommended."""

from __future__ import annotations

import time

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.errors import RunError
from trainer.events import Emit
from trainer.hardware import set_up_threads
from trainer.judging.judgement import Judgement
from trainer.safetensors_file import read_header
from trainer.training import checkpoint as checkpoints
from trainer.training import picking
from trainer.training.ending import finished, judged_of, written
from trainer.training.log import Log
from trainer.training.prepare import prepare, read_dataset
from trainer.training.processes import open_accelerator
from trainer.training.room import as_found, settle
from trainer.training.run import add_style, open_base, trainer_of
from trainer.training.run_folder import RunFolder
from trainer.training.samples import Pictures


def judge_again(
    folder: RunFolder, *, emit: Emit, keep: tuple[int, float] | None = None, base: Base | None = None
) -> Judgement:
    """Judge a finished run's kept states again, or keep another one than was recommended; the file is written anew.

    Args:
        folder: of a run that has trained to its end or was stopped.
        emit: told of progress; what it is told is also in the run's log.
        keep: step and strength to keep; None judges anew and keeps what is recommended.
        base: the run's base, opened already; None opens it.

    Raises:
        RunError: the run is not finished, or that step is not kept or was not judged.
        PatinaError: as `train`.
    """
    config = folder.config()
    if not folder.adapter_file.is_file():
        raise RunError(f"{folder.path} has no style file yet: let its training end first.")
    with folder.held():
        log = Log(folder, emit)
        began = time.time()
        accelerator = open_accelerator(config.train.device)
        if base is None:
            base = open_base(config, log, accelerator)
        dataset = read_dataset(folder, config, base)
        set_up_threads(config.train.threads or 1)
        prepared = prepare(dataset, config, base, folder.cache)
        bank = Bank(base.roots)
        try:
            with as_found(base):
                add_style(bank, base, config)
                settle(base, config.memory)
                trainer = trainer_of(base, bank, prepared, config, accelerator)
                last, _ = checkpoints.newest(folder.checkpoints)
                if last is None:
                    raise RunError(f"{folder.path} keeps no saved state to judge: train it again to choose among some.")
                trainer.restore(last)
                if keep is None:
                    judged = judged_of(trainer, folder, config, dataset, prepared, log, anyway=True)
                    if judged is None:
                        raise RunError("There is nothing to choose among: one saved state, or one training image.")
                else:
                    judged = picking.keep(trainer, folder, *keep)
                pictures = Pictures(folder, config, dataset, trainer, log, log.drawing)
                proof = written(trainer, pictures, folder, config, dataset, judged, _begun_at(folder) or began, log)
        finally:
            bank.detach()
        log(finished(trainer, folder, config, proof, judged, began))
    return judged


def _begun_at(folder: RunFolder) -> float | None:
    """When the run first began, as its file says; None where that says nothing."""
    try:
        return float(read_header(folder.adapter_file, RunError).metadata["ss_training_started_at"])
    except (KeyError, ValueError, RunError):
        return None
