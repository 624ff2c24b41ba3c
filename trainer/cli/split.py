"""``patina split``: a part of a style."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import mending
from trainer.cli.style_files import File, Format, Name, Out, Precision, Target, free_file, target
from trainer.errors import ConfigError


def split(
    file: File,
    keep: Annotated[
        str,
        typer.Option(
            metavar="PART",
            help="style or content (the two blocks of B-LoRA, SDXL alone), a named target such as cross, or a regular "
            "expression over whole paths of layers.",
            show_default=False,
        ),
    ],
    out: Out,
    rest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the other layers to this .safetensors file.")
    ] = None,
    name: Name = "",
    format: Format = "kohya",  # noqa: A002
    precision: Precision = "fp32",
) -> None:
    """Keep the layers of some blocks of a style, and write the others apart with --rest."""
    with mending():
        to = target(out, format, precision)
        other = None if rest is None else Target(free_file(rest, "--rest"), to.layout, to.precision)
        from trainer.styles.read import read_style
        from trainer.workbench.split import split as parted

        kept, left = parted(read_style(file.expanduser()), keep, name=name)
        if other is not None and left is None:
            raise ConfigError(f"--keep {keep!r} matches every layer of {file}, so that nothing is left for --rest.")
        to.write(kept)
        if other is not None and left is not None:
            other.write(left)
