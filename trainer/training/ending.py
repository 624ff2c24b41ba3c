"""The end of a run: what is kept of it is judged, drawn, written and proved."""

from __future__ import annotations

import time

from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.events import Emit, Finished, Notice, Phase, Recommended
from trainer.judging.judgement import Judgement
from trainer.styles.verify import Verification
from trainer.training import picking
from trainer.training.export import export
from trainer.training.log import Log
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared
from trainer.training.recovery import Recovery
from trainer.training.room import if_it_fits
from trainer.training.run_folder import RunFolder
from trainer.training.samples import Pictures
from trainer.training.stopping import stopped


def judged_of(
    trainer: Trainer,
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    prepared: Prepared,
    emit: Log,
    *,
    anyway: bool = False,
) -> Judgement | None:
    """The judgement of the kept states; the trainer then exports the one that is recommended."""
    if not config.judging.enabled and not anyway:
        return None

    def told(done: int, total: int) -> None:
        emit.quietly("judging", done, total)

    found = if_it_fits(
        trainer.base, lambda: (picking.judge(trainer, folder, config, dataset, prepared, told=told, anyway=anyway),)
    )
    if found is None:
        said = "Memory ran out while judging: the style is kept as it was at the last step, and can be judged later."
        emit(Notice(level="warning", text=said))
        return None
    (judged,) = found
    if judged is not None:
        picking.choose(trainer, folder, judged.step)
        emit(
            Recommended(
                at_step=judged.step,
                strength=judged.strength,
                confidence=judged.confidence,
                sentence=judged.sentence,
            )
        )
    return judged


def written(
    trainer: Trainer,
    pictures: Pictures,
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    judged: Judgement | None,
    began: float,
    emit: Emit,
) -> Verification:
    """The sheet and the file of what is exported, proved."""
    strength = None if judged is None else judged.kept[1]
    thumbnail = pictures.sheet(strength or 1.0)
    emit(Phase(name="exporting"))
    return export(
        folder,
        config,
        dataset,
        trainer,
        started_at=began,
        thumbnail=thumbnail,
        recovered=Recovery(folder.recovery_file).sentences,
        stopped=stopped(folder, config),
        strength=strength,
        emit=emit,
    )


def finished(
    trainer: Trainer,
    folder: RunFolder,
    config: RunConfig,
    proof: Verification,
    judged: Judgement | None,
    began: float,
) -> Finished:
    """The run's last word: what its file holds and what was proved of it."""
    return Finished(
        step=trainer.step,
        adapter=folder.adapter_file.name,
        sheet=folder.sheet_file.name if folder.sheet_file.is_file() else "",
        verified=tuple(f"{tick.name}: {tick.detail}" for tick in proof.ticks),
        opens=proof.opens,
        seconds=time.time() - began,
        picked_step=trainer.exported_step,
        picked_strength=None if judged is None else judged.kept[1],
        stopped=stopped(folder, config),
    )
