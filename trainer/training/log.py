"""How a run says what happens: into its folder and to whoever listens."""

from __future__ import annotations

from typing import Literal

from trainer.events import Emit, Event, Phase
from trainer.training.run_folder import RunFolder


class Log:
    """Writes every event into the run's folder and passes it on; knows the step for those who do not.

    Args:
        folder: None keeps and says nothing, for all processes but the main one.
    """

    def __init__(self, folder: RunFolder | None, emit: Emit) -> None:
        self.folder, self.forward = folder, emit
        self.step = 0

    def __call__(self, event: Event) -> None:
        if self.folder is not None:
            self.folder.append(event)
            self.forward(event)

    def at(self, step: int) -> None:
        self.step = step

    def at_last(self, event: Event) -> None:
        """The word of a run that has failed: it is said even where it cannot be written, as on a full disk."""
        try:
            if self.folder is not None:
                self.folder.append(event)
        except OSError:
            pass
        self.forward(event)

    def quietly(
        self, name: Literal["reading", "caching", "sampling", "training", "judging"], done: int, total: int
    ) -> None:
        """Progress that is worth showing but not worth keeping."""
        self.forward(Phase(name=name, done=done, total=total))

    def drawing(self, done: int, total: int) -> None:
        """Pictures between the steps; when they are all there the steps go on."""
        self.quietly("sampling" if done < total else "training", done, total)
