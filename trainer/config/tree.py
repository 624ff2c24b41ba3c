"""The root of a run's settings, and what holds between its branches.

A value of ``None`` means *chosen for you*: `trainer.presets.resolve` replaces it by what suits the base and the
number of images, and the resolved tree is what a run folder keeps.
"""

from __future__ import annotations

import re

import tomli_w
from pydantic import Field, field_validator, model_validator

from trainer.adapters.methods import METHODS, methods_with
from trainer.config.sections import (
    AdapterConfig,
    BaseConfig,
    DataConfig,
    ExportConfig,
    JudgingConfig,
    MemoryConfig,
    OptimConfig,
    SamplesConfig,
    Section,
    TrainConfig,
)


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
    judging: JudgingConfig = Field(default_factory=JudgingConfig)
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

    @model_validator(mode="after")
    def _rate_is_found_on_one_card(self) -> RunConfig:
        gpus, optim = self.train.gpus, self.optim
        if gpus > 1 and optim.find_rate and optim.learning_rate is None:
            raise ValueError(f"train.gpus is {gpus}, but optim.find_rate works on one card only: use one of the two")
        return self

    @model_validator(mode="after")
    def _method_has_its_settings(self) -> RunConfig:
        method = self.adapter.method
        for setting, value in self.adapter:
            having = methods_with(setting)
            if having and value is not None and method not in having:
                raise ValueError(
                    f"adapter.{setting} is {value!r}, but adapter.method {method!r} has no such setting: leave it "
                    f"empty, or choose the method {' or '.join(having)}"
                )
        return self

    @model_validator(mode="after")
    def _file_has_a_place_for_the_method(self) -> RunConfig:
        method, layout = self.adapter.method, self.export.format
        if layout not in (layouts := METHODS[method].layouts):
            raise ValueError(
                f"export.format is {layout!r}, which has no place for what adapter.method {method!r} makes: use "
                f"{' or '.join(map(repr, layouts))}"
            )
        return self

    @model_validator(mode="after")
    def _blocks_go_with_the_method(self) -> RunConfig:
        if self.adapter.blocks and self.adapter.method not in ("lora", "lora+", "lora-fa", "rslora"):
            raise ValueError(
                f"adapter.blocks is {self.adapter.blocks!r}, but adapter.method {self.adapter.method!r} has no "
                "strength of each block in its files: choose lora, lora+, lora-fa or rslora, or leave it empty"
            )
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
