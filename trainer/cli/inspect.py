"""``patina inspect``: what is in a style file, whoever made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.errors import ConfigError


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file with a style.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer with its norm.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Say instead which directions this style shares with another."),
    ] = None,
    directions: Annotated[
        str, typer.Option(metavar="outputs|inputs|A", help="With --against: what updates write or read, or A alone.")
    ] = "outputs",
    on: Annotated[
        str | None,
        typer.Option(metavar="BASE", help="Say instead how far it turns up what the layers of this base hardly do."),
    ] = None,
    heat_map: Annotated[
        Path | None, typer.Option("--heat-map", metavar="PNG", help="With --against, a file for its heat maps.")
    ] = None,
) -> None:
    """Show a style file's layout, rank, alpha, targets, base, trigger, hashes and how much it changes."""
    with mending(as_json=as_json):
        if against is not None and on is not None:
            raise ConfigError("--against and --on are two questions: ask one at a time.")
        if against is not None:
            from trainer.cli.overlap import compare

            return compare(file, against, directions, heat_map, as_json=as_json)
        if on is not None:
            from trainer.cli.overlap import amplify

            quiet_libraries()
            return amplify(file, on, as_json=as_json)
        if heat_map is not None:
            raise ConfigError("--heat-map compares two styles: name the other one with --against.")
        from trainer.styles.inspect import inspect_file

        found = inspect_file(file.expanduser())
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=1))
            return None
        from trainer.cli.inspection import show

        show(found, every_layer=layers)
        return None
