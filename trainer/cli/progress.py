"""A training as a person watches it in a terminal: what was found, the plan, a bar, and where everything lies."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from trainer import events
from trainer.training.folder import RunFolder

PHASES = {
    "loading": "Loading the base",
    "reading": "Looking at the images",
    "caching": "Encoding images and captions",
    "measuring": "Measuring a step",
    "training": "Training",
    "sampling": "Drawing pictures",
    "exporting": "Writing and checking the file",
    "verifying": "Checking the file",
}


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
    """Tables and a bar; in a pipe the bar becomes a line every tenth of the way."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.said_tenth = -1

    def __enter__(self) -> Terminal:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Phase():
                self._phase(event)
            case events.Found():
                self._found(event)
            case events.Planned():
                self._planned(event)
            case events.Started() if event.step:
                self.console.print(f"Going on from step {event.step} of {event.steps}.")
            case events.Progress():
                self._progress(event)
            case events.Validated():
                change = 1 - event.loss / event.base_loss if event.base_loss else 0.0
                self.console.print(
                    f"Step {event.step}: loss on held-out images {event.loss:.4f}, "
                    f"{abs(change):.1%} {'below' if change >= 0 else 'above'} the base."
                )
            case events.Notice():
                mark = "[yellow]Note:[/] " if event.level == "warning" else ""
                self.console.print(mark + escape(event.text))
            case events.Finished():
                self._finished(event)
            case _:
                pass

    def _phase(self, event: events.Phase) -> None:
        title = PHASES[event.name]
        if self.task is None:
            self.task = self.bar.add_task(title, total=None, facts="")
        total = event.total or None
        self.bar.update(self.task, description=title, completed=event.done, total=total, facts="")
        if not self.console.is_terminal and not event.done and event.name != "sampling":
            self.console.print(f"{title} ...")

    def _found(self, event: events.Found) -> None:
        images = "1 image" if event.images == 1 else f"{event.images} images"
        if not event.findings:
            self.console.print(f"Found {images}, nothing to remark.")
            return
        table = Table(title=f"Found {images} to train on", title_justify="left", box=None, pad_edge=False)
        table.add_column("Image", overflow="fold")
        table.add_column("What was noticed", overflow="fold")
        table.add_column("What is done about it", overflow="fold")
        colours = {"skipped": "red", "warning": "yellow", "note": "dim"}
        for row in event.findings:
            colour = colours.get(row.severity, "dim")
            table.add_row(escape(row.image), f"[{colour}]{escape(row.message)}[/]", escape(row.action))
        self.console.print(table)

    def _planned(self, event: events.Planned) -> None:
        table = Table(title="Plan", title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        held = f", {event.held_out} held out" if event.held_out else ""
        table.add_row("Base", escape(event.base))
        table.add_row("Images", f"{event.images} at about {event.resolution} px{held}")
        table.add_row(
            "Learns", f"{event.trainable_parameters:,} parameters in {event.layers} layers, rank {event.rank}"
        )
        table.add_row("Steps", f"{event.steps} of {event.batch_size} images, learning rate {event.learning_rate:g}")
        table.add_row("Time", f"about {duration(event.seconds)} for the steps, on {escape(event.device)}")
        table.add_row("Memory", f"{size(event.memory_bytes)} of {size(event.memory_available_bytes)} free")
        table.add_row("File", f"about {size(event.file_bytes)}")
        self.console.print(table)
        for note in event.notes:
            self.console.print(escape(note))

    def _progress(self, event: events.Progress) -> None:
        loss = sum(event.losses) / len(event.losses)
        facts = (
            f"{event.step}/{event.steps}  loss {loss:.4f}  {event.samples_per_second:.1f} images/s  "
            f"{duration(event.seconds_left)} left"
        )
        if self.task is not None:
            self.bar.update(
                self.task, description=PHASES["training"], completed=event.step, total=event.steps, facts=facts
            )
        tenth = 10 * event.step // event.steps
        if not self.console.is_terminal and tenth != self.said_tenth:
            self.said_tenth = tenth
            self.console.print(facts)

    def _finished(self, event: events.Finished) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        checks = ", ".join(tick.partition(":")[0] for tick in event.verified)
        self.console.print(f"[bold]Done[/] after {duration(event.seconds)}. Checked: {checks}.")
        self.console.print(f"Style: {escape(str(self.folder.path / event.adapter))}")
        self.console.print(f"Sheet: {escape(str(self.folder.path / event.sheet))}")


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
