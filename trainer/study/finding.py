"""A run that asks for its learning rate: rates race in its folder, and the best becomes its setting."""

from __future__ import annotations

from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.events import Emit, Event, Failed, Notice, Phase, sentence_of
from trainer.study.bench import Pace
from trainer.study.heats import FACTORS
from trainer.study.race import race
from trainer.training.log import Log
from trainer.training.pausing import Control
from trainer.training.run import Outcome
from trainer.training.run import train as train_run
from trainer.training.run_folder import RunFolder


def is_sought(config: RunConfig) -> bool:
    """Whether a run has to find its learning rate yet."""
    return config.optim.find_rate and config.optim.learning_rate is None


def train(folder: RunFolder, *, emit: Emit, control: Control, base: Base | None = None) -> Outcome:
    """`trainer.training.run.train`, after the learning rate was found where the run asks for that.

    What is found is written into the run's settings, so that it is sought once. Arguments and errors are the same;
    ``emit`` is told of the race as of a phase, and may leave it by an error of its own: it goes on from there.
    """
    if is_sought(folder.config()):
        with folder.held():
            _find(folder, Log(folder, emit), base)
    return train_run(folder, emit=emit, control=control, base=base)


def _find(folder: RunFolder, log: Log, base: Base | None) -> None:
    config = folder.config()

    def said(event: Event) -> None:
        # The race's own stretches are over when those of the run begin: they are shown and not kept.
        if isinstance(event, Phase):
            log.forward(event)
        else:
            log(event)

    def told(pace: Pace) -> None:
        log.forward(Phase(name="racing", done=pace.done, total=pace.total))

    try:
        found = race(config, folder.race, emit=said, told=told, base=base)
    except Exception as error:
        log.at_last(Failed(step=0, message=sentence_of(error)))
        raise
    rate = next(entrant.changes for entrant in found.entrants if entrant.name == found.winner)["optim.learning_rate"]
    config.optim.learning_rate = rate
    folder.write_config(config)
    log(Notice(text=f"Learning rate {rate:g}: of {len(FACTORS)} it did best on the held-out images."))
