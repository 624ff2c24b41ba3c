"""``patina caption``: have a model write what the images of a folder show."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from trainer.cli.mending import mending, quiet_libraries
from trainer.errors import BaseError, ConfigError, DatasetError
from trainer.printable import printable

if TYPE_CHECKING:
    from trainer.captioning.model import CaptionModel
    from trainer.captioning.writers import Writer

SOURCES = {"sidecar": "a text file", "metadata": "metadata.jsonl", "name": "a name that says something"}


def caption(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The folder that holds the images.", show_default=False)
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="florence-2, blip, a folder with either kind of model, or its Hugging Face id.",
        ),
    ] = "florence-2",
    length: Annotated[
        str, typer.Option(metavar="short|long", help="A phrase, or some sentences, which Florence-2 alone writes.")
    ] = "short",
    style_words: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Phrases to leave out, one a line, instead of the usual list; an empty file leaves nothing out.",
            show_default=False,
        ),
    ] = None,
    print_style_words: Annotated[
        bool, typer.Option("--print-style-words", help="Print the usual list, as a beginning of your own, and end.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write captions anew where there are some, your own included.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download the model without asking.")] = False,
    device: Annotated[str, typer.Option(metavar="TEXT", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")] = False,
) -> None:
    """Write what each image shows into a text file beside it; images that have a caption keep it.

    For a style a caption should say what is shown, not how: words such as "a watercolor of" are left out. What the
    model said is kept by image, so that another list of words costs no second look.
    """
    with mending():
        from trainer.captioning import style_words as words_of

        if print_style_words:
            typer.echo("\n".join(words_of.STYLE_WORDS))
            return
        if folder is None:
            raise DatasetError("Name the folder that holds the images, as in: patina caption FOLDER.")
        quiet_libraries()
        from trainer.captioning.folder import work_of, write_captions
        from trainer.captioning.kept import Kept
        from trainer.captioning.writers import kind_of, locate, require_length
        from trainer.cli.style_files import progress
        from trainer.config import TrainConfig, sentence
        from trainer.studio.folder import StudioFolder, studio_path

        words = words_of.STYLE_WORDS if style_words is None else words_of.read_words(style_words.expanduser())
        try:
            chosen = TrainConfig(device=device).device
        except ValidationError as error:
            raise ConfigError(sentence(error)) from None
        work = work_of(folder.expanduser(), replace=replace)
        _say_what_is_kept(Counter(SOURCES[source] for source in work.kept.values()))
        if not work.missing:
            typer.echo("There is nothing to write.", err=True)
            return
        writer = _here(locate(model, offline=offline), length, yes=yes)
        where = writer.folder
        assert where is not None
        size = require_length(kind_of(where), length)

        def opened() -> CaptionModel:
            from trainer.captioning.model import CaptionModel
            from trainer.hardware import pick_device

            return CaptionModel(where, pick_device(chosen))

        kept = Kept(StudioFolder(studio_path()).kept_captions)
        done = 0
        with progress("Captions") as told:
            told(0, len(work.missing))
            written = write_captions(work, writer, opened, kept, length=size, words=words, dry=dry_run)
            for number, each in enumerate(written, start=1):
                told(number, len(work.missing))
                if each.problem:
                    typer.echo(printable(each.problem), err=True)
                else:
                    done += 1
                    typer.echo(printable(f"{each.name}: {each.caption}"))
        typer.echo(f"{done} of {len(work.missing)} captions {'would be ' * dry_run}written.", err=True)


def _say_what_is_kept(counts: Counter[str]) -> None:
    if not counts:
        return
    listed = ", ".join(f"{count} by {name}" for name, count in counts.items())
    typer.echo(f"Captioned already and left as they are: {listed} (--replace writes them anew).", err=True)


def _here(writer: Writer, length: str, *, yes: bool) -> Writer:
    """The model on this machine; where it has to be downloaded, that is asked first.

    Raises:
        BaseError: it may not be downloaded, or cannot be.
    """
    from trainer.captioning.writers import fetch

    if writer.folder is not None:
        return writer
    said = (
        f"{writer.name} is not on this machine: {writer.download_bytes / 1e9:.2f} GB from the Hugging Face hub, once."
    )
    if not yes:
        if not sys.stdin.isatty():
            raise BaseError(f"{said} Say --yes to download it.")
        if not typer.confirm(f"{said} Download it?", err=True):
            raise typer.Exit
    else:
        typer.echo(said, err=True)
    return fetch(writer, length)
