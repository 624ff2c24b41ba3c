"""Naming what a file is when it is not read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.safetensors_file import Entry

# Part of a key -> what it shows, most telling first.
_METHODS: tuple[tuple[str, str], ...] = (
    ("boft_", "BOFT, which turns the base's weights"),
    ("oft_", "OFT, which turns the base's weights"),
    ("vera_lambda", "VeRA as PEFT writes it without its matrices, which are drawn anew wherever it is opened"),
    ("lora_E", "AdaLoRA with its diagonal"),
    ("ia3", "IA3, which multiplies what the base computes"),
    ("on_input", "IA3 (LyCORIS), which multiplies what the base computes"),
    ("lora_embedding_", "LoRA on embeddings"),
    ("lokr_t1", "LoKr in a form of another tool than LyCORIS or PEFT"),
    ("reshape_weight", "LoRA that changes the sizes of layers"),
    ("set_weight", "whole weights that replace those of the base"),
)
_READ = "it reads LoRA, LoCon, LoHa, LoKr, GLoRA, DoRA and whole differences"
_OTHER_MODELS: tuple[tuple[str, str], ...] = (
    ("double_blocks", "FLUX"),
    ("single_transformer_blocks", "FLUX"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("lora_te3_", "Stable Diffusion 3"),
    ("lora_prior_", "Stable Cascade or Kandinsky"),
    ("lora_transformer_", "a transformer model such as FLUX"),
    ("lycoris_transformer_blocks", "a transformer model such as FLUX"),
    ("transformer.", "a transformer model such as FLUX"),
)
_COMFY = "diffusion_model."
_COMFY_UNET = tuple(
    f"{_COMFY}{part}" for part in ("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "out.")
)
_STYLES = ("lora", "lycoris_", "hada_", "lokr_", ".diff", "_norm", ".alpha")
_WHOLE_MODELS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.")


def explain(path: Path, entries: Mapping[str, Entry]) -> str | None:
    """A sentence on what a file with these tensors is, or None when nothing is recognised."""
    names = list(entries)
    if any(name.startswith(_WHOLE_MODELS) for name in names):
        return f"{path} is a whole model, not a style; name it as the base instead."
    # LyCORIS gives BOFT's tensors the name of OFT's, with a stack of them in each.
    if any("oft_blocks" in name and len(entry.shape) == 4 for name, entry in entries.items()):
        return f"{path} is made with {_METHODS[0][1]}, which Patina cannot read; {_READ}."
    for part, method in _METHODS:
        if any(part in name for name in names):
            return f"{path} is made with {method}, which Patina cannot read; {_READ}."
    for part, model in _OTHER_MODELS:
        if any(name.startswith(part) if part.endswith(".") else part in name for name in names):
            return f"{path} is made for {model}, not for Stable Diffusion 1, 2 or XL."
    if any(name.startswith(_COMFY) and not name.startswith(_COMFY_UNET) for name in names):
        return f"{path} is made for a model that is not Stable Diffusion 1, 2 or XL."
    if any(name in {"emb_params", "clip_l", "clip_g", "string_to_param"} for name in names):
        return f"{path} is a textual inversion, not a LoRA."
    if not any(part in name for name in names for part in _STYLES):
        return f"{path} holds no LoRA weights."
    return None
