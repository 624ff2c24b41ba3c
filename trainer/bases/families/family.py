"""What a family of bases is: the facts that can be said of its members before one is opened, without torch.

What a family *does* (conditioning, noise, prediction) is the class that `Family.opened_class` names: a subclass of
`trainer.bases.base.Base`, of which every opened base is an object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.config import PresetName
from trainer.config.schedulers import Scheduler

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Preset:
    """What suits a family: ``steps = clamp(steps_per_image * images, least, most)``."""

    learning_rate: float
    rank: int
    batch_size: int
    steps_per_image: int
    least: int
    most: int
    reason: str
    targets: str = "cross"
    """Which layers learn, as in `trainer.adapters.targets`."""

    def steps(self, images: int) -> int:
        """Number of optimizer steps for so many training images."""
        return max(self.least, min(self.most, self.steps_per_image * images))


@dataclass(frozen=True)
class TextEncoderSpec:
    """One text encoder of a family.

    Attributes:
        root: prefix of its modules in adapters (kohya writes ``lora_<root>_``).
        folder: its folder in a diffusers model; its tokenizer's is ``tokenizer`` with the same ending.
        output: ``last`` takes the final, normalised hidden state, ``penultimate`` the raw one before the last layer.
        pooled: whether its projected pooled output is a condition too.
        original_prefix: what its tensors' names start with in a single-file checkpoint.
        original_layout: whose names and shapes follow there.
        pad_token: fills a prompt up to the encoder's length.
    """

    root: str
    folder: str
    output: Literal["last", "penultimate"] = "last"
    pooled: bool = False
    original_prefix: str = "cond_stage_model.transformer."
    original_layout: Literal["clip", "open_clip"] = "clip"
    pad_token: str = "<|endoftext|>"

    @property
    def tokenizer_folder(self) -> str:
        return self.folder.replace("text_encoder", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A family of bases.

    Attributes:
        key: the family's name in settings and databases.
        title: for people.
        root: of the denoiser's layers in adapters, and its folder in a diffusers model.
        text_encoders: in the order in which their hidden states are joined along the channels.
        text_width: channels of the joined hidden states in every released member; None where members differ.
        guidance: guidance scale that suits its pictures.
        guidance_rescale: most that a zero-terminal-SNR member needs of `Process.guidance_rescale`.
        scheduler, steps: method and number of denoising steps that suit its pictures.
        default_side: training side in pixels where the model does not say it.
        side_multiple: sides in pixels are multiples of this in every released member.
        name_prefixes: what names of the family begin with, in whatever file names it.
        version_names: ``ss_base_model_version`` for each prediction type the family exists in.
        architectures: ``modelspec.architecture`` (without ``/lora``) for each.
        presets: what is chosen for the user.
        prompts: subjects that show a style on this family, for samples when the user names none.
        values_per_rank: sum of the widths in and out of the layers that a named target adapts, in every released
            member; empty where members differ.
        pipelines: classes of diffusers that a folder of the family may name.
        configs: name of the shipped configuration for single files, for each prediction type.
        prediction_in_file: whether a single file tells its prediction type.
        vae_half: whether the family's VAE is known to stay finite in fp16 whatever its configuration says.
        draws_latents: whether it was trained on latents drawn from the VAE's posterior, not on the posterior's mean.
        latent_channels: of the latents that the denoiser takes.
        clip_skip: whether leaving out the last layers of its text encoders changes anything.
        original_names: whether style files in kohya's layout call its UNet's layers as Stability's original code does,
            not as diffusers does.
        v2: ``ss_v2`` of style files: whether kohya's tools open its members as Stable Diffusion 2.
    """

    key: str
    title: str
    root: str
    text_encoders: tuple[TextEncoderSpec, ...]
    text_width: int | None
    guidance: float
    default_side: int
    side_multiple: int
    name_prefixes: tuple[str, ...]
    version_names: Mapping[Prediction, str]
    architectures: Mapping[Prediction, str]
    presets: Mapping[PresetName, Preset]
    prompts: tuple[str, ...]
    pipelines: tuple[str, ...] = ()
    values_per_rank: Mapping[str, int] = field(default_factory=dict)
    configs: Mapping[Prediction, str] = field(default_factory=dict)
    prediction_in_file: bool = True
    vae_half: bool = False
    draws_latents: bool = True
    guidance_rescale: float = 1.0
    scheduler: Scheduler = "ddim"
    steps: int = 20
    clip_skip: bool = True
    original_names: bool = False
    v2: bool = False
    latent_channels: int = 4

    @abstractmethod
    def is_folder(self, model_index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """Whether ``model_index.json`` and the denoiser's configuration, of one of its `pipelines`, are a member's."""

    @abstractmethod
    def is_file(self, has: Callable[[str], bool]) -> bool:
        """Whether a single file is a member's; ``has`` says whether any tensor's name begins with a text."""

    @abstractmethod
    def opened_class(self) -> Any:
        """The class of the family's opened bases; importing it brings torch."""

    @property
    def pooled(self) -> bool:
        """Whether pooled texts are a condition too."""
        return any(encoder.pooled for encoder in self.text_encoders)


def names_a_class(entry: object) -> bool:
    """Whether an entry of ``model_index.json`` names a component, as ``["transformers", "CLIPTextModel"]`` does."""
    return isinstance(entry, (list, tuple)) and len(entry) > 1 and entry[1] is not None


SCENES = (
    "a cat sitting on a window sill",
    "a portrait of an old fisherman",
    "a small house beside a lake",
    "a bowl of fruit on a table",
    "a street in the rain at night",
    "a sailing ship on the sea",
)
"""Prompts for families that draw whole scenes."""
