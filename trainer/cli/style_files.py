"""What the commands that write style files share: their options, and how what was made is written and told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from trainer.cli.options import choices
from trainer.config import FileLayout
from trainer.errors import ConfigError
from trainer.preview.order import PlacedStyle
from trainer.styles.alpha import Alpha

if TYPE_CHECKING:
    from trainer.styles.file import StyleFile
    from trainer.workbench.made import Made

TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file with a style.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The .safetensors file to write.", show_default=False)]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar=choices(FileLayout),
        help="kohya opens in nearly every program; diffusers only in diffusers and stable-diffusion.cpp.",
    ),
]
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="|".join(TYPES), help="fp32 keeps every bit; fp16 and bf16 halve the file."),
]
Rank = Annotated[int | None, typer.Option("--rank", metavar="INTEGER", help="Most directions of a layer.")]
Energy = Annotated[
    float | None,
    typer.Option(
        "--energy", metavar="NUMBER", help="Share of each layer's energy (squared norm) to keep, such as 0.95."
    ),
]
AlphaTold = Annotated[
    str | None,
    typer.Option(
        "--alpha",
        metavar="NUMBER|rank",
        help="Alpha of a file that does not say it: what it was trained with, or rank, which is what diffusers takes.",
    ),
]
RsLora = Annotated[bool, typer.Option("--rslora", help="That alpha counts by the root of the rank (rsLoRA).")]
Name = Annotated[str, typer.Option("--name", metavar="TEXT", help="The new style's name.")]


@dataclass(frozen=True)
class Target:
    """Where and how a style is to be written, made sure of before anything is read."""

    path: Path
    layout: FileLayout
    precision: str

    def write(self, made: Made) -> None:
        """Write what was made, and tell it, and where it opens."""
        import torch

        for note in made.notes:
            typer.echo(note, err=True)
        from trainer.styles.consumers import told
        from trainer.styles.consumers.proof import prove
        from trainer.styles.read import read_style

        made.write(self.path, layout=self.layout, dtype=getattr(torch, TYPES[self.precision]))
        for line in told(prove(read_style(self.path))):
            typer.echo(line, err=True)
        typer.echo(self.path)


def alpha_told(alpha: str | None, *, rslora: bool) -> Alpha | None:
    """The options `AlphaTold` and `RsLora` as an answer; None where nothing was told.

    Raises:
        ConfigError: alpha is neither a number nor ``rank``, or only ``--rslora`` was given.
    """
    if alpha is None:
        if rslora:
            raise ConfigError("--rslora says how alpha counts: say alpha too, such as --alpha 16 or --alpha rank.")
        return None
    return Alpha.parse(alpha, by_root=rslora)


def target(out: Path, layout: str, precision: str) -> Target:
    """The options as a `Target`.

    Raises:
        ConfigError: the file exists or cannot be written, or an option has no such value.
    """
    if layout not in get_args(FileLayout):
        raise ConfigError(f"--format is {layout!r}, but should be kohya or diffusers.")
    if precision not in TYPES:
        raise ConfigError(f"--precision is {precision!r}, but should be fp32, fp16 or bf16.")
    return Target(free_file(out, "--out"), "kohya" if layout == "kohya" else "diffusers", precision)


def free_file(
    out: Path, option: str, ending: str = ".safetensors", why: str = ", or other programs will not find it"
) -> Path:
    """A place for a new file, of a style unless told otherwise, where nothing is overwritten.

    Args:
        ending: what its name must end in, and ``why``.

    Raises:
        ConfigError: something lies there, or it is none that such a file can be written to.
    """
    path = out.expanduser()
    if path.exists():
        raise ConfigError(f"{option} {path} exists already: choose another name, so that nothing is overwritten.")
    if path.suffix.lower() != ending:
        raise ConfigError(f"{option} {path} should end in {ending}{why}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path} cannot be written: there is no folder {path.parent}.")
    return path


def style_of(text: str, option: str = "--adapter") -> tuple[PlacedStyle, float]:
    """``FILE`` or ``FILE:STRENGTH`` as a style and its strength; a colon that is no strength belongs to the name.

    Raises:
        ConfigError: what follows a file's name is no number.
    """
    head, colon, tail = text.rpartition(":")
    if not (colon and head):
        return _style_in(text), 1.0
    try:
        strength = float(tail)
    except ValueError:
        if not head.lower().endswith(".safetensors"):
            return _style_in(text), 1.0
        strength = math.nan
    if not math.isfinite(strength):
        raise ConfigError(f"{option} is {text!r}, but its strength should be a number, such as {head}:0.8.")
    return _style_in(head), strength


def _style_in(text: str) -> PlacedStyle:
    path = Path(text).expanduser()
    return PlacedStyle(style=text, name=path.stem, path=str(path))


def styles_of(texts: Iterable[str], option: str) -> Iterator[tuple[StyleFile, float]]:
    """The styles that ``FILE[:STRENGTH]`` names, read, with their strengths."""
    from trainer.styles.read import read_style

    for style, strength in [style_of(text, option) for text in texts]:
        yield read_style(Path(style.path)), strength


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, while something long is done; what it gives is told how many of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
