"""``patina bake``: styles inside a base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.style_files import progress, styles_of


def bake(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE[:STRENGTH]...",
            help="Style files, each with its strength after a colon: ink.safetensors:0.8.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="A Hugging Face id, a diffusers folder or a .safetensors file.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="The folder to write, or of a single-file base the .safetensors file.",
            show_default=False,
        ),
    ],
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which weights of a folder to take, such as fp16.")
    ] = None,
) -> None:
    """Write a base with styles inside it: a plain model that every tool opens and that draws as fast as before."""
    with mending():
        quiet_libraries()
        from trainer.workbench.bake import bake as baked
        from trainer.workbench.base_files import open_base_files
        from trainer.workbench.merge import Ingredient

        ingredients = [Ingredient(file, strength) for file, strength in styles_of(files, "FILE")]
        with progress("Baking") as told:
            done = baked(ingredients, open_base_files(base, variant=variant), out.expanduser(), told=told)
        for note in (*done.notes, done.sentence()):
            typer.echo(note, err=True)
        typer.echo(done.path)
