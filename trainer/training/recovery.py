"""What a run changed to survive: less memory, a lower rate; by step, so that a resumed run does the same.

A change counts from an optimizer step on, whoever asks and however often the run was stopped: the rate and the memory
settings of a step are functions of that step and of the folder's ``recovery.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.atomic import write_file
from trainer.config import RunConfig
from trainer.errors import RunError

RATE_FACTOR = 1 / 3
"""What the learning rate is multiplied by when the loss was no longer a number."""
MOST_RETREATS = 3
"""How often a run goes back and tries a lower rate before it gives up."""


@dataclass(frozen=True)
class Change:
    """From optimizer step ``step`` on (counted from 0) something is done differently.

    Attributes:
        said: the sentence that the user read.
        rate: factor on the learning rate.
        memory: fields of the config's ``memory`` section that hold from here on; empty leaves them.
        killed: the process was killed for want of memory, and goes on from here; what is done about it comes next.
    """

    step: int
    said: str
    rate: float = 1.0
    memory: dict[str, Any] = field(default_factory=dict)
    killed: bool = False

    @property
    def tries_again(self) -> bool:
        """Whether nothing is left that could be done otherwise."""
        return self.rate == 1.0 and not self.memory and not self.killed


class Recovery:
    """The changes of one run, in the order in which they were made.

    Args:
        file: where they lie; it need not exist.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.changes: tuple[Change, ...] = ()
        if file.is_file():
            try:
                self.changes = tuple(Change(**change) for change in json.loads(file.read_bytes()))
            except (ValueError, TypeError):
                raise RunError(f"{file} is damaged, so this run cannot go on as it began: start a new one.") from None

    @property
    def retreats(self) -> int:
        """How often the rate was lowered."""
        return sum(change.rate != 1.0 for change in self.changes)

    @property
    def sentences(self) -> list[str]:
        """What was changed, for people."""
        return [change.said for change in self.changes]

    @property
    def kill(self) -> Change | None:
        """A kill for want of memory about which nothing was done yet."""
        return self.changes[-1] if self.changes and self.changes[-1].killed else None

    def given_up(self, step: int) -> bool:
        """Whether a run that is killed for want of memory and would go on from ``step`` has tried everything there."""
        return bool(self.changes) and self.changes[-1].tries_again and self.changes[-1].step >= step

    def goes_on_from(self, saved: Iterable[tuple[int, Path]]) -> int:
        """The step of the newest checkpoint, of (step, folder), that lies on the way as it is now; 0 without one."""
        for step, folder in saved:
            with suppress(OSError, ValueError, TypeError, AttributeError):
                if self.holds(step, int(json.loads((folder / "state.json").read_bytes()).get("changes", 0))):
                    return step
        return 0

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rate of a step."""
        return math.prod(change.rate for change in self.changes if change.step <= step)

    def with_memory(self, config: RunConfig, step: int | None = None) -> RunConfig:
        """The config with the memory settings that hold at a step, or (None) when all is given up that ever was."""
        given_up = {k: v for c in self.changes if step is None or c.step <= step for k, v in c.memory.items()}
        return config.model_copy(update={"memory": config.memory.model_copy(update=given_up)})

    def holds(self, step: int, known: int) -> bool:
        """Whether a checkpoint of ``step``, made when ``known`` changes were known, lies on the way as it is now."""
        return all(change.step >= step for change in self.changes[known:])

    def add(self, change: Change, *, write: bool = True) -> None:
        """Remember a change, on the disk too unless another process writes it.

        Raises:
            OSError: the disk refuses.
        """
        changes = (*self.changes, change)
        if write:
            write_file(self.file, json.dumps([asdict(c) for c in changes], indent=1).encode())
        self.changes = changes
