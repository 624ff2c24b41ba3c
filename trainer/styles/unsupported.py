"""Naming what a file is when it is not a LoRA for Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Part of a key -> what it shows, most telling first.
_METHODS: tuple[tuple[str, str], ...] = (
    ("hada_", "LoHa (LyCORIS)"),
    ("lokr_", "LoKr (LyCORIS)"),
    ("boft_", "BOFT"),
    ("oft_", "OFT"),
    ("lora_mid.", "LoCon with Tucker decomposition (LyCORIS)"),
    ("vera_lambda", "VeRA"),
    ("lora_E", "AdaLoRA with its diagonal"),
    ("ia3", "IA3"),
    ("on_input", "IA3 (LyCORIS)"),
    (".diff", "full weight differences"),
    ("w_norm", "norm differences (LyCORIS)"),
    ("b_norm", "norm differences (LyCORIS)"),
    (".a1.weight", "GLoRA (LyCORIS)"),
    ("lora_B.bias", "LoRA with biases"),
)
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    ("double_blocks", "FLUX"),
    ("single_transformer_blocks", "FLUX"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("lora_te3_", "Stable Diffusion 3"),
    ("lora_prior_", "Stable Cascade or Kandinsky"),
    ("lora_transformer_", "a transformer model such as FLUX"),
    ("transformer.", "a transformer model such as FLUX"),
    ("diffusion_model.", "a model that is not Stable Diffusion 1, 2 or XL"),
)
_WHOLE_MODELS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.")


def explain(path: Path, keys: Iterable[str]) -> str | None:
    """A sentence on what a file with these tensors is, or None when nothing is recognised."""
    names = list(keys)
    if any(name.startswith(_WHOLE_MODELS) for name in names):
        return f"{path} is a whole model, not a style; name it as the base instead."
    for part, method in _METHODS:
        if any(part in name for name in names):
            return f"{path} is made with {method}, which Patina cannot read; it reads LoRA, rsLoRA and DoRA."
    for part, model in _OTHER_MODELS:
        if any(name.startswith(part) if part.endswith(".") else part in name for name in names):
            return f"{path} is made for {model}, not for Stable Diffusion 1, 2 or XL."
    if any(name in {"emb_params", "clip_l", "clip_g", "string_to_param"} for name in names):
        return f"{path} is a textual inversion, not a LoRA."
    if not any("lora" in name for name in names):
        return f"{path} holds no LoRA weights."
    return None
