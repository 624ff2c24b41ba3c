"""``patina export``: a style file in another layout or number format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from trainer.cli.mending import mending
from trainer.cli.options import choices
from trainer.config import FileLayout
from trainer.errors import ConfigError

_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file with a style.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.", show_default=False)],
    format: Annotated[  # noqa: A002
        str, typer.Option(metavar=choices(FileLayout), help="kohya opens everywhere; diffusers is PEFT's own layout.")
    ] = "kohya",
    precision: Annotated[
        str, typer.Option(metavar="|".join(_TYPES), help="fp32 keeps every bit; fp16 and bf16 halve the file.")
    ] = "fp32",
) -> None:
    """Write a style file again in another layout or number format; nothing about the style changes."""
    with mending():
        if format not in get_args(FileLayout):
            raise ConfigError(f"--format is {format!r}, but should be kohya or diffusers.")
        if precision not in _TYPES:
            raise ConfigError(f"--precision is {precision!r}, but should be fp32, fp16 or bf16.")
        target = out.expanduser()
        _check(target)
        import torch

        from trainer.styles.file import readers_of
        from trainer.styles.read import read_style
        from trainer.styles.write import write_style

        read = read_style(file.expanduser())
        layout: FileLayout = "kohya" if format == "kohya" else "diffusers"
        dtype = getattr(torch, _TYPES[precision])
        write_style(target, read.layers, layout=layout, metadata=read.metadata, dtype=dtype)
        for note in read.notes + readers_of(read.layers):
            typer.echo(note, err=True)
        typer.echo(target)


def _check(target: Path) -> None:
    """Refuse a place that cannot be written to, or that would be overwritten, before anything is read."""
    if target.exists():
        raise ConfigError(f"--out {target} exists already: choose another name, so that nothing is overwritten.")
    if target.suffix.lower() != ".safetensors":
        raise ConfigError(f"--out {target} should end in .safetensors, or other programs will not find it.")
    if not target.parent.is_dir():
        raise ConfigError(f"--out {target} cannot be written: there is no folder {target.parent}.")
