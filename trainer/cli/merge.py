"""``patina merge``: several styles as one."""

from __future__ import annotations

from typing import Annotated

import typer

from trainer.cli.mending import mending
from trainer.cli.style_files import Energy, Format, Name, Out, Precision, Rank, styles_of, target


def merge(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE[:STRENGTH]...",
            help="Two style files or more, each with its strength after a colon: ink.safetensors:0.8.",
            show_default=False,
        ),
    ],
    out: Out,
    rank: Rank = None,
    energy: Energy = None,
    name: Name = "",
    format: Format = "kohya",  # noqa: A002
    precision: Precision = "fp32",
) -> None:
    """Blend styles into one file: exact without --rank or --energy, where ranks add up; smaller with them."""
    with mending():
        to = target(out, format, precision)
        from trainer.workbench.merge import Ingredient
        from trainer.workbench.merge import merge as merged

        ingredients = [Ingredient(file, strength) for file, strength in styles_of(files, "FILE")]
        to.write(merged(ingredients, rank=rank, energy=energy, name=name))
