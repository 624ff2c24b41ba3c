"""``patina diff``: what differs between two styles."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.mending import mending

if TYPE_CHECKING:
    from trainer.workbench.diff import Difference

_LONGEST = 60
"""Characters of a setting's value."""


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A .safetensors file with a style.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
) -> None:
    """Show how two styles differ: settings, layers, and the size of and the angle between their updates."""
    with mending(as_json=as_json):
        from trainer.styles.read import read_style
        from trainer.workbench.diff import diff as compared

        found = compared(read_style(first.expanduser()), read_style(second.expanduser()))
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=1))
            return
        _show(found, every_layer=layers)


def _show(found: Difference, *, every_layer: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)

    def say(label: str, text: str) -> None:
        console.print(f"[dim]{label:<14}[/] {escape(text)}")

    say("A", found.names[0])
    say("B", found.names[1])
    say(
        "Layers",
        f"{len(found.layers)} in both, {len(found.only_first)} in A alone, {len(found.only_second)} in B alone",
    )
    if found.same_update:
        say("Change", f"the same, of norm {found.norms[0]:.4g}")
    else:
        say("Norms", f"{found.norms[0]:.4g} and {found.norms[1]:.4g}")
        say("Angle", f"{math.degrees(found.angle):.3g} degrees; 0 is one direction, 90 nothing in common")
        say("Distance", f"{found.distance:.4g}")
    for key, values in found.settings.items():
        say(key, " -> ".join(_short(value) for value in values))
    for note in found.notes:
        console.print(escape(note))
    if every_layer:
        console.print("\n rank A  rank B     norm A     norm B  degrees  layer")
        for layer in found.layers:
            console.print(
                f"{layer.ranks[0]:>7} {layer.ranks[1]:>7} {layer.norms[0]:>10.4g} {layer.norms[1]:>10.4g} "
                f"{math.degrees(layer.angle):>8.3g}  {escape(layer.path)}"
            )


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
