"""The workers, one for each card: where one may be started, and which of them a piece of work is for.

Where there are several cards, a worker sees its own alone (``CUDA_VISIBLE_DEVICES``), so that whatever a library does,
it does it there. With one card, or none, there is one worker, which chooses its device by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from trainer.studio.worker.pipe import WorkerProcess
from trainer.studio.worker.protocol import AnyRequest, Draw, Hello

MAX_FAILED_STARTS = 3
ANY = ""
"""In the place of a card: whatever the worker takes by itself."""


class Team:
    """The workers by their cards. Not safe across threads: the supervisor holds its lock.

    Args:
        cards: the NVIDIA cards, as CUDA calls them; fewer than two are one worker for whatever there is.
        start: starts the worker of a card.
    """

    def __init__(self, cards: Sequence[str], start: Callable[[str], WorkerProcess]) -> None:
        self._cards = tuple(cards) if len(cards) > 1 else (ANY,)
        self._start = start
        self._workers: dict[str, WorkerProcess] = {}
        self._failed: Counter[str] = Counter()
        self._works_on_cards = False

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(list(self._workers.values()))

    # ---- where

    @property
    def usable(self) -> tuple[str, ...]:
        """Where a worker may be; nowhere when none of them starts.

        Until the first has said that PyTorch can use the cards it stays alone, and for good where PyTorch cannot.
        """
        able = tuple(card for card in self._cards if self._failed[card] < MAX_FAILED_STARTS)
        return able if self._works_on_cards else able[:1]

    def free(self, device: str = "auto") -> str | None:
        """The first card where nothing trains, None where there is none.

        Args:
            device: ``train.device``; a card that is named by number is waited for, while its worker starts.
        """
        cards = self.usable
        named = re.fullmatch(r"cuda:(\d+)", device)
        if named and int(named[1]) < len(self._cards) > 1:
            own = self._cards[int(named[1])]
            if self._failed[own] < MAX_FAILED_STARTS:
                cards = (own,)
        return next((card for card in cards if card not in self._workers or not self._workers[card].training), None)

    def at(self, card: str) -> WorkerProcess:
        """The worker of a card, started where there is none.

        Raises:
            OSError: the system starts no more processes.
        """
        if card not in self._workers:
            self._workers[card] = self._start(card)
        return self._workers[card]

    # ---- who

    def trainer_of(self, run_id: str) -> WorkerProcess | None:
        """The worker that was told to train a run."""
        return next((worker for worker in self if worker.training == run_id), None)

    def told(self, name: str) -> WorkerProcess | None:
        """The worker that was sent a request of that name (`WorkerProcess.send_once`)."""
        return next((worker for worker in self if worker.was_sent(name)), None)

    def worker_for(self, request: AnyRequest) -> WorkerProcess:
        """Who should do something beside the queue; there must be a place where a worker may be.

        A style in training is drawn by whoever trains it, as its weights lie in no file; all else is done where nothing
        trains, and where everything trains by the first, between two steps.
        """
        if isinstance(request, Draw):
            trainers = (self.trainer_of(style.style) for style in request.styles if not style.path)
            if (live := next(filter(None, trainers), None)) is not None:
                return live
        card = self.free()
        return self.at(self.usable[0] if card is None else card)

    @property
    def busiest(self) -> WorkerProcess | None:
        """Of whom the page tells: who trains, else who draws, else whoever is there."""
        doing = ("training", "drawing", "idle")
        return min(self, key=lambda worker: doing.index(worker.status.doing) if worker.status else 3, default=None)

    # ---- coming and going

    def greet(self, worker: WorkerProcess, hello: Hello) -> None:
        """Note what a worker said of its device."""
        worker.hello = hello
        self._works_on_cards = hello.device == "cuda"
        for card, other in self._workers.items():
            if other is worker:
                self._failed[card] = 0

    def remove(self, worker: WorkerProcess, *, started: bool) -> None:
        """Strike a worker that ended; one that never ``started`` is tried `MAX_FAILED_STARTS` times."""
        for card, other in list(self._workers.items()):
            if other is worker:
                del self._workers[card]
                self._failed[card] += not started

    def try_again(self) -> None:
        """Forget the starts that failed."""
        self._failed.clear()
