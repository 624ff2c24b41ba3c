"""``patina race``: several settings trained side by side, of which the better half goes on until one is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.options import given, setting
from trainer.cli.study import TOGETHER, Watching, settings_of
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.events import Emit
    from trainer.study.bench import Pace
    from trainer.study.race import Race

Value = TypeVar("Value", int, float)


def race(
    context: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with the images of the style.", show_default=False)
    ],
    rates: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Learning rates, such as 1e-4,3e-4; an eighth to four times the preset's when left out.",
        ),
    ] = "",
    ranks: Annotated[str, typer.Option(metavar="LIST", help="Ranks, such as 4,8,16.")] = "",
    methods: Annotated[str, typer.Option(metavar="LIST", help="Methods, such as lora,dora.")] = "",
    places: Annotated[
        list[str] | None, typer.Option(metavar="TARGETS", help="Which layers learn; repeated for each that races.")
    ] = None,
    base: Annotated[str | None, setting("base")] = None,
    trigger: Annotated[str | None, setting("trigger", more=" The folder's name and 'style' when left out.")] = None,
    preset: Annotated[str | None, setting("preset")] = None,
    steps: Annotated[str | None, setting("steps", more=" The winner's; others drop out before.")] = None,
    batch_size: Annotated[str | None, setting("batch_size")] = None,
    validation: Annotated[str | None, setting("validation", more=" A quarter when left out.")] = None,
    seed: Annotated[str | None, setting("seed")] = None,
    device: Annotated[str | None, setting("device")] = None,
    precision: Annotated[str | None, setting("precision")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    together: Annotated[int | None, TOGETHER] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting that all share. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The race's folder; race-IMAGES here when left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print race.json and nothing else.")] = False,
) -> None:
    """Find the learning rate, or the rank, method or layers, by training several side by side.

    After an eighth, a quarter and a half of the steps the better half goes on, by the loss on held-out images; the
    winner is trained to the end. Every combination of what is named races. The same command goes on where it was
    stopped.
    """
    with mending(as_json=as_json):
        numbers = _numbers("--rates", rates, float), _numbers("--ranks", ranks, int)
        kinds = [part.strip() for part in methods.split(",") if part.strip()]
        source = images.expanduser().absolute()
        config = settings_of(source, given(context.params), set_ or [], quick=False)
        folder = (out or Path(f"race-{source.name}")).expanduser().absolute()
        quiet_libraries()
        from trainer.study.race import WINNER, WINNER_SETTINGS, race

        def run(emit: Emit, told: Callable[[Pace], None]) -> Race:
            return race(
                config,
                folder,
                rates=numbers[0],
                ranks=numbers[1],
                targets=places or (),
                methods=kinds,
                together=together,
                emit=emit,
                told=told,
            )

        if as_json:
            typer.echo(run(lambda event: None, lambda pace: None).to_json(), nl=False)
            return
        with Watching(folder) as watching:
            found = run(watching.said, watching.paced)
        show(found)
        typer.echo(
            f"{folder / WINNER} is the winner's style, learned without the held-out images. "
            f"patina train --config {folder / WINNER_SETTINGS} trains it on all."
        )


def _numbers(flag: str, text: str, read: Callable[[str], Value]) -> tuple[Value, ...]:
    try:
        found = tuple(read(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if (text.strip() and not found) or not all(number > 0 for number in found):
        example = "1e-4,3e-4,1e-3" if read is float else "4,8,16"
        raise ConfigError(f"{flag} is {text!r}, but should be numbers above 0 such as {example}.")
    return found


def show(found: Race, console: Console | None = None) -> None:
    """Print who raced, how far each came, and who won."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heat in found.heats:
        table.add_column(f"step {heat.steps}", justify="right")
    table.add_column("")
    far = {entrant.name: sum(entrant.name in heat.losses for heat in found.heats) for entrant in found.entrants}
    last = {
        name: next((h.losses[name] for h in reversed(found.heats) if h.losses.get(name) is not None), None)
        for name in far
    }
    for name in sorted(far, key=lambda name: (-far[name], last[name] is None, last[name] or 0.0)):
        cells = []
        for heat in found.heats:
            loss = heat.losses.get(name)
            lost = "came apart" if name in heat.losses else ""
            cells.append(lost if loss is None else f"{loss:.5f}")
        won = name == found.winner
        table.add_row(escape(name), *cells, "winner" if won else "", style="bold" if won else None)
    console = console or Console(highlight=False)
    console.print(table)
    base = "" if found.base_loss is None else f"; the base's own is {found.base_loss:.5f}"
    console.print(
        f"Loss on {found.held_out} held-out images under {found.draws} draws of noise{base}. "
        f"{found.cost} steps in all, where training each to its end takes {found.sweep}.",
        markup=False,
    )
