"""Where the parts of a base lie: on the device, or parked in main memory until they are needed.

Moving a module keeps its Parameter objects and their bits, so a training goes on unchanged around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Part = Literal["denoiser", "vae", "text"]
PARTS: tuple[Part, ...] = ("denoiser", "vae", "text")
_MAIN_MEMORY = torch.device("cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on whatever device."""
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; from main memory to a card through pinned memory, so that the host goes on at once.

    A plain ``.to(device)`` waits until the card has done everything it was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Placement:
    """The parts of one base and where each belongs.

    Args:
        parts: gives each part's modules as they are at the moment.
        device: where parts work.

    Attributes:
        parked: parts that are on the device only within `ready`.
    """

    def __init__(self, parts: Mapping[Part, Callable[[], Sequence[nn.Module]]], device: torch.device) -> None:
        self._parts = parts
        self._device = device
        self._needed: Counter[Part] = Counter()
        self._banned: Counter[Part] = Counter()
        self.parked: frozenset[Part] = frozenset()

    def park(self, parts: Iterable[Part]) -> None:
        """Make exactly these parts the parked ones, and put every part where it belongs."""
        self.parked = frozenset(parts)
        # Out before in, so that there is room.
        for part in sorted(PARTS, key=self._belongs_on_device):
            self._settle(part)

    @contextmanager
    def ready(self, *parts: Part) -> Iterator[None]:
        """These parts are on the device until the block ends, however it ends; may be nested."""
        with self._counted(self._needed, parts):
            yield

    @contextmanager
    def away(self, *parts: Part) -> Iterator[None]:
        """These parts leave the device until the block ends, unless they are `ready` within it."""
        with self._counted(self._banned, parts):
            yield

    @contextmanager
    def _counted(self, counter: Counter[Part], parts: Sequence[Part]) -> Iterator[None]:
        with ExitStack() as stack:
            for part in parts:
                counter[part] += 1
                stack.callback(self._release, counter, part)
                self._settle(part)
            yield

    def _release(self, counter: Counter[Part], part: Part) -> None:
        counter[part] -= 1
        self._settle(part)

    def _belongs_on_device(self, part: Part) -> bool:
        if self._needed[part]:
            return True
        return part not in self.parked and not self._banned[part]

    def _settle(self, part: Part) -> None:
        if self._device == _MAIN_MEMORY:
            return
        target = self._device if self._belongs_on_device(part) else _MAIN_MEMORY
        for module in self._parts[part]():
            # Without a type to cast to: adapters in the module stay fp32.
            nn.Module.to(module, target)
        if target == _MAIN_MEMORY and self._device.type == "cuda":
            torch.cuda.empty_cache()
