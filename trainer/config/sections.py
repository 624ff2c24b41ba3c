"""The branches of a run's settings; `trainer.config.tree` makes one tree of them.

A field's description is its help text in the command line and the studio: one sentence that says what you will see
change. A value of ``None`` means *chosen for you*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainer.adapters.blocks import read_blocks
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.lora import Init
from trainer.adapters.targets import problem_with
from trainer.config.schedulers import Scheduler
from trainer.errors import ConfigError
from trainer.optimizers import OPTIMIZERS, SCHEDULES

if TYPE_CHECKING:
    MethodName = str
    OptimizerName = str
    ScheduleName = str
else:
    MethodName = Literal[*METHODS]
    OptimizerName = Literal[*OPTIMIZERS]
    ScheduleName = Literal[*SCHEDULES]

PresetName = Literal["quick", "balanced", "thorough"]
StopWhen = Literal["never", "copying", "settled"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FileLayout = Literal["kohya", "diffusers"]


class Section(BaseModel):
    """A branch of the tree: unknown keys are refused, values are checked whenever they are set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_end_of_text(cls, value: Any) -> Any:
        # Systems take it for the end of a path.
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("holds a NUL character, which no path and no text needs")
        return value


class BaseConfig(Section):
    """Which frozen model learns the style."""

    source: str = Field(
        "bundled",
        min_length=1,
        max_length=1024,
        description="The model that learns the style: 'bundled', a Hugging Face id such as "
        "'stable-diffusion-v1-5/stable-diffusion-v1-5', a diffusers folder, or a .safetensors checkpoint.",
    )
    revision: str | None = Field(
        None,
        max_length=200,
        description="Branch, tag or commit of a Hugging Face model; empty is its main branch.",
    )
    variant: str | None = Field(
        None,
        max_length=32,
        description="File variant of a Hugging Face model or folder, such as 'fp16'; empty finds the smallest "
        "download.",
    )
    config_folder: str | None = Field(
        None,
        max_length=1024,
        description="For a single-file checkpoint whose layers differ from its family's (a distilled one): a folder "
        "with its configuration in diffusers' layout. Empty takes the one that comes with Patina.",
    )
    prediction: Literal["auto", "epsilon", "v_prediction"] = Field(
        "auto",
        description="What the model predicts; a wrong choice shows as noise in every picture. "
        "'auto' reads it from the model, or probes it where the file does not say.",
    )
    zero_terminal_snr: bool | None = Field(
        None,
        description="Whether the model was trained on noise that leaves nothing of the picture (zero terminal SNR), as "
        "v-prediction models often are; a wrong choice shows as pictures too dark or too pale. Empty reads it from the "
        "model.",
    )
    quantize: Literal["off", "nf4", "int8"] = Field(
        "off",
        description="Keep the base's weights in fewer bits (QLoRA), for a card or computer with little memory: 'nf4' "
        "takes a quarter of half precision, 'int8' a good half and is nearly exact; steps are slower. The file opens "
        "on the base as it is. Needs the package bitsandbytes.",
    )
    clip_skip: int = Field(
        0,
        ge=0,
        le=11,
        description="How many of the last text-encoder layers are left out; some anime models were trained with 1. "
        "Stable Diffusion XL knows no such choice.",
    )

    @field_validator("variant")
    @classmethod
    def _variant_is_a_word(cls, value: str | None) -> str | None:
        # It becomes a part of file names.
        if value and not re.fullmatch(r"[A-Za-z0-9_]+", value):
            raise ValueError(f"is {value!r}, but should be one word of letters, digits and underscores, such as fp16")
        return value or None


ChangedImages = Literal["keep", "refuse", "leave_out"]


class DataConfig(Section):
    """The images and how they are shown to the model."""

    images: str = Field(
        "",
        max_length=4096,
        description="Folder with the images of the style, with captions beside them if you have any.",
    )
    resolution: int | None = Field(
        None,
        ge=32,
        le=4096,
        multiple_of=8,
        description="Side in pixels that images are trained at; larger shows finer detail and takes longer. "
        "Empty uses the size the base was made for.",
    )
    buckets: bool = Field(
        True,
        description="Keep wide and tall images near their own shape instead of cutting each to a square.",
    )
    background: str = Field(
        "white",
        max_length=40,
        description="Colour put behind transparent images, such as 'white', 'black' or '#FAF8F4'; the style learns it "
        "too.",
    )
    masks: Literal["files", "alpha", "off"] = Field(
        "files",
        description="Which parts of an image count: 'files' reads cat-mask.png beside cat.png, where black is not "
        "learned; 'alpha' also takes transparent parts for black; 'off' trains on everything.",
    )
    focus: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list,
        max_length=10_000,
        description="What should stay in the middle when an image is cut, as 'cat.png=0.3,0.6': shares of its width "
        "and height from the upper left corner; others are cut to their middle.",
    )
    repeats: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list,
        max_length=10_000,
        description="How often an image or a subfolder comes beside the others, as 'cat.png=3'; without it a number "
        "before a subfolder's name says it, as in 10_cats, and all others come once.",
    )
    flip: bool = Field(
        False,
        description="Also train on mirrored images: more variety, but text and left-right habits get mirrored as well.",
    )
    caption_dropout: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the steps trained without a caption; it lets the style show even when a prompt does not "
        "ask for it.",
    )
    caption_kind: Literal["auto", "tags", "sentences"] = Field(
        "auto",
        description="What the captions are: 'tags' between commas or 'sentences'; 'auto' tells by most of them. Only "
        "tags can be shuffled or left out.",
    )
    shuffle_tags: bool = Field(
        False,
        description="With captions of tags: give them in another order each time (up to 16 for each image), so that "
        "prompts may name things in any order; the trigger stays last.",
    )
    keep_tags: int = Field(
        0,
        ge=0,
        le=100,
        description="Tags at the front of a caption that are never moved nor left out.",
    )
    tag_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the tags left out at random each time; what they name then shows with shorter prompts, "
        "too.",
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the images kept out of training to measure whether the style carries over to new "
        "pictures.",
    )
    changed_images: ChangedImages = Field(
        "keep",
        description="What a run that goes on does when images are gone or were changed since it began; it names them. "
        "'keep' uses what it made of them then, 'refuse' stops, 'leave_out' goes on without them.",
    )

    @field_validator("focus")
    @classmethod
    def _points_in_images(cls, value: list[str]) -> list[str]:
        focus_points(value)
        return value

    @field_validator("repeats")
    @classmethod
    def _whole_repeats(cls, value: list[str]) -> list[str]:
        repeat_counts(value)
        return value


def focus_points(lines: Sequence[str]) -> dict[str, tuple[float, float]]:
    """``cat.png=0.3,0.6`` as points by name.

    Raises:
        ValueError: says which line is none.
    """
    points: dict[str, tuple[float, float]] = {}
    for line in lines:
        name, _, numbers = line.rpartition("=")
        try:
            x, y = (float(number) for number in numbers.split(","))
        except ValueError:
            x = y = -1.0
        if not name.strip() or not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"holds {line!r}, but needs lines such as 'cat.png=0.3,0.6', with shares from 0 to 1")
        points[name.strip()] = (x, y)
    return points


MOST_REPEATS = 1000
"""How often an image may come beside the others: one in a thousand steps is nothing that anybody would see."""


def repeat_counts(lines: Sequence[str]) -> dict[str, int]:
    """``cat.png=3`` as counts by name.

    Raises:
        ValueError: says which line is none.
    """
    counts: dict[str, int] = {}
    for line in lines:
        name, _, number = line.rpartition("=")
        count = int(number) if number.strip().isdecimal() else 0
        if not name.strip() or not 1 <= count <= MOST_REPEATS:
            raise ValueError(f"holds {line!r}, but needs lines such as 'cat.png=3', from 1 to {MOST_REPEATS} times")
        counts[name.strip()] = count
    return counts


class AdapterConfig(Section):
    """The low-rank weights that hold the style."""

    method: MethodName = Field(
        "lora",
        description="How the layers are adapted: "
        + "; ".join(f"{name!r} {method.summary}" for name, method in METHODS.items())
        + ".",
    )
    rank: int | None = Field(
        None,
        ge=1,
        le=512,
        description="How much detail the style can hold; 4 to 16 suits most styles, more makes a larger file and "
        "learns the images by heart sooner.",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="How strongly the learned update is applied; empty is the same as the rank, which suits the "
        "presets' learning rates.",
    )
    targets: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Which layers learn: 'cross' (how words become shapes), 'qv', 'self', 'attention', 'all-linear'; "
        "on SDXL also 'style-blocks', 'content-blocks', or 'style-and-content', of which patina split exports one; "
        "or a regular expression over the model's layer names; empty is what suits the base.",
    )
    blocks: str = Field(
        "",
        max_length=200,
        description="How strongly the style counts in parts of the UNet, such as 'down=0.5, mid=0': down, mid, up, and "
        "on SDXL style and content; 0 leaves a part as the base has it. With LoRA, LoRA+, LoRA-FA and rsLoRA.",
    )
    init: Init | None = Field(
        None,
        description="How the update starts: 'kaiming' and 'gaussian' draw it at random, 'pissa' takes the strongest "
        "directions of the base, which shows the style sooner and makes the file twice as large; empty is 'kaiming'.",
    )
    rate_ratio: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="With the method 'lora+', how many times faster B learns than A; more shows the style sooner and "
        "can overshoot; empty is 16.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the update switched off at random in each step; it slows learning by heart with very "
        "few images.",
    )

    @field_validator("targets")
    @classmethod
    def _names_or_an_expression(cls, value: str | None) -> str | None:
        # The names of targets are regular expressions too; whether one matches a layer is known with the base only.
        if value is not None and (problem := problem_with(value)):
            raise ValueError(problem)
        return value

    @field_validator("blocks")
    @classmethod
    def _known_blocks(cls, value: str) -> str:
        try:
            read_blocks(value, "")
        except ConfigError as error:
            raise ValueError(str(error).strip()) from None
        return value


class OptimConfig(Section):
    """How the weights move."""

    optimizer: OptimizerName = Field(
        "adamw",
        description="; ".join(f"{name!r} {entry.summary}" for name, entry in OPTIMIZERS.items()) + ".",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Size of each step; too high and pictures turn into coloured noise, too low and nothing changes.",
    )
    find_rate: bool = Field(
        False,
        description="Find the learning rate first, when that is empty: six around the preset's are trained side by "
        "side on three quarters of the images, and the worse half drops out on the way. It takes about two trainings "
        "more.",
    )
    schedule: ScheduleName = Field(
        "cosine",
        description="'cosine' slows down towards the end and settles details; 'constant' keeps learning at the same "
        "pace.",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Steps over which the learning rate rises from zero, which avoids a rough start.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Images looked at in each step; more is steadier and uses more memory.",
    )
    gradient_accumulation: int = Field(
        1,
        ge=1,
        le=256,
        description="Batches added up before the weights move; the effect of a larger batch without its memory.",
    )
    huber: float = Field(
        0.0,
        ge=0,
        le=10,
        description="From this error on a deviation counts in proportion instead of by its square (pseudo-Huber): "
        "images that do not fit the others pull less. 0.1 is usual, 0 is off.",
    )
    debiased: bool = Field(
        False,
        description="Weigh noise levels by debiased estimation instead of Min-SNR: composition and large shapes are "
        "learned sooner, fine detail later.",
    )
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Largest step direction allowed; lower tames images that would throw training off.",
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Pull of the weights towards zero; higher keeps the style gentler.",
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's memory of the direction of recent steps.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's memory of the size of recent steps.")
    epsilon: float = Field(1e-8, gt=0, le=1e-2, description="AdamW's guard against division by zero.")
    min_snr_gamma: float = Field(
        5.0,
        ge=0,
        le=100,
        description="Balances coarse and fine noise levels (Min-SNR); 5 learns evenly, 0 is off and weighs all alike.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Average of recent weights used for the file, such as 0.99; smooths a noisy training, 0 is off.",
    )


class TrainConfig(Section):
    """How long, how reproducibly and on what."""

    preset: PresetName = Field(
        "balanced",
        description="'quick' shows the idea, 'balanced' suits most styles, 'thorough' takes about twice as long.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="How often the weights move; too few and the style is faint, too many and it copies your images.",
    )
    seed: int = Field(
        42,
        ge=0,
        le=2**32 - 1,
        description="The same seed on the same machine gives the same style again.",
    )
    stop_when: StopWhen = Field(
        "never",
        description="End before the last step by what is drawn on the way: 'copying' when training images begin to "
        "come back, 'settled' also when two looks in a row were no better than an earlier one; 'never' does all steps.",
    )
    stop_floor: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Steps that are done in any case before a run may end early; empty is what the quick preset takes.",
    )
    checkpoint_every: int | None = Field(
        None,
        ge=1,
        description="Steps between saved states; after a crash, training goes on from the last one.",
    )
    keep_checkpoints: int = Field(4, ge=1, le=1000, description="How many saved states stay on disk.")
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="Cards that train the run together; each takes its share of a batch, and the result is the same. "
        "In the studio the run waits until so many cards are free.",
    )
    device: str = Field("auto", description="Where to train: 'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'.")
    precision: Precision = Field(
        "auto",
        description="Number format of the frozen base: 'bf16' and 'fp16' halve memory on a GPU; the style itself is "
        "always trained in fp32.",
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Shift the noise of a whole picture up or down by this much: the style may then make pictures "
        "darker and brighter than the base does. 0.05 is usual, 0 is off; with zero terminal SNR it is not needed.",
    )
    noise_levels: Literal["even", "high"] = Field(
        "even",
        description="Which noise levels are trained: 'even' all alike; 'high' mostly those with much noise, where "
        "layout, colours and the look of a style are decided, and fine strokes are learned less.",
    )
    preserve: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training in which the captions without the trigger must give what the base gives: "
        "prompts that do not ask for the style stay as they were. 0 is off; 0.25 makes a step a quarter longer.",
    )
    compile: Literal["auto", "off", "blocks"] = Field(
        "auto",
        description="Compile the model's repeated blocks for a card: 'auto' tries it when the run is long enough to "
        "pay for it, and keeps what was faster.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Processor threads; empty is one for each physical core. One less is faster where another program "
        "keeps a core busy.",
    )
    offline: bool = Field(
        False,
        description="Never go to the network; use only models that are already on this machine.",
    )
    log_with: Literal["off", "tensorboard", "trackio", "wandb"] = Field(
        "off",
        description="Also give losses, samples and settings to an experiment tracker: 'tensorboard' and 'trackio' stay "
        "on this machine, 'wandb' sends them to Weights & Biases.",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", value):
            raise ValueError(f"is {value!r}, but should be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:1'")
        return value


class MemoryConfig(Section):
    """What is given up for a small card; empty fields are chosen by measuring before the training starts."""

    limit_gib: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="Use at most this much of the card's memory, in GiB; empty uses what is free.",
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Images that go through the model at once; the batch size is then reached in several passes, "
        "which gives the same result with less memory.",
    )
    checkpoint_levels: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Levels of the model, counted from the outside, that compute their intermediate results twice "
        "instead of keeping them; all of them together make a step up to 45% slower.",
    )
    park_encoders: bool | None = Field(
        None,
        description="Keep VAE and text encoders in main memory while they are not at work; sample pictures take a "
        "moment longer.",
    )
    block_swap: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Percent of the model's weights that wait in main memory and come to the card one layer at a time; "
        "models train that are larger than the card, at a half to a tenth of the speed. Not for a quantised base.",
    )
    previews: Literal["whole", "sliced", "parked"] | None = Field(
        None,
        description="How sample pictures are drawn: 'whole' as many at once as fit, 'sliced' one by one and in tiles, "
        "'parked' also moves the model out of the way while the VAE works.",
    )


class SamplesConfig(Section):
    """Pictures made while training, so that you see the style grow."""

    prompts: list[Annotated[str, Field(max_length=2000)]] = Field(
        default_factory=list,
        max_length=16,
        description="Prompts shown while training; empty takes a few that are not among your captions.",
    )
    count: int | None = Field(
        None,
        ge=1,
        le=16,
        description="How many pictures a round has when you name no prompts; empty draws four, or fewer where they "
        "would take longer than half of the training.",
    )
    sheet: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Rows of the sheet at the end when you name no prompts; empty draws six, or fewer where they would "
        "take longer than half of the training.",
    )
    prefix: str = Field(
        "",
        max_length=500,
        description="Words put before every sample prompt, such as the quality tags that a base was trained with: "
        "'masterpiece, best quality'; the samples then look as your own pictures will.",
    )
    negative: str = Field("", max_length=2000, description="What the sample pictures should not show.")
    every: int | None = Field(
        None,
        ge=0,
        description="Steps between sample pictures; 0 makes them only at the end, empty about four times in a run.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=200,
        description="Denoising steps of a sample picture; more is cleaner and slower. Empty suits the base.",
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=30,
        description="How closely pictures follow the prompt; empty suits the base.",
    )
    scheduler: Scheduler | None = Field(
        None, description="The method that turns noise into a picture; empty suits the base."
    )
    seed: int = Field(
        7,
        ge=0,
        le=2**32 - 1,
        description="Start noise of the sample pictures; the same for each, so that only the style changes.",
    )


class JudgingConfig(Section):
    """Which of the kept states becomes the file."""

    enabled: bool = Field(
        True,
        description="When the training is over, draw the same prompts with every saved state at several strengths, and "
        "recommend one of them with the reason; without it the file holds the last state.",
    )
    strengths: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.0, 1.25],
        min_length=1,
        max_length=12,
        description="Strengths at which every saved state is looked at.",
    )
    share: float = Field(
        0.5,
        gt=0,
        le=10,
        description="Most that this may cost, as a share of the training; a run too short to afford three prompts is "
        "not judged.",
    )


class ExportConfig(Section):
    """The file that comes out."""

    format: FileLayout = Field(
        "kohya",
        description="'kohya' opens in A1111, Forge, ComfyUI, InvokeAI, sd-scripts and diffusers; 'diffusers' is PEFT's "
        "own layout, which only diffusers and stable-diffusion.cpp read whole.",
    )
    author: str = Field("", max_length=200, description="Name written into the file.")
    license: str = Field("", max_length=200, description="Licence written into the file.")
    usage_hint: str = Field(
        "",
        max_length=500,
        description="A hint for whoever uses the file, shown by tools that read it.",
    )
