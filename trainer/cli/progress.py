"""A training as a person watches it: what was found, the plan, a bar, and where everything lies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from trainer import events
from trainer.languages import said, terminal_language
from trainer.printable import printable
from trainer.training.run_folder import RunFolder

PHASES = {
    "loading": "Loading the base",
    "reading": "Looking at the images",
    "caching": "Encoding images and captions",
    "measuring": "Measuring a step",
    "racing": "Finding the learning rate",
    "training": "Training",
    "sampling": "Drawing pictures",
    "judging": "Judging what was learned",
    "exporting": "Writing and checking the file",
    "verifying": "Checking the file",
}
PATIENCE = 60.0
"""Seconds between two lines about one training step in a pipe or a file."""
COLOURS = {"skipped": "red", "warning": "yellow", "note": "dim"}


class Show(Protocol):
    """Something that events can be shown on while it is open."""

    def __call__(self, event: events.Event) -> None: ...

    def __enter__(self) -> Show: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class JsonLines:
    """Every event as a line of JSON on standard output."""

    def __call__(self, event: events.Event) -> None:
        sys.stdout.write(event.line() + "\n")
        sys.stdout.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Terminal:
    """Tables and a bar; in a pipe or a file plain lines, and instead of the bar one for every tenth of the way."""

    def __init__(self, folder: RunFolder, console: Console | None = None) -> None:
        self.folder = folder
        # Paths are longer than a terminal is wide, and must be whole where they are copied from.
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.lively = self.console.is_terminal
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            transient=True,
            disable=not self.lively,
        )
        self.task: TaskID | None = None
        self.phase = ""
        self.tenth = -1
        self.waited = 0.0

    def __enter__(self) -> Terminal:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Phase() if event.seconds:
                self._still(event)
            case events.Phase():
                self._phase(event)
            case events.Found():
                self._found(event)
            case events.Planned():
                self._planned(event)
            case events.Started() if event.step:
                self.say(f"Going on from step {event.step} of {event.steps}.")
            case events.Progress():
                self._progress(event)
            case events.Validated():
                change = 1 - event.loss / event.base_loss if event.base_loss else 0.0
                self.say(
                    f"Step {event.step}: loss on held-out images {event.loss:.4f}, "
                    f"{abs(change):.1%} {'below' if change >= 0 else 'above'} the base's."
                )
            case events.Notice():
                self.say(("Warning: " if event.level == "warning" else "") + event.text)
            case events.Recommended():
                self.say(event.sentence)
            case events.Finished():
                self._finished(event)
            case _:
                pass

    def say(self, text: str) -> None:
        """A line above the bar, with nothing in it taken for markup."""
        self.console.print(printable(text, most=8000), markup=False)

    def _phase(self, event: events.Phase) -> None:
        title = PHASES[event.name]
        if self.task is None:
            self.task = self.bar.add_task(title, total=None, facts="")
        counted = f"{event.done}/{event.total}" if event.total else ""
        self.bar.update(self.task, description=title, completed=event.done, total=event.total or None, facts=counted)
        # Sample pictures come every now and then, between two stretches of training; a pipe need not hear of each.
        if not self.lively and event.name not in (self.phase, "sampling"):
            self.say(f"{title} ...")
        if event.name != "sampling":
            self.phase = event.name

    def _still(self, event: events.Phase) -> None:
        """A sign of life: the same as before, for so long now."""
        if self.lively:
            if self.task is not None and event.name != "training":
                counted = f"{event.done}/{event.total}, " if event.total else ""
                self.bar.update(self.task, facts=f"{counted}{duration(event.seconds)}")
            return
        if event.name == "training":
            # A log of hours should not be a line every few seconds.
            self.waited = self.waited if event.seconds > self.waited else 0.0
            if event.seconds < self.waited + PATIENCE:
                return
            self.waited = event.seconds
        self.say(f"{PHASES[event.name]} ... {duration(event.seconds)} so far")

    def _found(self, event: events.Found) -> None:
        images = "1 image" if event.images == 1 else f"{event.images} images"
        if not event.findings:
            self.say(f"Found {images}, nothing to remark.")
            return
        self.say(f"Found {images} to train on.")
        language = terminal_language()
        if not self.lively:
            for row in event.findings:
                message, action = (said(text, language) for text in (row.message, row.action))
                line = message if row.message.startswith(row.image) else f"{row.image}: {message}"
                self.say(f"  {line}; {action}")
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("Image", overflow="fold", max_width=28)
        table.add_column("What was noticed", overflow="fold")
        table.add_column("What is done about it", overflow="fold")
        for row in event.findings:
            colour = COLOURS.get(row.severity, "dim")
            texts = row.image, said(row.message, language), said(row.action, language)
            image, message, action = (escape(printable(text)) for text in texts)
            table.add_row(image, f"[{colour}]{message}[/]", action)
        self.console.print(table, soft_wrap=False)

    def _planned(self, event: events.Planned) -> None:
        if self.lively:
            table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column(style="dim")
            table.add_column(overflow="fold")
            for label, text in plan_of(event):
                table.add_row(label, escape(text))
            self.console.print("", table, "", sep="\n", soft_wrap=False)
        else:
            for label, text in plan_of(event):
                self.say(f"{label + ':':8} {text}")
        for note in event.notes:
            self.say(note)

    def _progress(self, event: events.Progress) -> None:
        loss = sum(event.losses) / len(event.losses)
        facts = (
            f"{event.step}/{event.steps}, loss {loss:.4f}, {event.samples_per_second:.1f} images/s, "
            f"{duration(event.seconds_left)} left"
        )
        if self.task is not None:
            title = PHASES["training"]
            self.bar.update(self.task, description=title, completed=event.step, total=event.steps, facts=facts)
        tenth = 10 * event.step // event.steps
        if not self.lively and tenth != self.tenth:
            self.tenth = tenth
            self.say(f"Step {facts}")

    def _finished(self, event: events.Finished) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        checks = ", ".join(tick.partition(":")[0] for tick in event.verified)
        self.say(f"Done after {duration(event.seconds)}. The file was checked: {checks}.")
        for line in event.opens:
            self.say(line)
        self.say(f"Style: {self.folder.path / event.adapter}")
        if event.sheet:
            self.say(f"Sheet: {self.folder.path / event.sheet}")


def plan_of(event: events.Planned) -> Iterator[tuple[str, str]]:
    """The plan as rows of label and text."""
    held_out = f", {event.held_out} more held out" if event.held_out else ""
    batch = "1 image" if event.batch_size == 1 else f"{event.batch_size} images"
    yield "Base", event.base
    yield "Images", f"{event.images} at about {event.resolution} px{held_out}"
    yield "Learns", f"{event.trainable_parameters:,} parameters in {event.layers} layers, rank {event.rank}"
    yield "Steps", f"{event.steps} of {batch}, learning rate {event.learning_rate:g}"
    yield "Time", f"about {duration(event.seconds)} until the file is there, on {event.device}"
    yield "Memory", f"{size(event.memory_bytes)} of {size(event.memory_available_bytes)} free"
    yield "File", f"about {size(event.file_bytes)}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as people say them."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    if count < 2**30:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 2**30:.1f} GiB"
