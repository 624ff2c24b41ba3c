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
        self._works_on_cards: bool | None = None
        """Whether PyTorch can use the cards; None until a worker has said."""

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(list(dict.fromkeys(self._workers.values())))

    # ---- where

    @property
    def usable(self) -> tuple[str, ...]:
        """Where a worker may be; nowhere when none of them starts.

        Until the first has said that PyTorch can use the cards it stays alone, and for good where PyTorch cannot.
        """
        able = tuple(card for card in self._cards if self._failed[card] < MAX_FAILED_STARTS)
        return able if self._works_on_cards else able[:1]

    def has_room(self, cards: int) -> bool:
        """Whether nothing trains on so many cards, or on all where there are fewer."""
        return len(self._free(self.usable)) >= min(cards, len(self.usable))

    # ---- who

    def trainer_of(self, run_id: str) -> WorkerProcess | None:
        """The worker that was told to train a run."""
        return next((worker for worker in self if worker.training == run_id), None)

    def told(self, name: str) -> WorkerProcess | None:
        """The worker that was sent a request of that name (`WorkerProcess.send_once`)."""
        return next((worker for worker in self if worker.was_sent(name)), None)

    def trainer_for(self, device: str, cards: int) -> WorkerProcess | None:
        """Who should train a run of the queue, started where there is nobody; None while it has to wait.

        Args:
            device: ``train.device``; a card that is named by number is waited for.
            cards: ``train.gpus``.

        Raises:
            OSError: the system starts no more processes.
        """
        if cards > 1:
            return self._together(cards)
        card = next(iter(self._free(self._named(device) or self.usable)), None)
        worker = None if card is None else self._at(card)
        return None if worker is None or worker.leaving else worker

    def worker_for(self, request: AnyRequest) -> WorkerProcess:
        """Who should do something beside the queue; there must be a place where a worker may be.

        A style in training is drawn by whoever trains it, as its weights lie in no file; all else is done where nothing
        trains, and where everything trains by the first, between two steps.

        Raises:
            OSError: the system starts no more processes.
        """
        if isinstance(request, Draw):
            trainers = (self.trainer_of(style.style) for style in request.styles if not style.path)
            if (live := next(filter(None, trainers), None)) is not None:
                return live
        return self._at((*self._free(self.usable), *self.usable)[0])

    @property
    def busiest(self) -> WorkerProcess | None:
        """Of whom the page tells: who trains, else who draws, else whoever is there."""
        doing = ("training", "drawing", "idle")
        return min(self, key=lambda worker: doing.index(worker.status.doing) if worker.status else 3, default=None)

    def _named(self, device: str) -> tuple[str, ...]:
        """The card that a run calls by its number, unless its worker does not start."""
        named = re.fullmatch(r"cuda:(\d+)", device)
        if named is None or int(named[1]) >= len(self._cards) or self._cards == (ANY,):
            return ()
        card = self._cards[int(named[1])]
        return (card,) if self._failed[card] < MAX_FAILED_STARTS else ()

    def _free(self, cards: Sequence[str]) -> list[str]:
        """Those of some cards where nothing trains."""
        return [card for card in cards if card not in self._workers or not self._workers[card].training]

    def _at(self, card: str) -> WorkerProcess:
        if card not in self._workers:
            self._workers[card] = self._start(card)
        return self._workers[card]

    def _together(self, count: int) -> WorkerProcess | None:
        """A worker that sees several cards, or all where there are fewer, which it then says; None while they are used.

        It is a new one, and leaves after its run; who was on its cards leaves before, with all work done.
        """
        if self._works_on_cards is None and self._cards != (ANY,):
            # Somebody has to say first whether PyTorch can use them.
            self._at(self.usable[0])
            return None
        if not self.has_room(count):
            return None
        cards = self._free(self.usable)[:count]
        there = {self._workers[card] for card in cards if card in self._workers}
        for worker in there:
            worker.leave()
        if there:
            return None
        group = self._start(",".join(cards))
        group.of_one_run = True
        self._workers.update(dict.fromkeys(cards, group))
        return group

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
