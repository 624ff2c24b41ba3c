"""The small base that ships with Patina: Stable Diffusion 1's parts at a size that a CPU trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainer.bases.families.family import Preset, TextEncoderSpec
from trainer.bases.families.stable_diffusion import StableDiffusion

_TARGETS = "all-linear"
"""Cross-attention alone bends subjects out of shape before it has the look of a style."""
_REASON = "a small base needs a high learning rate to move, and a few hundred steps on a CPU"


class Bundled(StableDiffusion):
    """The family of one base, which is opened by its name and found nowhere else."""

    def is_folder(self, model_index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        return False

    def is_file(self, has: Callable[[str], bool]) -> bool:
        return False


BUNDLED = Bundled(
    key="bundled",
    title="Bundled icons",
    text_encoders=(TextEncoderSpec("te", "text_encoder"),),
    text_width=None,
    guidance=3.0,
    default_side=128,
    side_multiple=32,
    name_prefixes=("patina_icons", "patina-icons"),
    # Its layers have the names of Stable Diffusion 1 and other shapes: a file that claimed to be of that family would
    # be taken for one and fail.
    version_names={"epsilon": "patina_icons_v1", "v_prediction": "patina_icons_v1"},
    architectures={"epsilon": "patina-icons-v1", "v_prediction": "patina-icons-v1"},
    presets={
        "quick": Preset(7e-4, 8, 4, 10, 120, 200, f"{_REASON}; this one shows the idea", _TARGETS),
        "balanced": Preset(4e-4, 8, 4, 22, 300, 450, _REASON, _TARGETS),
        "thorough": Preset(
            3e-4, 16, 4, 50, 600, 1200, f"{_REASON}; twice the rank and length for a closer likeness", _TARGETS
        ),
    },
    prompts=(
        "smiling face",
        "red heart",
        "bus",
        "tiger face",
        "hamburger",
        "bear",
        "castle",
        "frog",
        "delivery truck",
        "octopus",
        "robot",
        "fox",
    ),
    # It was trained on the posterior's mean, and its VAE's deviations mean nothing: half as large as the latents.
    draws_latents=False,
    # Looked at: its pictures at guidance 3 are neither pale nor burnt without it.
    guidance_rescale=0.0,
    # The same pictures as DDIM's with 20.
    scheduler="dpm++_2m",
    steps=12,
)
