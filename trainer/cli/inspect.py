"""``patina inspect``: what is in a style file, whoever made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import mending


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file with a style.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer with its norm.")] = False,
) -> None:
    """Show a style file's layout, rank, alpha, targets, base, trigger, hashes and how much it changes."""
    with mending(as_json=as_json):
        from trainer.styles.inspect import inspect_file

        found = inspect_file(file.expanduser())
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=1))
            return
        from trainer.cli.inspection import show

        show(found, every_layer=layers)
