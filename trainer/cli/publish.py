"""``patina publish``: a style with everything that the hub, model sites and other tools want beside it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.options import choices
from trainer.cli.progress import size
from trainer.cli.style_files import free_file
from trainer.config import FileLayout
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainer.publishing.parcel import Parcel
    from trainer.publishing.subject import Subject

PrivateInfo = Literal["strip", "keep"]


def publish(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a finished run, or a .safetensors file with a style.", show_default=False
        ),
    ],
    to: Annotated[
        str, typer.Option(metavar="USER/NAME", help="Send it to this repository on the Hugging Face hub.")
    ] = "",
    folder: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the files into this new folder.")] = None,
    zip_: Annotated[Path | None, typer.Option("--zip", metavar="FILE", help="Write the files as this .zip.")] = None,
    private_info: Annotated[
        str,
        typer.Option(
            metavar=choices(PrivateInfo),
            help="What becomes of captions, names of images and paths in the files: they are taken out, or kept.",
        ),
    ] = "strip",
    license_: Annotated[
        str, typer.Option("--license", metavar="TEXT", help="The style's licence, such as cc-by-4.0.")
    ] = "",
    base_model: Annotated[
        str, typer.Option(metavar="TEXT", help="The base's id on the hub, where it was opened as a file or folder.")
    ] = "",
    author: Annotated[str, typer.Option(metavar="TEXT", help="Who made the style.")] = "",
    format: Annotated[  # noqa: A002
        str, typer.Option(metavar=choices(FileLayout), help="Layout of the style; without it the one it has.")
    ] = "",
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is made now is for your eyes alone.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
) -> None:
    """Put a style together with its pictures, settings and a model card, and send it or write it to a folder or zip."""
    with mending():
        from trainer.publishing.parcel import Choices, packed
        from trainer.publishing.push import check_repo

        if not (to or folder or zip_):
            raise ConfigError("Say where it goes: --to USER/NAME, --folder FOLDER or --zip FILE.")
        if private_info not in get_args(PrivateInfo):
            raise ConfigError(f"--private-info is {private_info!r}, but should be strip or keep.")
        if format and format not in get_args(FileLayout):
            raise ConfigError(f"--format is {format!r}, but should be kohya or diffusers.")
        chosen = Choices(
            keep_private=private_info == "keep",
            license=license_,
            base=_hub_id(base_model),
            author=author,
            repo=check_repo(to) if to else "",
        )
        target = free_file(zip_, "--zip", ".zip", why="") if zip_ else None
        quiet_libraries()
        with _subject(run.expanduser(), format) as subject:
            if folder:
                from trainer.publishing.parcel import pack

                parcel = pack(subject, folder.expanduser(), chosen)
                _finish(parcel, chosen.repo, target, private=private, yes=yes)
                typer.echo(parcel.folder)
            else:
                with packed(subject, chosen) as parcel:
                    _finish(parcel, chosen.repo, target, private=private, yes=yes)


def _finish(parcel: Parcel, repo: str, target: Path | None, *, private: bool, yes: bool) -> None:
    for name, count in parcel.files.items():
        typer.echo(f"{size(count):>10}  {name}", err=True)
    for note in parcel.notes:
        typer.echo(note, err=True)
    if target is not None:
        from trainer.publishing.parcel import write_zip

        write_zip(parcel, target)
        typer.echo(target)
    if repo:
        from trainer.publishing.push import push

        question = f"Send these {len(parcel.files)} files ({size(parcel.size)}) to {repo}?"
        if not yes and not typer.confirm(question, err=True):
            typer.echo("Nothing was sent.", err=True)
            return
        typer.echo(push(parcel, repo, private=private))


@contextmanager
def _subject(path: Path, layout: str) -> Iterator[Subject]:
    """The style in the layout asked for; another one than its own is written for the while."""
    from trainer.publishing.subject import of_file, of_run
    from trainer.training.run_folder import RunFolder

    folder = RunFolder(path.absolute()) if path.is_dir() else None
    subject = of_file(path) if folder is None else of_run(folder)
    own = "kohya" if subject.header.has("lora_") else "diffusers"
    if not layout or layout == own:
        yield subject
        return
    from trainer.styles.read import read_style
    from trainer.workbench.convert import convert

    with tempfile.TemporaryDirectory(prefix="patina-convert-") as scratch:
        other = Path(scratch) / f"{subject.stem}.safetensors"
        convert(read_style(subject.header.path)).write(other, layout="kohya" if layout == "kohya" else "diffusers")
        yield of_file(other, subject.name) if folder is None else of_run(folder, other)


def _hub_id(text: str) -> str:
    from trainer.bases.sources import parse_source

    if text and parse_source(text).kind != "hub":
        raise ConfigError(f"--base-model is {text!r}, but should be an id on the hub, such as USER/NAME, and no path.")
    return text
