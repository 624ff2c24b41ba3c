"""Experiment trackers: losses, samples and settings of a run for TensorBoard, trackio or Weights & Biases.

They are accelerate's (`accelerate.tracking`). A tracker hears the run's events as the page and the terminal do, so
training knows nothing of it; one that fails is left out, and the training goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.events import Emit, Event, Finished, Notice, Planned, Progress, Recommended, Sampled, Started, Validated
from trainer.styles.privacy import public_config
from trainer.training.run_folder import RunFolder

PROJECT = "patina"
FOLDER = "tracking"
"""Where TensorBoard's event files lie in a run's folder."""
Open = Callable[[RunFolder, int], Any]
"""Makes a tracker, not yet started, for a run that goes on from a step."""


def check_installed(config: RunConfig) -> None:
    """Refuse a tracker whose package is missing, before anything is loaded.

    Raises:
        ConfigError: with how to install it.
    """
    wanted = config.train.log_with
    if wanted != "off" and find_spec(wanted) is None:
        raise ConfigError(
            f"train.log_with is {wanted!r}, but its package is not installed: pip install {wanted}, or "
            "pip install 'patina[trackers]' for all trackers."
        )


@contextmanager
def tracked(folder: RunFolder, config: RunConfig, emit: Emit, opener: Open | None = None) -> Iterator[Emit]:
    """Within this context events also go to the tracker that ``train.log_with`` names; by default there is none.

    Args:
        emit: told of everything as before, and of a tracker that failed.
        opener: makes the tracker; None makes the one that is named.
    """
    if config.train.log_with == "off" and opener is None:
        yield emit
        return
    tracking = _Tracking(folder, emit, opener or _OPENERS[config.train.log_with])
    try:
        yield tracking
    finally:
        tracking.close()


class _Tracking:
    def __init__(self, folder: RunFolder, emit: Emit, opener: Open) -> None:
        self._folder, self._emit, self._open = folder, emit, opener
        self._tracker: Any = None
        self._failed = False
        self._step = 0

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if not self._failed:
            self._guarded(lambda: self._track(event))

    def close(self) -> None:
        if self._tracker is not None and not self._failed:
            self._guarded(self._tracker.finish)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # Somebody else's service or disk is no reason to lose a training.
            self._failed = True
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._emit(Notice(text=f"The tracker failed and is left out from here on: {first[:200]}"))

    def _track(self, event: Event) -> None:
        if isinstance(event, Started):
            self._step = event.step
            self._tracker = self._open(self._folder, event.step)
            self._tracker.start()
            self._tracker.store_init_configuration(settings(self._folder.config()))
        if self._tracker is None:
            return
        if isinstance(event, Progress):
            for step, loss in enumerate(event.losses, start=event.step - len(event.losses) + 1):
                self._log({"train/loss": loss}, step)
            speed = {"train/learning_rate": event.learning_rate, "train/samples_per_second": event.samples_per_second}
            self._log(speed, event.step)
        elif isinstance(event, Validated):
            self._log({"validation/loss": event.loss, "validation/loss_of_the_base": event.base_loss}, event.step)
        elif isinstance(event, Sampled):
            self._step = max(self._step, event.step)
            log_picture(
                self._tracker, f"samples/{event.index}", self._folder.path / event.path, event.prompt, self._step
            )
        elif isinstance(event, Planned):
            self._log({"plan/trainable_parameters": float(event.trainable_parameters)}, self._step)
        elif isinstance(event, Recommended):
            self._log({"picked/step": event.at_step, "picked/strength": event.strength}, self._step)
        elif isinstance(event, Finished):
            self._log({"run/seconds": event.seconds}, self._step)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        # Weights & Biases drops what comes for a step before the last one.
        self._step = max(self._step, step)
        self._tracker.log(dict(values), step=self._step)


def settings(config: RunConfig) -> dict[str, bool | str | float | int]:
    """A run's settings by dotted path, as trackers take them; without where the images lie on this machine."""

    def flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, bool | str | float | int]]:
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{above}{key}.")
            elif isinstance(value, bool | str | float | int):
                yield f"{above}{key}", value
            elif value is not None:
                yield f"{above}{key}", str(value)

    return dict(flat(public_config(config).model_dump(), ""))


def log_picture(tracker: Any, name: str, path: Path, prompt: str, step: int) -> None:
    """Give a tracker a sample picture, in the form that it takes."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if tracker.name == "tensorboard":
        import numpy as np

        tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":
        import trackio

        tracker.log({name: trackio.Image(picture, caption=prompt)}, step=step)
    else:
        tracker.log_images({name: [picture]}, step=step)


def _tensorboard(folder: RunFolder, step: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    # What an attempt that broke off had logged of later steps is void.
    return TensorBoardTracker(FOLDER, folder.path, purge_step=step + 1 if step else None)


def _trackio(folder: RunFolder, step: int) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(PROJECT, name=_identity(folder), resume="allow")


def _wandb(folder: RunFolder, step: int) -> Any:
    from accelerate.tracking import WandBTracker

    return WandBTracker(PROJECT, name=folder.config().name, id=_identity(folder), resume="allow")


_OPENERS: Mapping[str, Open] = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}


def _identity(folder: RunFolder) -> str:
    """The same for a run each time it goes on, and another for every other run."""
    place = str(folder.path.absolute())
    return f"{folder.config().file_stem}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
