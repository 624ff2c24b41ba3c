"""What the user can mend becomes one sentence and exit code 2; Ctrl-C becomes 130; anything else is a bug and shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from trainer.errors import PatinaError

MENDABLE = 2
INTERRUPTED = 130


@contextmanager
def mending(*, as_json: bool = False) -> Iterator[None]:
    """Around a command's work: errors of `trainer.errors` are said and end the command.

    Args:
        as_json: say the sentence as a JSON line on standard output as well.
    """
    try:
        yield
    except PatinaError as error:
        if as_json:
            typer.echo(json.dumps({"type": "error", "message": str(error)}))
        typer.secho(f"patina: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        raise typer.Exit(MENDABLE) from None
    except KeyboardInterrupt:
        typer.echo("patina: stopped.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def quiet_libraries() -> None:
    """Keep the advice that libraries print for their own developers out of the user's way."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
