"""The run's settings as options of the command line: names, help and choices come from `trainer.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import typer

from trainer.config import Setting, settings

SETTINGS: Mapping[str, str] = {
    "base": "base.source",
    "revision": "base.revision",
    "variant": "base.variant",
    "prediction": "base.prediction",
    "quantize": "base.quantize",
    "name": "name",
    "trigger": "trigger",
    "preset": "train.preset",
    "steps": "train.steps",
    "rank": "adapter.rank",
    "alpha": "adapter.alpha",
    "method": "adapter.method",
    "targets": "adapter.targets",
    "lr": "optim.learning_rate",
    "batch_size": "optim.batch_size",
    "resolution": "data.resolution",
    "flip": "data.flip",
    "validation": "data.validation_share",
    "changed_images": "data.changed_images",
    "prompt": "samples.prompts",
    "sample_every": "samples.every",
    "stop_when": "train.stop_when",
    "seed": "train.seed",
    "gpus": "train.gpus",
    "device": "train.device",
    "precision": "train.precision",
    "offline": "train.offline",
    "log_with": "train.log_with",
    "format": "export.format",
}
"""Parameter of ``patina train`` -> the setting it stands for."""


def flag(parameter: str) -> str:
    """How a parameter is written on the command line."""
    return "--" + parameter.replace("_", "-")


def setting(parameter: str, *flags: str, more: str = "") -> Any:
    """The option for a parameter of `SETTINGS`.

    Its value stays a text, so that one place, `trainer.config.parse`, checks everything and words every complaint.

    Args:
        flags: other spellings than the parameter's own.
        more: a sentence after the field's description.
    """
    told = settings()[SETTINGS[parameter]]
    return typer.Option(*(flags or (flag(parameter),)), help=told.help + more, metavar=_metavar(told))


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, by the settings' dotted paths."""
    asked = {path: parameters.get(name) for name, path in SETTINGS.items()}
    return {path: value for path, value in asked.items() if value not in (None, [], ())}


def names_of(asked: Mapping[str, Any]) -> dict[str, str]:
    """For each setting that was asked for, the option that the user wrote."""
    return {path: flag(name) for name, path in SETTINGS.items() if path in asked}


def choices(annotation: Any) -> str:
    """The values of a ``Literal`` as a help text shows them: ``kohya|diffusers``."""
    return "|".join(str(value) for value in get_args(annotation))


def _metavar(told: Setting) -> str | None:
    """What stands after an option in the help: its choices, or what kind of value it takes; None for a switch."""
    if told.kind == "choice":
        return "|".join(told.choices)
    return {"switch": None, "whole": "INTEGER", "number": "NUMBER"}.get(told.kind, "TEXT")
