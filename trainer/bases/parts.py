"""The parts of a base as they were stored, before they are put on a device: what folders and single files share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.bases.detect import Detected
from trainer.bases.mapped import in_pieces
from trainer.errors import BaseError
from trainer.safetensors_file import read_header

# Types of the safetensors format that weights may be stored in; the rest (8-bit floats) is widened when read.
STORED_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass
class Parts:
    """Frozen modules on the CPU in the number format of their files, and the settings beside them.

    Attributes:
        zero_empty_negative: whether pictures without a negative prompt are guided away from zeros, not from ``""``.
        notes: sentences for the user.
    """

    detected: Detected
    denoiser: Any
    vae: Any
    text_encoders: dict[str, Any]
    tokenizers: dict[str, Any]
    scheduler: dict[str, Any]
    zero_empty_negative: bool
    notes: list[str] = field(default_factory=list)

    @property
    def side(self) -> int:
        """Native side in pixels, by the denoiser's own configuration."""
        return int(self.denoiser.config.sample_size) * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def modules(self) -> list[nn.Module]:
        return [self.denoiser, self.vae, *self.text_encoders.values()]


def stored_dtype(names: Collection[str]) -> torch.dtype:
    """The number format to read weights in, from the format's names of their types: the most frequent one."""
    known = Counter(name for name in names if name in STORED_TYPES)
    return STORED_TYPES[known.most_common(1)[0][0]] if known else torch.float32


def stored_dtype_of(file: Path) -> torch.dtype:
    """As `stored_dtype`, of a safetensors file."""
    return stored_dtype(list(read_header(file, BaseError).dtypes.values()))


def first_line(error: Exception) -> str:
    """What a library says of a failure, short enough for a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def weights_identity(model: nn.Module) -> str:
    """SHA-256 over a model's tensors under their names, sorted, as fp16 (hexadecimal).

    A folder, a single file and an fp16 variant of one model agree, because each is rounded to fp16 once. To be taken
    before adapters are attached and before the weights are cast to bf16 or quantised.
    """
    digest = hashlib.sha256()
    for name, tensor in in_pieces(sorted(model.state_dict().items()), lambda item: item[1:]):
        digest.update(name.encode())
        digest.update(str(tuple(tensor.shape)).encode())
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        digest.update(half.view(torch.uint8).numpy().data if half.dim() else half.numpy().tobytes())
    return digest.hexdigest()
