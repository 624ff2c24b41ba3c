"""What a run says while it works, and what it can be asked: typed, one JSON object a line.

Events leave a training through a callback and lie in the run folder's ``events.jsonl``; between the studio's
processes the same lines travel over pipes. Times are Unix seconds, durations seconds, sizes bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainer.errors import PatinaError
from trainer.findings import Finding


class Message(BaseModel):
    """A line: unknown keys are passed over, so that an older reader survives a newer writer."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="strings")

    def line(self) -> str:
        """This message as one line of JSON, without the line break."""
        return self.model_dump_json()


class Event(Message):
    """Something that happened; ``run`` is empty outside the studio."""

    at: float = Field(default_factory=time.time)
    run: str = ""


class Started(Event):
    """Training starts at ``step`` (0, or a checkpoint's); whatever an earlier attempt said of later steps is void."""

    type: Literal["started"] = "started"
    step: int
    steps: int


class Phase(Event):
    """A stretch of work that is not training steps; ``done`` of ``total`` parts (total 0: unknown).

    ``seconds`` is not 0 when nothing is new but that it still goes on (`trainer.signs`): since it began, and of
    ``training`` since the last step that was told of.
    """

    type: Literal["phase"] = "phase"
    name: Literal[
        "loading",
        "reading",
        "caching",
        "measuring",
        "racing",
        "training",
        "sampling",
        "judging",
        "exporting",
        "verifying",
    ]
    done: int = 0
    total: int = 0
    detail: str = ""
    seconds: float = 0.0


class Found(Event):
    """What was found in the image folder, one row for each thing about each image."""

    type: Literal["found"] = "found"
    images: int
    findings: tuple[Finding, ...] = ()


class Planned(Event):
    """What is about to happen, said before it happens."""

    type: Literal["planned"] = "planned"
    images: int
    held_out: int
    steps: int
    batch_size: int
    resolution: int
    rank: int
    learning_rate: float
    trainable_parameters: int
    layers: int
    file_bytes: int
    seconds: float
    memory_bytes: int
    memory_available_bytes: int
    device: str
    base: str
    notes: tuple[str, ...] = ()


class Progress(Event):
    """Steps done, with the losses since the last such event (``losses[-1]`` belongs to ``step``)."""

    type: Literal["progress"] = "progress"
    step: int
    steps: int
    losses: tuple[float, ...]
    learning_rate: float
    samples_per_second: float
    seconds_left: float


class Validated(Event):
    """Loss on the held-out images with fixed noise, beside the base's own (strength 0).

    ``gains`` are the shares of the base's loss that the style takes away, from the least noise to the most.
    """

    type: Literal["validated"] = "validated"
    step: int
    loss: float
    base_loss: float
    gains: tuple[float, ...] = ()


class Sampled(Event):
    """A sample picture; ``path`` is relative to the run folder."""

    type: Literal["sampled"] = "sampled"
    step: int
    index: int
    prompt: str
    path: str


class Saved(Event):
    """A checkpoint; ``path`` is relative to the run folder."""

    type: Literal["saved"] = "saved"
    step: int
    path: str


class Notice(Event):
    """A sentence the user should see."""

    type: Literal["notice"] = "notice"
    level: Literal["note", "warning"] = "note"
    text: str


class Interrupted(Event):
    """The run saved itself at ``step`` and can go on."""

    type: Literal["interrupted"] = "interrupted"
    step: int
    reason: Literal["paused", "stopped"]


class Recommended(Event):
    """Of the kept states one was picked, and why; the file holds its weights, ``judgement.json`` all scores."""

    type: Literal["recommended"] = "recommended"
    at_step: int
    strength: float
    confidence: float
    sentence: str


class Finished(Event):
    """The adapter was exported, read back and verified; paths are relative to the run folder, ``sheet`` may be empty.

    ``opens`` says in which programs the file opens, and then, a sentence each, who loses what of it.
    ``picked_step`` is the step whose weights the file holds, and ``picked_strength`` what they are recommended at;
    ``stopped`` says why a run ended by itself before its last step.
    """

    type: Literal["finished"] = "finished"
    step: int
    adapter: str
    sheet: str
    verified: tuple[str, ...]
    seconds: float
    opens: tuple[str, ...] = ()
    picked_step: int | None = None
    picked_strength: float | None = None
    stopped: str = ""


class Failed(Event):
    """The run ended with an error; ``message`` says what to do.

    ``images_changed``: it is about images that are gone or changed, without which the run can go on.
    """

    type: Literal["failed"] = "failed"
    step: int
    message: str
    images_changed: bool = False


AnyEvent = Annotated[
    Started
    | Phase
    | Found
    | Planned
    | Progress
    | Validated
    | Sampled
    | Saved
    | Notice
    | Interrupted
    | Recommended
    | Finished
    | Failed,
    Field(discriminator="type"),
]
Emit = Callable[[Event], None]

_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


def parse_event(line: str | bytes) -> AnyEvent | None:
    """The event on a line; ``None`` for a line that is torn (the process died while writing) or of a later version."""
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


def sentence_of(error: BaseException) -> str:
    """An error as the sentence a user should read."""
    if isinstance(error, PatinaError):
        return str(error)
    return f"Something went wrong that Patina did not expect ({type(error).__name__}: {error})."
