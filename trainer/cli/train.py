"""``patina train``: from a folder of images to a style file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.mending import INTERRUPTED, mending, quiet_libraries
from trainer.config import help_of, load, overlay, parse, read_toml
from trainer.errors import ConfigError, RunError
from trainer.training.control import Session, Signal

if TYPE_CHECKING:
    from types import FrameType

    from trainer.training.folder import RunFolder


def train(
    images: Annotated[
        Path | None, typer.Argument(help="Folder with the images of the style.", show_default=False)
    ] = None,
    base: Annotated[str | None, typer.Option(help=help_of("base.source"))] = None,
    revision: Annotated[str | None, typer.Option(help=help_of("base.revision"))] = None,
    variant: Annotated[str | None, typer.Option(help=help_of("base.variant"))] = None,
    prediction: Annotated[str | None, typer.Option(help=help_of("base.prediction"))] = None,
    name: Annotated[str | None, typer.Option(help=help_of("name") + " The folder's name when left out.")] = None,
    trigger: Annotated[str | None, typer.Option(help=help_of("trigger"))] = None,
    preset: Annotated[str | None, typer.Option(help=help_of("train.preset"))] = None,
    steps: Annotated[int | None, typer.Option(help=help_of("train.steps"))] = None,
    rank: Annotated[int | None, typer.Option(help=help_of("adapter.rank"))] = None,
    alpha: Annotated[float | None, typer.Option(help=help_of("adapter.alpha"))] = None,
    method: Annotated[str | None, typer.Option(help=help_of("adapter.method"))] = None,
    targets: Annotated[str | None, typer.Option(help=help_of("adapter.targets"))] = None,
    lr: Annotated[float | None, typer.Option("--lr", help=help_of("optim.learning_rate"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=help_of("optim.batch_size"))] = None,
    resolution: Annotated[int | None, typer.Option(help=help_of("data.resolution"))] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help=help_of("data.flip"))] = None,
    validation: Annotated[float | None, typer.Option(help=help_of("data.validation_share"))] = None,
    prompt: Annotated[list[str] | None, typer.Option(help=help_of("samples.prompts") + " May be repeated.")] = None,
    sample_every: Annotated[int | None, typer.Option(help=help_of("samples.every"))] = None,
    seed: Annotated[int | None, typer.Option(help=help_of("train.seed"))] = None,
    device: Annotated[str | None, typer.Option(help=help_of("train.device"))] = None,
    precision: Annotated[str | None, typer.Option(help=help_of("train.precision"))] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help=help_of("train.offline"))] = None,
    format: Annotated[str | None, typer.Option(help=help_of("export.format"))] = None,  # noqa: A002
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, such as --set optim.ema_decay=0.99. May be repeated."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A run's settings as a TOML file; options given here win over it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; without it the run lives in the studio folder.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
) -> None:
    """Train a style on a folder of images and save it as a small .safetensors file."""
    asked: dict[str, Any] = {
        "data.images": str(images.expanduser().absolute()) if images else None,
        "base.source": base,
        "base.revision": revision,
        "base.variant": variant,
        "base.prediction": prediction,
        "name": name,
        "trigger": trigger,
        "train.preset": preset,
        "train.steps": steps,
        "adapter.rank": rank,
        "adapter.alpha": alpha,
        "adapter.method": method,
        "adapter.targets": targets,
        "optim.learning_rate": lr,
        "optim.batch_size": batch_size,
        "data.resolution": resolution,
        "data.flip": flip,
        "data.validation_share": validation,
        "samples.prompts": prompt or None,
        "samples.every": sample_every,
        "train.seed": seed,
        "train.device": device,
        "train.precision": precision,
        "train.offline": offline,
        "export.format": format,
    }
    with mending(as_json=as_json):
        folder = _reopen(resume, asked, set_, config, out) if resume else _begin(images, asked, set_, config, out)
        _run(folder, as_json=as_json)


def _begin(
    images: Path | None, asked: dict[str, Any], extra: list[str] | None, file: Path | None, out: Path | None
) -> RunFolder:
    """Settings from file and options, checked; then a new run folder."""
    values = read_toml(file) if file else {}
    overlay(values, asked)
    overlay(values, dict(_assignment(text) for text in extra or []))
    if images is not None and "name" not in values:
        values["name"] = images.expanduser().absolute().name or "style"
    settings = parse(values)
    if not settings.data.images:
        raise ConfigError("Name the folder with your images: patina train FOLDER.")
    source = Path(settings.data.images).expanduser()
    if not source.is_dir():
        raise ConfigError(f"{source} is no folder." if source.exists() else f"The folder {source} does not exist.")

    from trainer.studio.home import Home, new_id, studio_path
    from trainer.training.run import create

    target = out.expanduser().absolute() if out else Home(studio_path()).prepare().run(new_id("run"))
    return create(settings, target)


def _reopen(
    path: Path, asked: dict[str, Any], extra: list[str] | None, file: Path | None, out: Path | None
) -> RunFolder:
    """The folder of a run to go on with; its settings are fixed."""
    from trainer.training.folder import RunFolder

    given = [name for name, value in asked.items() if value is not None]
    if given or extra or file or out:
        raise ConfigError("A resumed run keeps its settings: give --resume alone, or start a new run with the others.")
    folder = RunFolder(path.expanduser().absolute())
    if not folder.exists():
        raise RunError(f"{path} is no run folder: it has no config.toml.")
    load(folder.config_file)
    return folder


def _assignment(text: str) -> tuple[str, Any]:
    """``optim.ema_decay=0.99`` as a path and a value in TOML's spelling; a bare word is a text."""
    import tomllib

    path, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set {text} should look like optim.ema_decay=0.99.")
    try:
        return path.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), value


class _StopKey:
    """Ctrl-C asks a training to save itself; a second one does not wait."""

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


def _run(folder: RunFolder, *, as_json: bool) -> None:
    quiet_libraries()
    from trainer.cli.progress import JsonLines, Terminal
    from trainer.training.run import train as train_run

    key = _StopKey()
    signal.signal(signal.SIGINT, key)
    signal.signal(signal.SIGTERM, key)
    go_on = f"patina train --resume {_quoted(folder.path)}"
    try:
        with JsonLines() if as_json else Terminal(folder) as show:
            outcome = train_run(folder, emit=show, control=key)
    except KeyboardInterrupt:
        if folder.checkpoints.is_dir() or folder.dataset_file.is_file():
            typer.echo(f"Stopped. Go on with: {go_on}", err=True)
        raise
    if outcome.state == "paused":
        typer.echo(f"Saved at step {outcome.step}. Go on with: {go_on}", err=True)
        raise typer.Exit(INTERRUPTED)


def _quoted(path: Path) -> str:
    import os
    import shlex

    return f'"{path}"' if os.name == "nt" else shlex.quote(str(path))
