"""Early stopping: states are scored on the way as at the end of a run, which ends when more steps would only harm it.

What was seen lies in the folder's ``looks.json``, so that a run that is resumed decides as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from trainer.atomic import write_file
from trainer.config.sections import StopWhen
from trainer.errors import RunError
from trainer.judging.pick import Candidate
from trainer.training.pausing import Control, Session, Signal
from trainer.training.room import if_it_fits
from trainer.training.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.judging.judge import Judge
    from trainer.training.loop import Trainer

MOST_LOOKS = 12
"""Looks are at least so far apart that a whole run has no more of them."""
PATIENCE = 2
"""Looks in a row that are no better than an earlier one before a run counts as settled."""


@dataclass(frozen=True)
class Look:
    """What was seen of the state after ``step`` steps, at strength 1.

    Attributes:
        good: how well style and subject go together (`trainer.judging.pick.joint`).
        copies: whether training images come back.
    """

    step: int
    good: float
    copies: bool

    @classmethod
    def of(cls, candidate: Candidate) -> Look:
        return cls(
            step=candidate.step,
            good=candidate.joint,
            copies=candidate.excluded == "copying",
        )


def verdict(looks: Sequence[Look], rule: StopWhen, steps: int) -> str:
    """Why a run of so many steps ends at the last of its looks; empty where it goes on.

    The sentence goes into the file that is given away, so it names no image.
    """
    if not looks or rule == "never":
        return ""
    last = looks[-1]
    where = f"Stopped after step {last.step} of {steps}:"
    if last.copies:
        return f"{where} it began to repeat training images."
    best = max(looks, key=lambda look: (look.good, -look.step))
    waited = sum(look.step > best.step for look in looks)
    if rule == "settled" and waited >= PATIENCE:
        return f"{where} style and subjects were no better than at step {best.step}."
    return ""


def read(folder: RunFolder) -> list[Look]:
    """The looks of a run, by step; none where none were taken.

    Raises:
        RunError: their file is damaged.
    """
    try:
        return [Look(**look) for look in json.loads(folder.looks_file.read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise RunError(f"{folder.looks_file} is damaged: remove it, and the run looks again.") from None


def stopped(folder: RunFolder, config: RunConfig) -> str:
    """Why a run ended before its last step by itself; empty where it did not."""
    return verdict(read(folder), config.train.stop_when, config.train.steps or 0)


class Watch:
    """Stands between a run and whoever steers it: looks where that is due, and stops the run by what it sees.

    Args:
        control: whoever steers the run otherwise.
        judge_of: makes the judge, when the first look is taken.
        floor: steps before which a run is not looked at, and so not stopped.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        control: Control,
        judge_of: Callable[[], Judge],
        *,
        rule: StopWhen,
        floor: int,
        every: int,
        said: Callable[[str], None],
    ) -> None:
        self.trainer, self.folder, self.control, self.judge_of = trainer, folder, control, judge_of
        self.rule, self.floor, self.said = rule, floor, said
        steps = trainer.settings.steps
        # A multiple of the steps between checkpoints, so that what was seen can be kept.
        self.every = every * max(1, -(-steps // (MOST_LOOKS * every)))
        self.looks = read(folder)
        self._judge: Judge | None = None
        self._missed: int | None = None

    def between_steps(self, session: Session) -> Signal:
        """What whoever steers the run wants; STOP where a look says so."""
        asked = self.control.between_steps(session)
        if asked is not Signal.GO:
            return asked
        step = session.step
        # What an earlier attempt saw of steps that are done again is void.
        self.looks = [look for look in self.looks if look.step <= step]
        steps = self.trainer.settings.steps
        if self.floor <= step < steps and step % self.every == 0 and step not in self._seen:
            if if_it_fits(self.trainer.base, lambda: self._look(step)) is None:
                self._missed = step
                self.said(f"Memory ran out while step {step} was looked at: it does not count for an early end.")
            elif sentence := verdict(self.looks, self.rule, steps):
                self.said(sentence)
        return Signal.STOP if verdict(self.looks, self.rule, steps) else Signal.GO

    @property
    def _seen(self) -> set[int | None]:
        return {self._missed, *(look.step for look in self.looks)}

    def _look(self, step: int) -> Look:
        if self._judge is None:
            self._judge = self.judge_of()
        with self.trainer.as_exported():
            self._judge.suspect()
            candidate, _ = self._judge.at(step, (1.0,))[0]
        self.looks.append(Look.of(candidate))
        try:
            write_file(self.folder.looks_file, json.dumps([asdict(look) for look in self.looks], indent=1).encode())
        except OSError as error:
            raise RunError(f"{self.folder.looks_file} cannot be written: {error.strerror or error}.") from None
        return self.looks[-1]
