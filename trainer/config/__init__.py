"""The settings of a run: one tree, from a file, a form or the command line, checked once.

`tree` holds the root and `sections` its branches, `loading` makes a tree of what somebody wrote, `complaints` words
what is wrong with it, `describe` tells forms and the command line of each field.
"""

from __future__ import annotations

from trainer.config.describe import Setting, help_of, settings
from trainer.config.loading import assignment, load, overlay, parse, read_toml, sentence
from trainer.config.schedulers import Scheduler
from trainer.config.sections import (
    AdapterConfig,
    BaseConfig,
    DataConfig,
    ExportConfig,
    FileLayout,
    MemoryConfig,
    OptimConfig,
    Precision,
    PresetName,
    SamplesConfig,
    Section,
    TrainConfig,
)
from trainer.config.tree import RunConfig

__all__ = [
    "AdapterConfig",
    "BaseConfig",
    "DataConfig",
    "ExportConfig",
    "FileLayout",
    "MemoryConfig",
    "OptimConfig",
    "Precision",
    "PresetName",
    "RunConfig",
    "SamplesConfig",
    "Scheduler",
    "Section",
    "Setting",
    "TrainConfig",
    "assignment",
    "help_of",
    "load",
    "overlay",
    "parse",
    "read_toml",
    "sentence",
    "settings",
]
