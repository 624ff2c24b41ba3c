"""What makes two files the same base: a hash over weights that ignores how they are stored."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_identity(model: nn.Module) -> str:
    """SHA-256 over a model's tensors under their names, sorted, as fp16 (hexadecimal).

    A folder, a single file and an fp16 variant of one model agree, because each is rounded to fp16 once. To be taken
    before adapters are attached and before the weights are cast to bf16 or quantised.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(str(tuple(tensor.shape)).encode())
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        digest.update(half.view(torch.uint8).numpy().data if half.dim() else half.numpy().tobytes())
    return digest.hexdigest()
