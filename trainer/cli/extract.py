"""``patina extract``: a style out of a tuned base, or a plain LoRA out of a style that needs its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.style_files import Energy, Format, Name, Out, Precision, Rank, progress, target
from trainer.errors import ConfigError


def extract(
    out: Out,
    base: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What the style is for: a Hugging Face id, a diffusers folder or a .safetensors file.",
            show_default=False,
        ),
    ],
    tuned: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A base that was trained further; its difference is taken.")
    ] = None,
    style: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A style that is no plain LoRA, such as DoRA.")
    ] = None,
    rank: Rank = None,
    energy: Energy = None,
    targets: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="With --tuned: which layers of the denoiser, as in training; without it all layers."
        ),
    ] = "",
    name: Name = "",
    format: Format = "kohya",  # noqa: A002
    precision: Precision = "fp32",
) -> None:
    """Make a plain LoRA of the difference of two bases (--tuned), or of a style of another kind (--style)."""
    with mending():
        to = target(out, format, precision)
        if (tuned is None) == (style is None):
            raise ConfigError("Say what to extract from: either --tuned BASE or --style FILE.")
        if style is not None and targets:
            raise ConfigError("--targets goes with --tuned; patina split keeps some layers of a style.")
        quiet_libraries()
        from trainer.styles.read import read_style
        from trainer.workbench.base_files import open_base_files
        from trainer.workbench.extract import extract as extracted
        from trainer.workbench.extract import flatten
        from trainer.workbench.resize import check

        check(rank, energy)
        original = open_base_files(base)
        with progress("Extracting") as told:
            if style is not None:
                made = flatten(read_style(style.expanduser()), original, rank=rank, energy=energy, name=name, told=told)
            else:
                assert tuned is not None
                made = extracted(
                    open_base_files(tuned), original, rank=rank, energy=energy, targets=targets, name=name, told=told
                )
        to.write(made)
