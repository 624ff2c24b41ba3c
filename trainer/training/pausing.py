"""How whoever started a training steers it: asked between two (micro-)steps, on the training's own thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trainer.adapters.bank import Bank
    from trainer.bases.base import Base


class Signal(Enum):
    """What a training should do next."""

    GO = "go"
    PAUSE = "pause"
    """Save a checkpoint and end; the run can be resumed."""
    STOP = "stop"
    """End here and make the file from what was learned so far."""


@dataclass
class Session:
    """What a training shows while it runs; whoever draws with ``bank`` leaves its gates as they were."""

    base: Base
    bank: Bank
    style: str
    step: int
    steps: int


class Control(Protocol):
    """Asked before every (micro-)step; may draw previews meanwhile, the training goes on bit-identically."""

    def between_steps(self, session: Session) -> Signal: ...


class Uncontrolled:
    """Lets a training run to its end."""

    def between_steps(self, session: Session) -> Signal:
        return Signal.GO
