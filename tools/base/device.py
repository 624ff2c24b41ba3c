"""Where a tensor lives and in which type it is computed."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def best_device() -> torch.device:
    """CUDA if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 products on CUDA and on CPUs with matrix units for it; else full precision.

    Vector instructions alone (AVX-512 BF16) are not enough: on one Intel core without matrix units the step took twice
    as long in bfloat16.
    """
    if device.type == "cuda" or torch.cpu._is_amx_tile_supported():
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images (B, H, W, 3) as the autoencoder takes them: (B, 3, H, W), fp32 in [-1, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_images(pixels: Tensor) -> NDArray[np.uint8]:
    """The way back: (B, 3, H, W) in [-1, 1] to (B, H, W, 3), uint8."""
    scaled = pixels.float().add(1).mul(127.5).round().clamp(0, 255)
    images: NDArray[np.uint8] = scaled.to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return images
