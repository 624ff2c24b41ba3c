"""What the app and its worker say to each other: one JSON object a line, requests in, replies out.

A training's own events lie in its run folder and are read from there, by whoever wants them; over the pipe goes only
what is not written down: short-lived progress, pictures, and answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from trainer.config import BaseConfig, FileLayout
from trainer.events import Message, Phase
from trainer.preview.order import PlacedStyle, PreviewRow, PreviewSettings

# ---- requests


class Train(Message):
    """Train a queued run until it ends, is steered elsewhere, or the pipe closes."""

    type: Literal["train"] = "train"
    run: str


class Steer(Message):
    """The user's wish for the run in training changed (`trainer.studio.store.Wish`); it is read from the store."""

    type: Literal["steer"] = "steer"
    run: str


class Draw(Message):
    """Draw ``rows[i]`` into ``folder/NN.png``, NN being ``indices[i]``; strengths are in the order of ``styles``."""

    type: Literal["draw"] = "draw"
    job: str
    base: BaseConfig
    styles: tuple[PlacedStyle, ...]
    rows: tuple[PreviewRow, ...]
    indices: tuple[int, ...]
    settings: PreviewSettings
    folder: str


class CancelDraw(Message):
    """Stop a drawing within one denoising step, or forget it when it has not begun."""

    type: Literal["cancel"] = "cancel"
    job: str


class Leave(Message):
    """End once everything asked before is done: the cards are wanted for a run that takes several."""

    type: Literal["leave"] = "leave"


class Inspect(Message):
    """Say everything about an adapter file."""

    type: Literal["inspect"] = "inspect"
    ask: str
    path: str


class Convert(Message):
    """Write an adapter file again, in another layout or under another name."""

    type: Literal["convert"] = "convert"
    ask: str
    source: str
    target: str
    layout: FileLayout
    name: str
    half: bool = False
    """Whether in fp16, which halves the file."""


class Rework(Message):
    """Make a new style of others by a tool of the workbench, and write it to ``target``.

    Attributes:
        sources: files with their strengths; of one the rank is lowered or a part is kept, several are merged.
        rank: most directions of a layer; None keeps all.
        keep: the part to keep, as of `trainer.workbench.split.split`; empty for the other tools.
    """

    type: Literal["rework"] = "rework"
    ask: str
    sources: tuple[tuple[str, float], ...]
    rank: int | None
    target: str
    name: str
    keep: str = ""


class Compare(Message):
    """Say what differs between two style files."""

    type: Literal["compare"] = "compare"
    ask: str
    first: str
    second: str


class Dissect(Message):
    """Say what a style file does to each layer, beside the weights of ``base`` unless that is empty."""

    type: Literal["dissect"] = "dissect"
    ask: str
    path: str
    base: str = ""


FileRequest = Inspect | Convert | Rework | Compare | Dissect
"""What is asked about style files and answered within seconds."""


class Describe(Message):
    """Say what an image shows, by the model that writes captions in ``folder`` (`trainer.captioning`)."""

    type: Literal["describe"] = "describe"
    ask: str
    folder: str
    image: str
    length: Literal["short", "long"] = "short"


class Judge(Message):
    """Judge a finished run's kept states again, or let its file hold another one: step and strength of ``keep``."""

    type: Literal["judge"] = "judge"
    ask: str
    run: str
    keep: tuple[int, float] | None = None


AnyRequest = Annotated[
    Train | Steer | Draw | CancelDraw | Leave | FileRequest | Judge | Describe,
    Field(discriminator="type"),
]

# ---- replies


class Hello(Message):
    """The worker is up; memory in bytes."""

    type: Literal["hello"] = "hello"
    pid: int
    device: Literal["cuda", "mps", "cpu"]
    device_name: str
    memory_total: int


class Status(Message):
    """What the worker does, said when it changes and every few seconds."""

    type: Literal["status"] = "status"
    doing: Literal["idle", "training", "drawing"]
    run: str = ""
    base: str = ""
    memory_used: int = 0


class InPhase(Message):
    """Progress of a run's preparation that is too short-lived to be written down."""

    type: Literal["phase"] = "phase"
    run: str
    phase: Phase


class RunEnded(Message):
    """The worker is done with a run for now, whose state is in the store.

    Attributes:
        taken: whether it was its to train.
        disk_full: it ended because there was no room; then its state could perhaps not be noted either.
    """

    type: Literal["run-ended"] = "run-ended"
    run: str
    taken: bool = True
    disk_full: bool = False


class Drawing(Message):
    """Progress of a drawing in denoising steps; or, with ``waits``, why it has not begun."""

    type: Literal["drawing"] = "drawing"
    job: str
    done: int = 0
    total: int = 0
    waits: str = ""


class Drawn(Message):
    """A picture is on the disk; ``weights`` says for each style what it was drawn with (`trainer.preview.order`)."""

    type: Literal["drawn"] = "drawn"
    job: str
    index: int
    path: str
    weights: tuple[str, ...] = ()


class DrawEnded(Message):
    """A drawing is over; ``message`` says why it failed."""

    type: Literal["draw-ended"] = "draw-ended"
    job: str
    state: Literal["done", "failed", "cancelled"]
    message: str = ""


class Answer(Message):
    """The answer to an `Inspect` or `Convert`: data, or the kind (a class of `trainer.errors`) and text of an error."""

    type: Literal["answer"] = "answer"
    ask: str
    data: dict[str, Any] = Field(default_factory=dict)
    error: str = ""
    message: str = ""


class Leaving(Message):
    """The worker ends of its own accord, because nothing was asked for long; what was asked since was not seen."""

    type: Literal["leaving"] = "leaving"


AnyReply = Annotated[
    Hello | Status | InPhase | RunEnded | Drawing | Drawn | DrawEnded | Answer | Leaving,
    Field(discriminator="type"),
]

_REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(AnyRequest)
_REPLY: TypeAdapter[AnyReply] = TypeAdapter(AnyReply)


def parse_request(line: str | bytes) -> AnyRequest | None:
    """The request on a line; ``None`` for one that is torn or of another version."""
    try:
        return _REQUEST.validate_json(line)
    except ValidationError:
        return None


def parse_reply(line: str | bytes) -> AnyReply | None:
    """The reply on a line; ``None`` for one that is torn or of another version."""
    try:
        return _REPLY.validate_json(line)
    except ValidationError:
        return None
