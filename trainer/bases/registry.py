"""Families of Stable Diffusion as data: what differs between them stands in a row, not in branches of code.

Sources: the models' own configuration files, and for the names in files the conventions of kohya's sd-scripts
(``ss_base_model_version``) and of the ModelSpec standard (``modelspec.architecture``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class TextEncoderSpec:
    """One text encoder of a family.

    Attributes:
        root: prefix of its modules in adapters (kohya writes ``lora_<root>_``).
        folder: its folder in a diffusers model; its tokenizer's is ``tokenizer`` with the same ending.
        output: ``last`` takes the final, normalised hidden state, ``penultimate`` the raw one before the last layer.
        pooled: whether its projected pooled output conditions the UNet.
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


@dataclass(frozen=True)
class Family:
    """A family of bases.

    Attributes:
        key: the row's name, also that of its presets.
        title: for people.
        text_encoders: in the order in which their hidden states are joined along the channels.
        time_ids: whether the UNet is told original size, crop and target size (SDXL).
        guidance: guidance scale that suits its pictures.
        default_side: training side in pixels where the model does not say it.
        version_names: ``ss_base_model_version`` for each prediction type the family exists in.
        architectures: ``modelspec.architecture`` (without ``/lora``) for each.
        prompts: subjects that show a style on this family, for samples when the user names none.
        configs: name of the shipped configuration for single files, for each prediction type.
        prediction_in_file: whether a single file tells its prediction type; SD2's does not, others are epsilon
            unless they carry a marker.
        vae_half: whether the family's VAE is known to stay finite in fp16 whatever its configuration says.
        draws_latents: whether its UNet was trained on latents drawn from the VAE's posterior. The bundled base was
            trained on the posterior's mean, and its VAE's deviations mean nothing: half as large as the latents.
    """

    key: str
    title: str
    text_encoders: tuple[TextEncoderSpec, ...]
    time_ids: bool
    guidance: float
    default_side: int
    version_names: Mapping[Prediction, str]
    architectures: Mapping[Prediction, str]
    prompts: tuple[str, ...]
    configs: Mapping[Prediction, str] = field(default_factory=dict)
    prediction_in_file: bool = True
    vae_half: bool = False
    draws_latents: bool = True

    @property
    def pooled(self) -> bool:
        return any(encoder.pooled for encoder in self.text_encoders)


_SCENES = (
    "a cat sitting on a window sill",
    "a portrait of an old fisherman",
    "a small house beside a lake",
    "a bowl of fruit on a table",
    "a street in the rain at night",
    "a sailing ship on the sea",
)
_SUBJECTS = (
    "smiling face",
    "red heart",
    "bus",
    "tiger face",
    "hamburger",
    "bear",
    "castle",
    "frog",
    "truck",
    "octopus",
    "robot",
    "fox",
)
_ONE_ENCODER = (TextEncoderSpec("te", "text_encoder"),)

BUNDLED = Family(
    key="bundled",
    title="Bundled icons",
    text_encoders=_ONE_ENCODER,
    time_ids=False,
    guidance=3.0,
    default_side=128,
    version_names={"epsilon": "sd_v1"},
    architectures={"epsilon": "stable-diffusion-v1"},
    prompts=_SUBJECTS,
    draws_latents=False,
)
SD1 = Family(
    key="sd1",
    title="Stable Diffusion 1",
    text_encoders=_ONE_ENCODER,
    time_ids=False,
    guidance=7.0,
    default_side=512,
    version_names={"epsilon": "sd_v1", "v_prediction": "sd_v1"},
    architectures={"epsilon": "stable-diffusion-v1", "v_prediction": "stable-diffusion-v1"},
    prompts=_SCENES,
    configs={"epsilon": "sd1", "v_prediction": "sd1"},
    vae_half=True,
)
SD2 = Family(
    key="sd2",
    title="Stable Diffusion 2",
    text_encoders=(
        TextEncoderSpec(
            "te",
            "text_encoder",
            original_prefix="cond_stage_model.model.",
            original_layout="open_clip",
            pad_token="!",
        ),
    ),
    time_ids=False,
    guidance=7.0,
    default_side=512,
    version_names={"epsilon": "sd_v2", "v_prediction": "sd_v2_v"},
    architectures={
        "epsilon": "stable-diffusion-v2-512",
        "v_prediction": "stable-diffusion-v2-768-v",
    },
    prompts=_SCENES,
    configs={"epsilon": "sd2", "v_prediction": "sd2_v"},
    prediction_in_file=False,
    vae_half=True,
)
SDXL = Family(
    key="sdxl",
    title="Stable Diffusion XL",
    text_encoders=(
        TextEncoderSpec(
            "te1", "text_encoder", output="penultimate", original_prefix="conditioner.embedders.0.transformer."
        ),
        TextEncoderSpec(
            "te2",
            "text_encoder_2",
            output="penultimate",
            pooled=True,
            original_prefix="conditioner.embedders.1.model.",
            original_layout="open_clip",
            pad_token="!",
        ),
    ),
    time_ids=True,
    guidance=6.0,
    default_side=1024,
    version_names={"epsilon": "sdxl_base_v1-0", "v_prediction": "sdxl_base_v1-0"},
    architectures={
        "epsilon": "stable-diffusion-xl-v1-base",
        "v_prediction": "stable-diffusion-xl-v1-base",
    },
    prompts=_SCENES,
    configs={"epsilon": "sdxl", "v_prediction": "sdxl"},
)

FAMILIES: dict[str, Family] = {family.key: family for family in (BUNDLED, SD1, SD2, SDXL)}
