"""``patina train``: from a folder of images to a style file."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from trainer.cli.launch import MAIN, follow, process_number, run_in_processes
from trainer.cli.mending import INTERRUPTED, mending, quiet_libraries
from trainer.cli.options import given, names_of, setting
from trainer.config import RunConfig, assignment, load, overlay, parse, read_toml
from trainer.errors import ConfigError, DatasetError, PatinaError, RunError
from trainer.training.pausing import Session, Signal

if TYPE_CHECKING:
    from types import FrameType

    from trainer.training.run_folder import RunFolder


CHANGED_IMAGES = "data.changed_images"
"""The one setting that may be another when a run goes on, beside how many cards train it."""
GPUS = "train.gpus"


def train(
    context: typer.Context,
    images: Annotated[
        Path | None, typer.Argument(help="Folder with the images of the style.", metavar="FOLDER", show_default=False)
    ] = None,
    base: Annotated[str | None, setting("base")] = None,
    revision: Annotated[str | None, setting("revision")] = None,
    variant: Annotated[str | None, setting("variant")] = None,
    prediction: Annotated[str | None, setting("prediction")] = None,
    quantize: Annotated[str | None, setting("quantize")] = None,
    name: Annotated[str | None, setting("name", more=" The folder's name when left out.")] = None,
    trigger: Annotated[str | None, setting("trigger")] = None,
    preset: Annotated[str | None, setting("preset")] = None,
    steps: Annotated[str | None, setting("steps")] = None,
    rank: Annotated[str | None, setting("rank")] = None,
    alpha: Annotated[str | None, setting("alpha")] = None,
    method: Annotated[str | None, setting("method")] = None,
    targets: Annotated[str | None, setting("targets")] = None,
    lr: Annotated[str | None, setting("lr")] = None,
    batch_size: Annotated[str | None, setting("batch_size")] = None,
    resolution: Annotated[str | None, setting("resolution")] = None,
    flip: Annotated[bool | None, setting("flip", "--flip/--no-flip")] = None,
    validation: Annotated[str | None, setting("validation")] = None,
    changed_images: Annotated[str | None, setting("changed_images")] = None,
    prompt: Annotated[list[str] | None, setting("prompt", more=" May be repeated.")] = None,
    sample_every: Annotated[str | None, setting("sample_every")] = None,
    stop_when: Annotated[str | None, setting("stop_when")] = None,
    seed: Annotated[str | None, setting("seed")] = None,
    gpus: Annotated[str | None, setting("gpus")] = None,
    device: Annotated[str | None, setting("device")] = None,
    precision: Annotated[str | None, setting("precision")] = None,
    offline: Annotated[bool | None, setting("offline")] = None,
    log_with: Annotated[str | None, setting("log_with")] = None,
    format: Annotated[str | None, setting("format")] = None,  # noqa: A002
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other setting, such as optim.ema_decay=0.99. May be repeated."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run's settings as TOML; options given here win over it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run's folder; without it the run lives in the studio folder."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Go on with the run in this folder.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
) -> None:
    """Train a style on a folder of images and save it as a small .safetensors file."""
    # The settings among the parameters are read by name, from the same table that declares them as options.
    asked = given(context.params)
    with mending(as_json=as_json):
        if resume:
            choice, cards = asked.pop(CHANGED_IMAGES, None), asked.pop(GPUS, None)
            if images or asked or set_ or config or out:
                raise ConfigError(
                    "A resumed run keeps its settings: give --resume FOLDER alone or with --changed-images, or start a "
                    "new run with other ones."
                )
            folder = _reopened(resume, choice)
            kept = folder.config().train
            wanted = parse(overlay({}, {GPUS: cards}), {GPUS: "--gpus"}).train.gpus if cards else kept.gpus
            _run(folder, _processes(wanted, kept.device), as_json=as_json)
        elif process_number() is not None:
            raise ConfigError(
                "Processes that a launcher started go on with a run that is there: begin it with patina train FOLDER "
                "--out RUN, and give --resume RUN here; on one machine, --gpus N does all of this."
            )
        else:
            settings = _settings(images, asked, set_ or [], config)
            count = _processes(settings.train.gpus, settings.train.device)
            with _begun(settings, out, config) as folder:
                _run(folder, count, as_json=as_json)


def _settings(images: Path | None, asked: Mapping[str, Any], extra: list[str], file: Path | None) -> RunConfig:
    """The settings of a file, with the options over them; nothing is loaded that takes time."""
    values: dict[str, Any] = {}
    if file:
        load(file)
        values = read_toml(file)
    overlay(values, asked)
    overlay(values, dict(assignment(text) for text in extra))
    if images is not None:
        source = images.expanduser().absolute()
        overlay(values, {"data.images": str(source)})
        values.setdefault("name", source.name[:80] or "style")
    settings = parse(values, names_of(asked))
    if not settings.data.images:
        raise ConfigError("There is nothing to train on: name the folder with your images, patina train FOLDER.")
    return settings


@contextmanager
def _begun(settings: RunConfig, out: Path | None, file: Path | None) -> Iterator[RunFolder]:
    """A new run's folder; a run that fails before its first saved state leaves nothing, so that it can be repeated.

    One that is interrupted keeps what it encoded, which takes seconds an image with a large base.
    """
    from trainer.data.folder import list_images
    from trainer.studio.folder import StudioFolder, new_id, studio_path
    from trainer.training.run import create
    from trainer.training.run_folder import RunFolder

    source = Path(settings.data.images).expanduser()
    files, _ = list_images(source)
    if not files:
        raise DatasetError(f"There are no images in {source}: put PNG, JPEG or WebP files in it.")
    target = out.expanduser().absolute() if out else StudioFolder(studio_path()).prepare().run(new_id("run"))
    existed = target.exists()
    # What lay there before is never touched; `create` refuses it.
    ours = not existed or (target.is_dir() and not any(target.iterdir()))
    folder = RunFolder(target)
    try:
        create(settings, target)
        _note_origin(folder, file)
        yield folder
    except (PatinaError, OSError, KeyboardInterrupt, _Failed) as error:
        if ours and folder.saved():
            typer.echo(f"What was learned until the last saved step is kept. {_go_on(folder)}", err=True)
        elif ours and isinstance(error, KeyboardInterrupt) and any(folder.cache.rglob("*.safetensors")):
            typer.echo(f"The images that were encoded are kept. {_go_on(folder)}", err=True)
        elif ours and folder.path.is_dir():
            folder.discard()
            if not existed and not any(folder.path.iterdir()):
                folder.path.rmdir()
        raise


def _note_origin(folder: RunFolder, file: Path | None) -> None:
    """Where the settings are another run's, note which run that is."""
    from trainer.training.run_folder import Origin, RunFolder

    if file is None:
        return
    other = RunFolder(file.expanduser().absolute().parent)
    if other.config_file.name == file.name and other.events_file.is_file():
        folder.write_origin(Origin(run=other.path.name, name=other.config().name))


def _processes(gpus: int, device: str) -> int:
    """How many processes are to be started for a run, if there are cards for them; one that a launcher started is one.

    Raises:
        DeviceError: there are fewer cards.
    """
    if gpus == 1 or process_number() is not None:
        return 1
    from trainer.training.processes import require_cards

    require_cards(gpus, device, "--gpus")
    return gpus


def _reopened(path: Path, changed_images: str | None = None) -> RunFolder:
    """The folder of a run to go on with, as it was begun but for what is to be done about images that changed."""
    from trainer.training.run_folder import RunFolder

    folder = RunFolder(path.expanduser().absolute())
    if not folder.exists():
        raise RunError(f"{path} is no run folder: it has no config.toml. Name the folder that --out named.")
    load(folder.config_file)
    if changed_images is not None:
        values = overlay(read_toml(folder.config_file), {CHANGED_IMAGES: changed_images})
        checked = parse(values, {CHANGED_IMAGES: "--changed-images"})
        with folder.held():
            folder.write_config(checked)
    return folder


class _Failed(typer.Exit):
    """A run in several processes failed; the one that did has said why."""


class _StopKey:
    """Ctrl-C asks a training to save itself; a second one does not wait, nor does one when there is nothing to save."""

    def __init__(self) -> None:
        self.asked = False
        self.training = False

    def between_steps(self, session: Session) -> Signal:
        self.training = True
        return Signal.PAUSE if self.asked else Signal.GO

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True
        typer.echo("\nSaving; press Ctrl-C again to stop at once.", err=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C, and the polite signal to end, while the block runs."""
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _run(folder: RunFolder, processes: int, *, as_json: bool) -> None:
    optim = folder.config().optim
    if optim.find_rate and optim.learning_rate is None and (processes > 1 or process_number() is not None):
        raise ConfigError(
            "optim.find_rate works in one process only: find the rate with patina race FOLDER, and give it as --lr."
        )
    if processes > 1:
        return _run_shared(folder, processes, as_json=as_json)
    if process_number() not in (None, MAIN):
        follow()
        return _follow(folder)
    key = _StopKey()
    with key.listening():
        quiet_libraries()
        from trainer.cli.progress import JsonLines, Terminal
        from trainer.signs import SignsOfLife
        from trainer.study.finding import train as train_run

        with JsonLines() if as_json else Terminal(folder) as show, SignsOfLife(show) as told:
            outcome = train_run(folder, emit=told, control=key)
    if outcome.state == "paused" and process_number() is None:
        _end_paused(folder, outcome.step)
    return None


def _run_shared(folder: RunFolder, processes: int, *, as_json: bool) -> None:
    """Train in several processes; how it ended stands in the folder's log, which the main one of them wrote."""
    from trainer.events import Interrupted

    status = run_in_processes(["train", "--resume", str(folder.path), *(["--json"] if as_json else [])], processes)
    if status:
        # The sentence has been said by the process that failed.
        raise _Failed(status)
    last = next(reversed(list(folder.events())), None)
    if isinstance(last, Interrupted):
        _end_paused(folder, last.step)


def _follow(folder: RunFolder) -> None:
    """Take part in a training that the main process steers, shows and writes."""
    quiet_libraries()
    from trainer.training.pausing import Uncontrolled
    from trainer.training.run import train as train_run

    train_run(folder, emit=lambda event: None, control=Uncontrolled())


def _end_paused(folder: RunFolder, step: int) -> NoReturn:
    typer.echo(f"Saved at step {step}. {_go_on(folder)}", err=True)
    raise typer.Exit(INTERRUPTED)


def _go_on(folder: RunFolder) -> str:
    """The command that goes on with a run, to be copied into the shell at hand."""
    path = f'"{folder.path}"' if os.name == "nt" else shlex.quote(str(folder.path))
    return f"Go on with: patina train --resume {path}"
