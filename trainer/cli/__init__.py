"""The command line: ``patina train | sample | inspect | export | studio``.

Exit codes: 0; 2 for what the user can mend, with one sentence on standard error; 130 for Ctrl-C.
"""

from __future__ import annotations

from typing import Annotated

import typer

from trainer.cli.export import export
from trainer.cli.inspect import inspect
from trainer.cli.sample import sample
from trainer.cli.train import train

app = typer.Typer(
    name="patina",
    help="Teach a Stable Diffusion model a style from a handful of images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from trainer import __version__

        typer.echo(f"patina {__version__}")
        raise typer.Exit


@app.callback()
def _patina(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teach a Stable Diffusion model a style from a handful of images."""


app.command()(train)
app.command()(sample)
app.command()(inspect)
app.command()(export)


def main() -> None:
    """What the console script runs."""
    app()
