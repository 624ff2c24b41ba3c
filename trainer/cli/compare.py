"""``patina compare``: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.mending import mending

if TYPE_CHECKING:
    from trainer.studio.compared import Compared, Side


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="That of another one.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, curves too.")] = False,
) -> None:
    """Show two runs side by side: settings and images that differ, how they learned, and what was picked of each."""
    with mending(as_json=as_json):
        from trainer.studio.compared import compared
        from trainer.training.run_folder import RunFolder

        found = compared(RunFolder(first.expanduser().absolute()), RunFolder(second.expanduser().absolute()))
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=1))
            return
        _show(found)


def _show(found: Compared) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from trainer.printable import printable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", found.first.name, found.second.name):
        table.add_column(escape(printable(title)), overflow="fold")
    rows = [(label, of(found.first), of(found.second)) for label, of in _FACTS.items()]
    rows += [(each.path, _said(each.first), _said(each.second)) for each in found.settings]
    for label, one, other in rows:
        if one or other:
            table.add_row(escape(label), escape(printable(one)), escape(printable(other)))
    console = Console(highlight=False)
    console.print(table)
    for names, words in ((found.only_first, "in the first alone"), (found.only_second, "in the second alone")):
        if names:
            console.print(printable(f"Images {words}: {', '.join(names)}."), markup=False)
    if found.captions:
        console.print(printable(f"Other captions: {', '.join(found.captions)}."), markup=False)
    for note in found.notes:
        console.print(note, markup=False, style="yellow")
    for pair in found.pairs:
        console.print(printable(f"{pair.prompt}: {pair.first} | {pair.second}"), markup=False, soft_wrap=True)


def _origin(side: Side) -> str:
    if side.origin is None:
        return ""
    return side.origin.name + (f", without {side.origin.without}" if side.origin.without else "")


def _loss(side: Side) -> str:
    """The mean of the last tenth: single steps say little."""
    last = side.losses[-max(1, len(side.losses) // 10) :]
    return f"{sum(last) / len(last):.4f}" if last else ""


def _held_out(side: Side) -> str:
    return f"{side.validation[-1].loss:.4f} (base {side.validation[-1].base_loss:.4f})" if side.validation else ""


_FACTS: dict[str, Any] = {
    "trained again from": _origin,
    "images": lambda side: str(side.images),
    "steps": lambda side: str(side.step),
    "loss at the end": _loss,
    "held-out loss": _held_out,
    "in the file": lambda side: f"step {side.kept[0]} at {side.kept[1]:g}" if side.kept else "",
    "style": lambda side: "" if side.style is None else f"{side.style:.2f}",
    "subject": lambda side: "" if side.subject is None else f"{side.subject:.2f}",
}


def _said(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
