"""The command line: ``patina COMMAND``, such as ``patina train``.

Exit codes: 0; 1 for a bug, with a log; 2 for what the user can mend, with one sentence on standard error; 130 for
Ctrl-C. A command's module is imported when the command is called, so that ``patina --help`` is quick.
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer

from trainer.child import spins
from trainer.cli.told import Command, Group, told
from trainer.languages import terminal_language
from trainer.languages.columns import wrappable

COMMANDS = {
    "caption": "Have a model write what the images of a folder show.",
    "train": "Train a style on a folder of images and save it as a file.",
    "judge": "Say which saved state of a run at which strength, and why; or keep another one.",
    "compare": "Show two runs side by side: what was set differently, and what came of it.",
    "sample": "Draw pictures with styles, at one or more strengths.",
    "inspect": "Show what is in a style file, whoever made it.",
    "convert": "Write a style file again in another layout or format.",
    "merge": "Blend several styles into one file.",
    "resize": "Make a style file smaller by lowering its rank.",
    "split": "Keep some blocks of a style.",
    "diff": "Show how two styles differ.",
    "bake": "Write a base with styles inside it.",
    "extract": "Make a style of the difference of two bases, or a plain LoRA of another kind of style.",
    "publish": "Send a style to the hub, or pack it with pictures and a model card.",
    "study": "Compare ways to train a style: which matrices, which rank, which method.",
    "race": "Find the learning rate, or other settings: train several side by side and drop the worse ones.",
    "studio": "Open the studio in the browser; --export and --import make and read a backup.",
    "doctor": "Look at the installation, the device and the studio folder, and repair what can be repaired.",
}
"""Name -> one line for ``patina --help``; the command itself is the function of that name in ``trainer.cli.<name>``."""

FORMER_NAMES = {"export": "convert"}
"""Names that commands had before and still answer to."""

_CONTEXT = {"help_option_names": ["-h", "--help"]}


class _Commands(Group):
    """The commands, each loaded when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        cmd_name = FORMER_NAMES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            near = get_close_matches(cmd_name, COMMANDS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {cmd_name!r}: {advice}")
        # Before any command imports torch.
        os.environ.update(spins())
        module = import_module(f"trainer.cli.{cmd_name}")
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        context = _CONTEXT | getattr(module, "CONTEXT", {})
        alone.command(cmd_name, cls=Command, context_settings=context)(getattr(module, cmd_name))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        language = terminal_language()
        with formatter.section("Commands"):
            formatter.write_dl([(name, wrappable(told(line, language), language)) for name, line in COMMANDS.items()])


app = typer.Typer(
    name="patina",
    cls=_Commands,
    help="Teach a Stable Diffusion model a style from a handful of images.",
    epilog="Start with: patina train FOLDER. Each command has its own --help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_CONTEXT,
)


def _version(wanted: bool) -> None:
    if wanted:
        from trainer.version import __version__

        typer.echo(f"patina {__version__}")
        raise typer.Exit


@app.callback()
def _patina(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teach a Stable Diffusion model a style from a handful of images."""


def main() -> None:
    """What the console script runs."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe of another encoding shows a question mark for a letter it lacks, and no traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="patina")
