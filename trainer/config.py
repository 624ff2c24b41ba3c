"""The one tree of settings of a run, from a file, a form or the command line, checked once.

A value of ``None`` means *chosen for you*: `trainer.presets.resolve` replaces it by what suits the base and the
number of images, and the resolved tree is what a run folder keeps.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from trainer.complaints import worded
from trainer.errors import ConfigError
from trainer.sections import (
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
    Scheduler,
    Section,
    TrainConfig,
)

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
    "TrainConfig",
    "fields",
    "help_of",
    "load",
    "overlay",
    "parse",
    "read_toml",
    "sentence",
]


class RunConfig(Section):
    """Everything that decides what a run does."""

    name: str = Field(
        "style",
        min_length=1,
        max_length=80,
        description="Name of the style and of its file.",
    )
    trigger: str = Field(
        "",
        max_length=200,
        description="The words that call the style in a prompt, such as 'ink style'; they are added to every caption.",
    )
    base: BaseConfig = Field(default_factory=BaseConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)

    @field_validator("name", "trigger")
    @classmethod
    def _one_printable_line(cls, value: str) -> str:
        value = " ".join(value.split())
        if not value.isprintable():
            raise ValueError("holds characters that cannot be shown")
        return value

    @field_validator("name")
    @classmethod
    def _has_a_letter(cls, value: str) -> str:
        if not any(character.isalnum() for character in value):
            raise ValueError("needs at least one letter or digit")
        return value

    @model_validator(mode="after")
    def _warmup_fits(self) -> RunConfig:
        steps, warmup = self.train.steps, self.optim.warmup_steps
        if steps is not None and warmup is not None and warmup >= steps:
            raise ValueError(f"optim.warmup_steps ({warmup}) must be below train.steps ({steps})")
        return self

    @model_validator(mode="after")
    def _passes_fill_the_batch(self) -> RunConfig:
        batch, at_once = self.optim.batch_size, self.memory.micro_batch
        if batch is not None and at_once is not None and batch % at_once:
            raise ValueError(f"memory.micro_batch ({at_once}) must divide optim.batch_size ({batch})")
        return self

    @property
    def images_per_pass(self) -> int:
        """Images in one forward pass of a resolved config."""
        return self.memory.micro_batch or self.optim.batch_size or 1

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes whose gradients add up to one optimizer step."""
        return self.optim.gradient_accumulation * ((self.optim.batch_size or 1) // self.images_per_pass)

    @property
    def file_stem(self) -> str:
        """The name as a file name that every system accepts, without an ending."""
        kept = re.sub(r"[^\w.-]+", "_", self.name).strip("._")
        stem = kept[:60] or "style"
        reserved = {
            "con",
            "prn",
            "aux",
            "nul",
            *(f"{p}{i}" for p in ("com", "lpt") for i in range(10)),
        }
        return f"{stem}_style" if stem.split(".")[0].lower() in reserved else stem

    def to_toml(self) -> str:
        """The tree as TOML; what is ``None`` (chosen for you) is left out, as TOML has no null."""
        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=False)


def fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of the tree as (dotted path, pydantic ``FieldInfo``), in order of definition."""
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from fields(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def help_of(path: str) -> str:
    """The help text of a dotted path such as ``optim.learning_rate``."""
    return str(dict(fields())[path].description)


def parse(values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> RunConfig:
    """Check a nested mapping and make the tree of it.

    Args:
        called: how the user wrote some settings, by dotted path, such as ``--rank`` for ``adapter.rank``.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(sentence(error, called)) from None


def sentence(error: ValidationError, called: Mapping[str, str] | None = None) -> str:
    """Pydantic's findings as sentences a user can act on; ``called`` as in `parse`."""
    return worded(error, called or {}, [path for path, _ in fields()])


def overlay(tree: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``{"optim.learning_rate": 1e-4}`` into a nested mapping; ``None`` values are passed over."""
    for path, value in values.items():
        if value is None:
            continue
        *branches, leaf = path.split(".")
        node = tree
        for branch in branches:
            child = node.setdefault(branch, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{branch} should be a section with settings, not a single value.")
            node = child
        node[leaf] = value
    return tree


def read_toml(path: Path) -> dict[str, Any]:
    """A config file as a nested mapping, not yet checked.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: name the file with the settings.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not valid TOML, which is always UTF-8 text: save it in that encoding.") from None
    except ValueError as error:
        # Numbers of more digits than Python converts are no TOMLDecodeError.
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def load(path: Path) -> RunConfig:
    """Read and check a config file; errors as in `read_toml` and `parse`."""
    values = read_toml(path)
    try:
        return parse(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
