"""Regional compilation of the denoiser: its transformer blocks, which repeat, so that one compilation serves many.

Only the passes of training run compiled: previews come in other batch shapes, each of which would compile anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch


def can_compile(device: torch.device) -> bool:
    """Whether compiling is possible and ever pays: on a card, with the compiler that makes its kernels."""
    return device.type == "cuda" and find_spec("triton") is not None


def compile_blocks(denoiser: Any, backend: str = "inductor") -> None:
    """Compile the transformer blocks in place, for fixed shapes; nothing happens until the next pass."""
    denoiser.compile_repeated_blocks(backend=backend, dynamic=False)


def uncompile(denoiser: Any) -> None:
    """Let every block run as written again."""
    for module in denoiser.modules():
        # The place where `nn.Module.compile` keeps its result; torch offers no way to take it back.
        module._compiled_call_impl = None


@contextmanager
def as_written(denoiser: Any) -> Iterator[None]:
    """Compiled blocks run uncompiled until the block ends, and are not lost."""
    compiled = [(m, m._compiled_call_impl) for m in denoiser.modules() if m._compiled_call_impl is not None]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
