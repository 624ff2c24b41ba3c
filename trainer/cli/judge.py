"""``patina judge``: which saved state of a run at which strength, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.errors import ConfigError, RunError

if TYPE_CHECKING:
    from trainer.judging.judgement import Judgement
    from trainer.training.run_folder import RunFolder


def judge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that has ended.", show_default=False)],
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="STEP@STRENGTH",
            help="Keep this judged candidate instead, such as 300@0.75; the file is written anew.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what was judged before; nothing is drawn.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the judgement as JSON.")] = False,
) -> None:
    """Draw the same prompts with every saved state at several strengths, score them, and recommend one."""
    with mending(as_json=as_json):
        from trainer.training.run_folder import RunFolder

        folder = RunFolder(run.expanduser().absolute())
        if show and keep:
            raise ConfigError("--show only prints what was judged; leave it out to keep another candidate.")
        found = _read(folder) if show else _judged(folder, keep, quiet=as_json)
        if as_json:
            typer.echo(found.to_json(), nl=False)
            return
        _table(found)


def _read(folder: RunFolder) -> Judgement:
    from trainer.judging.judgement import from_json

    if not folder.judgement_file.is_file():
        raise RunError(f"{folder.path} was not judged yet: leave --show out.")
    return from_json(folder.judgement_file.read_bytes())


def _judged(folder: RunFolder, keep: str | None, *, quiet: bool) -> Judgement:
    wanted = None if keep is None else _candidate(keep)
    quiet_libraries()
    from trainer.cli.progress import Terminal
    from trainer.training.rejudging import judge_again

    if quiet:
        return judge_again(folder, emit=lambda event: None, keep=wanted)
    with Terminal(folder) as terminal:
        return judge_again(folder, emit=terminal, keep=wanted)


def _candidate(text: str) -> tuple[int, float]:
    step, _, strength = text.partition("@")
    try:
        return int(step), float(strength or "1")
    except ValueError:
        raise ConfigError(f"--keep is {text!r}, but should be a step and a strength such as 300@0.75.") from None


def _table(found: Judgement) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Step", "Strength", "Style", "Subject", "Copying", "By heart", "Drift", "Variety", ""):
        table.add_column(title, justify="left" if not title else "right")
    for one in found.candidates:
        kept = (one.step, one.strength) == found.kept
        recommended = (one.step, one.strength) == (found.step, found.strength)
        remark = "kept" if kept else "recommended" if recommended else one.excluded
        table.add_row(
            str(one.step),
            f"{one.strength:g}",
            f"{one.style:.2f}",
            f"{one.subject:.2f}",
            f"{one.nearness:.2f}",
            "" if one.recall is None else f"{one.recall:.2f}",
            f"{one.drift:.2f}",
            f"{one.variety:.2f}",
            remark,
            style="bold" if kept else None,
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(found.sentence, markup=False)
