"""``patina export``: a style file in another layout or number format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from trainer.cli.mending import mending
from trainer.config import FileLayout
from trainer.errors import ConfigError

_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def export(
    file: Annotated[Path, typer.Argument(help="A .safetensors file with a style.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    format: Annotated[str, typer.Option(help="kohya (opens everywhere) or diffusers (PEFT's own layout).")] = "kohya",  # noqa: A002
    precision: Annotated[str, typer.Option(help="fp32 keeps every bit; fp16 and bf16 halve the file.")] = "fp32",
) -> None:
    """Write a style file again in another layout or number format; nothing about the style changes."""
    with mending():
        if format not in get_args(FileLayout):
            raise ConfigError(f"--format is {format!r}, but should be kohya or diffusers.")
        if precision not in _TYPES:
            raise ConfigError(f"--precision is {precision!r}, but should be one of {', '.join(_TYPES)}.")
        target = out.expanduser()
        if target.exists():
            raise ConfigError(f"{target} exists already: choose another --out.")
        import torch

        from trainer.adapters.formats import read_adapter, write_adapter

        read = read_adapter(file.expanduser())
        layout: FileLayout = "kohya" if format == "kohya" else "diffusers"
        write_adapter(
            target, read.layers, layout=layout, metadata=read.metadata, dtype=getattr(torch, _TYPES[precision])
        )
        for note in read.notes:
            typer.echo(note, err=True)
        typer.echo(target)
