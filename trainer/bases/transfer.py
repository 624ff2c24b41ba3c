"""Sending small tensors to a card without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; from main memory to a card through pinned memory, so that the host goes on at once.

    A plain ``.to(device)`` waits until the card has done everything it was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
