"""``patina study``: several ways to train one style, with several seeds, as a table, a file and a plot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.options import given, names_of, setting
from trainer.errors import ConfigError, DatasetError
from trainer.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.config import RunConfig
    from trainer.study.bench import Pace
    from trainer.study.result import Row, Study

QUICK_STEPS = 60
QUICK_SECONDS = 600.0
PLOT = "study.png"
TOGETHER = typer.Option(min=1, max=64, metavar="N", help="Most to train in one pass; what memory allows when left out.")


def study(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="placement|blocks|rank|methods",
            help="Which matrices or which blocks learn at one number of trained values; one method at several ranks; "
            "or all methods.",
            show_default=False,
        ),
    ],
    images: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with the images of the style.", show_default=False)
    ],
    base: Annotated[str | None, setting("base")] = None,
    trigger: Annotated[str | None, setting("trigger", more=" The folder's name and 'style' when left out.")] = None,
    preset: Annotated[str | None, setting("preset")] = None,
    steps: Annotated[str | None, setting("steps")] = None,
    rank: Annotated[str | None, setting("rank", more=" In a study of placement, that of all four matrices.")] = None,
    alpha: Annotated[str | None, setting("alpha", more=" A study of placement or rank keeps one alpha.")] = None,
    method: Annotated[str | None, setting("method")] = None,
    targets: Annotated[str | None, setting("targets")] = None,
    lr: Annotated[str | None, setting("lr")] = None,
    batch_size: Annotated[str | None, setting("batch_size")] = None,
    validation: Annotated[str | None, setting("validation", more=" A quarter when left out.")] = None,
    seed: Annotated[str | None, setting("seed", more=" The first of several.")] = None,
    device: Annotated[str | None, setting("device")] = None,
    precision: Annotated[str | None, setting("precision")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Seeds to train each with; 3 when left out.")
    ] = None,
    ranks: Annotated[
        str, typer.Option(metavar="LIST", help="Ranks of a study of ranks, such as 1,2,4; 1 to 64 when left out.")
    ] = "",
    scores: Annotated[
        bool, typer.Option("--scores", help="Also draw with each, and score style, subject, copying and drift.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"A first look: {QUICK_STEPS} steps and one seed, unless you say otherwise; fewer steps where these "
            f"would take longer than {QUICK_SECONDS / 60:.0f} minutes.",
        ),
    ] = False,
    together: Annotated[int | None, TOGETHER] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting that all share. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The study's folder; study-KIND-IMAGES here when left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print study.json and nothing else.")] = False,
) -> None:
    """Train a style in several ways and say which does best on held-out images, and what is within noise.

    What is done is kept: the same command goes on where it was stopped, and more --seeds or --ranks add to it.
    """
    with mending(as_json=as_json):
        from trainer.study.arms import KINDS

        wanted = next((known for known in KINDS if known == kind), None)
        if wanted is None:
            raise ConfigError(f"{kind!r} is no study: write one of {', '.join(KINDS)}.")
        numbers = _ranks(ranks)
        if numbers and wanted != "rank":
            raise ConfigError(f"--ranks belongs to a study of ranks; a study of {wanted} takes one --rank.")
        source = images.expanduser().absolute()
        config = settings_of(source, given(context.params), set_ or [], quick=quick)
        folder = (out or Path(f"study-{wanted}-{source.name}{'-quick' if quick else ''}")).expanduser().absolute()
        quiet_libraries()
        from trainer.study.run import run

        count = seeds or (1 if quick else 3)
        within = QUICK_SECONDS if quick and steps is None and config.train.steps == QUICK_STEPS else None
        if as_json:
            found = run(
                wanted, config, folder, seeds=count, ranks=numbers, scores=scores, together=together, within=within
            )
            _draw(found, folder)
            typer.echo(found.to_json(), nl=False)
            return
        with Watching(folder) as watching:
            found = run(
                wanted,
                config,
                folder,
                seeds=count,
                ranks=numbers,
                scores=scores,
                together=together,
                within=within,
                emit=watching.said,
                told=watching.paced,
            )
        _draw(found, folder)
        show(found)
        typer.echo(f"{folder / 'study.json'} holds everything, {folder / PLOT} is the plot, styles/ the styles.")


def _ranks(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(re.fullmatch(r"[1-9][0-9]{0,2}", part) for part in parts) or (text and not parts):
        raise ConfigError(f"--ranks is {text!r}, but should be whole numbers from 1 on such as 1,2,4,8.")
    return tuple(map(int, parts))


def settings_of(source: Path, asked: dict[str, Any], extra: list[str], *, quick: bool) -> RunConfig:
    """What all that is compared shares."""
    from trainer.config import assignment, overlay, parse
    from trainer.data.folder import list_images

    asked.pop("data.images", None)
    words = " ".join(re.sub(r"[^\w]+|_", " ", source.name).split())
    values: dict[str, Any] = {"name": words[:80] or "style", "trigger": f"{words} style".strip()[:200]}
    overlay(values, {"data.images": str(source), "train.steps": QUICK_STEPS if quick else None})
    overlay(values, asked)
    overlay(values, dict(assignment(text) for text in extra))
    if not list_images(source)[0]:
        raise DatasetError(f"There are no images in {source}: put PNG, JPEG or WebP files in it.")
    return parse(values, names_of(asked))


class Watching:
    """What happens, in the terminal: what is being done, and a bar while arms are in training."""

    def __init__(self, folder: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.folder = folder
        self.console = Console(highlight=False, stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), console=self.console
        )
        self.task: Any = None
        self.told = ""

    def __enter__(self) -> Watching:
        self.bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt:
            self.console.print("What is done is kept; the same command goes on.")

    def said(self, event: Any) -> None:
        from rich.markup import escape

        from trainer.cli.progress import PHASES

        text = PHASES[event.name] if event.type == "phase" else event.text
        self.console.print(escape(printable(text)), style="yellow" if getattr(event, "level", "") == "warning" else "")

    def paced(self, pace: Pace) -> None:
        from rich.markup import escape

        from trainer.cli.progress import duration

        first, *others = pace.arms
        what = f"seed {pace.seed}: {first}" + (f" and {len(others)} more" if others else "")
        left = "" if pace.seconds_left is None else f"{duration(pace.seconds_left)} left"
        if not self.console.is_terminal:
            if what != self.told:
                self.told = what
                self.console.print(f"{what}: {pace.done} of {pace.total} steps done", markup=False)
            return
        if self.task is None:
            self.task = self.bar.add_task("", left="")
        self.bar.update(self.task, description=escape(what), completed=pace.done, total=pace.total, left=left)


def _draw(found: Study, folder: Path) -> None:
    from trainer.atomic import replace_file
    from trainer.study.plot import plot
    from trainer.study.result import rows

    table = [row for row in rows(found) if row.gain is not None]
    if table:
        note = f"{found.style}, {found.settings['train']['steps']} steps, {_seeds(found)}"
        if len(found.seeds) > 1:
            note += "; bars are 95% intervals of the mean"
        picture = plot(table, title=f"patina study {found.kind}", note=note)
        replace_file(folder / PLOT, lambda file: picture.quantize(64).save(file, "PNG", optimize=True))


def show(found: Study, console: Console | None = None) -> None:
    """Print a study's table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from trainer.study.result import rows

    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    lines = rows(found)
    scored = list(dict.fromkeys(key for row in lines for key in row.scores))
    for title in ("", "Rank", "Values", "Loss", "Below base", "Behind best", *map(str.capitalize, scored)):
        table.add_column(title, justify="right" if title else "left")
    table.add_column("")
    for row in lines:
        table.add_row(
            escape(row.arm),
            str(row.rank),
            f"{row.values:,}",
            "" if row.loss is None else f"{row.loss.mean:.5f}",
            "" if row.gain is None else _percent(row.gain.mean, row.gain.deviation),
            "" if row.behind is None else _percent(row.behind.mean, row.behind.interval),
            *(f"{row.scores[key]:.2f}" if key in row.scores else "" for key in scored),
            escape(row.note) if row.standing == "failed" else row.standing,
            style="bold" if row.standing == "best" else None,
        )
    console.print(table)
    if found.base_loss is not None:
        steps, rate = found.settings["train"]["steps"], found.settings["optim"]["learning_rate"]
        console.print(
            f"The base's own loss is {found.base_loss:.5f}, on {found.held_out} held-out images under {found.draws} "
            f"draws of noise at 8 levels; trained {steps} steps at {rate:g} on {found.training} images, "
            f"{_seeds(found)}.",
            markup=False,
        )
    console.print(_reading(lines, len(found.seeds)), markup=False)


def _reading(lines: list[Row], seeds: int) -> str:
    if seeds < 2:
        return "One seed shows no spread: what is best here may be luck. Ask for --seeds 3 to tell."
    best = next((row.arm for row in lines if row.standing == "best"), "")
    alike = [row.arm for row in lines if row.standing == "within noise"]
    start = "\u00b1 is the standard deviation over seeds, and behind the best half of the 95% interval. "
    if alike:
        return start + f"{best} is best, but these seeds cannot tell it from {', '.join(alike)}."
    return start + f"{best} is best, and not by chance alone as far as these seeds show."


def _seeds(found: Study) -> str:
    first, *more = found.seeds
    return f"seeds {first} to {more[-1]}" if more else f"seed {first}"


def _percent(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.2f}%" if spread is None else f"{100 * mean:.2f} \u00b1 {100 * spread:.2f}%"
