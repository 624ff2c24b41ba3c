"""A run's training steps: checkpoints, samples and validation where they are due, and a way on when one goes wrong.

Out of memory costs speed: the step is done again a rung further down. A loss that is no number costs steps: the run
goes back to its last good state and learns on at a lower rate. Both are said, and written into the folder (`Recovery`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from accelerate import Accelerator

from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import MemoryConfig, RunConfig
from trainer.errors import DoesNotFit
from trainer.events import Emit, Event, Notice, Phase, Progress, Saved, Started, Validated
from trainer.training import checkpoint as checkpoints
from trainer.training.checkpoint import Checkpoint
from trainer.training.ladder import can_swap, gives_up, spares_main_memory, step_down
from trainer.training.loop import Diverged, Trainer
from trainer.training.pausing import Control, Signal
from trainer.training.processes import from_main
from trainer.training.recovery import MOST_RETREATS, RATE_FACTOR, Change, Recovery
from trainer.training.room import if_it_fits, settle, tidy
from trainer.training.run_folder import RunFolder
from trainer.training.samples import Pictures, due
from trainer.training.spilling import SpillWatch
from trainer.training.validation import Validation


@dataclass
class Steps:
    """The steps of one run.

    Attributes:
        trainer: stands where the run stands.
        config: with every choice written down; its memory section is the one in effect.
        asked_memory: the memory section as it was before anything was given up on the way.
        pictures, validation: what is measured on the way; only the main process uses them.
        at_step: told of each step that is done, before anything else is said of it.
    """

    trainer: Trainer
    folder: RunFolder
    config: RunConfig
    asked_memory: MemoryConfig
    recovery: Recovery
    pictures: Pictures
    validation: Validation | None
    emit: Emit
    at_step: Callable[[int], None]

    def __post_init__(self) -> None:
        self.trainer.rate_factor = self.recovery.rate_factor
        self._start = self.trainer.checkpoint().copied()
        self._tried_again: int | None = None
        self._spill = SpillWatch(self.trainer.base.device)

    @property
    def accelerator(self) -> Accelerator:
        return self.trainer.accelerator

    def restore(self) -> None:
        """Go on from the newest checkpoint that lies on the way as it is now; without one, from the start."""
        found, torn = checkpoints.newest(self.folder.checkpoints, self._on_the_way)
        for sentence in torn:
            self.emit(Notice(level="warning", text=sentence))
        self._stand_at(found or self._start)

    def run(self, control: Control) -> Signal:
        """Train to the end, or until ``control`` says otherwise; then the state is saved.

        Raises:
            Diverged: it did so again after `MOST_RETREATS` lower rates.
            DoesNotFit: not even the last rung is left.
            RunError: a checkpoint could not be written.
        """
        trainer = self.trainer
        if trainer.step == 0 and self.config.samples.every and self.accelerator.is_main_process:
            self.emit(Phase(name="sampling"))
            self.pictures.samples(0)
        while True:
            self.emit(Phase(name="training"))
            trouble: Exception
            try:
                signal = trainer.run(control=control, emit=self._heard, after_step=self._after_step)
                break
            except Diverged as error:
                trouble = error
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Without its frames, which hold on to the tensors that took the memory.
                trouble = MemoryError(str(error))
            trainer.optimizer.zero_grad(set_to_none=True)
            tidy(trainer.base.device)
            if isinstance(trouble, Diverged):
                self._retreat(trouble)
            else:
                self._step_down()
        if signal is not Signal.GO:
            self._save()
        return signal

    def _heard(self, event: Event) -> None:
        self.emit(event)
        if isinstance(event, Progress) and (said := self._spill.heard(event.samples_per_second)):
            self.emit(Notice(level="warning", text=said))

    def _after_step(self, step: int) -> None:
        self.at_step(step)
        self._settle_memory(step)
        steps, main = self.trainer.settings.steps, self.accelerator.is_main_process
        if due(self.config.train.checkpoint_every or 0, step, steps):
            self._save()
        if main and due(self.config.samples.every or 0, step, steps):
            self.pictures.samples(step)
            if self.validation is not None:
                self._validate(step, self.validation)

    def _save(self) -> None:
        made = self.trainer.checkpoint()
        if not self.accelerator.is_main_process:
            return
        made.state["changes"] = len(self.recovery.changes)
        path = checkpoints.save(made, self.folder.checkpoints, keep=self.config.train.keep_checkpoints)
        self.emit(Saved(step=self.trainer.step, path=path.relative_to(self.folder.path).as_posix()))

    def _validate(self, step: int, validation: Validation) -> None:
        losses = if_it_fits(self.trainer.base, lambda: validation.measure(self.trainer))
        if losses is None:
            said = f"Memory ran out while held-out images were measured at step {step}: their loss is left out there."
            self.emit(Notice(level="warning", text=said))
        else:
            self.emit(Validated(step=step, loss=losses.style, base_loss=losses.base, gains=losses.by_level))

    def _step_down(self) -> None:
        """Do the step that ran out of memory, and all after it, a rung further down; on the last one once more."""
        trainer, base = self.trainer, self.trainer.base
        lower = step_down(self.config, base.levels, self.accelerator.num_processes, swaps=can_swap(base))
        if lower is None and self._tried_again != trainer.step:
            # Another program may have taken it for a moment.
            self._tried_again = trainer.step
            said = f"Memory ran out at step {trainer.step} with every saving in use: the step is tried once more."
            self.emit(Notice(level="warning", text=said))
            return
        if lower is None:
            raise DoesNotFit(
                f"Memory ran out at step {trainer.step}, and every saving is in use. Close other programs, or resume "
                "on a machine with more memory; what was learned until the last saved step is kept."
            )
        said = f"Memory ran out at step {trainer.step}: from here on {gives_up(self.config, lower)}."
        self._change(Change(trainer.step, said, memory=asdict(lower)))
        self._settle_memory(trainer.step)

    def _retreat(self, trouble: Diverged) -> None:
        """Go back to the last good state, and from there on at a lower rate."""
        if self.recovery.retreats >= MOST_RETREATS:
            raise trouble
        back = self._last_good()
        factor = self.recovery.rate_factor(back.step) * RATE_FACTOR
        said = (
            f"The loss was no longer a number: the training goes back to step {back.step} and learns on at "
            f"{factor:.0%} of the learning rate."
        )
        self._change(Change(back.step, said, rate=RATE_FACTOR))
        self._stand_at(back)
        if self.accelerator.is_main_process:
            self.emit(Started(step=back.step, steps=self.trainer.settings.steps))

    def _last_good(self) -> Checkpoint:
        """The newest state that was saved by plan, so that a pause in between changes nothing.

        One that the run went back to already was no good state: the one before it is taken then.
        """
        every = self.config.train.checkpoint_every or 1
        tried = {change.step for change in self.recovery.changes if change.rate != 1.0}
        for good in (
            lambda found: found.step % every == 0 and found.step not in tried,
            lambda found: found.step not in tried,
        ):
            found, _ = checkpoints.newest(
                self.folder.checkpoints,
                lambda c, good=good: good(c) and self._on_the_way(c),  # type: ignore[misc]
            )
            if found is not None:
                return found
        return self._start

    def _change(self, change: Change) -> None:
        change = from_main(self.accelerator, change)
        self.recovery.add(change, write=self.accelerator.is_main_process)
        self.emit(Notice(level="warning", text=change.said))

    def _stand_at(self, checkpoint: Checkpoint) -> None:
        self.trainer.restore(checkpoint)
        self.at_step(checkpoint.step)
        self._settle_memory(checkpoint.step)

    def _settle_memory(self, step: int) -> None:
        """Put the memory settings of a step into effect, where they are not yet."""
        asked = self.config.model_copy(update={"memory": self.asked_memory})
        config = self.recovery.with_memory(asked, step)
        if config.memory != self.config.memory:
            self.config = config
            self.trainer.batches.images_per_pass = config.images_per_pass
            settle(self.trainer.base, config.memory)

    def _on_the_way(self, found: Checkpoint) -> bool:
        return self.recovery.holds(found.step, int(found.state.get("changes", 0)))


def after_kill(kill: Change, config: RunConfig, base: Base, processes: int) -> Change:
    """What is done about a kill for want of memory: a way down that spares main memory, else the same once more.

    Args:
        config: resolved, with all that was given up before.
    """
    lower = spares_main_memory(config, base, processes)
    if lower is None:
        said = f"Memory ran out at step {kill.step} with every saving in use: the step is tried once more."
        return Change(kill.step, said)
    said = f"Memory ran out at step {kill.step}: from here on {gives_up(config, lower)}."
    return Change(kill.step, said, memory=asdict(lower))
