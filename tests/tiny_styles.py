"""What tests ask of style files and of the tiny models they are for."""

from __future__ import annotations

from typing import Any

import torch
from tiny_families import TinyModel

from trainer.styles.file import StyleFile


def roots_of(model: TinyModel) -> dict[str, Any]:
    """The models of a tiny base by root."""
    if "text_encoder_2" in model.text_encoders:
        return {
            "unet": model.unet,
            "te1": model.text_encoders["text_encoder"],
            "te2": model.text_encoders["text_encoder_2"],
        }
    return {"unet": model.unet, "te": model.text_encoders["text_encoder"]}


def updates(file: StyleFile) -> dict[str, torch.Tensor]:
    """The whole update of every layer, fp64."""
    return {
        path: layer.scale * (layer.up.double().flatten(1) @ layer.down.double().flatten(1))
        for path, layer in file.layers.items()
    }
