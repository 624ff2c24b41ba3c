"""Which layers of the denoiser learn: names for the usual choices, or a regular expression."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import regex

from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

MAX_PATTERN = 500
MAX_REPEATS = 1000
MATCH_SECONDS = 1.0
"""For all layers of a model together; a pattern as anyone would write it takes about a millisecond."""


TARGETS: Mapping[str, str] = {
    "cross": r".*\.attn2\.(to_[qkv]|to_out\.0)",
    "qv": r".*\.attn[12]\.to_[qv]",
    "self": r".*\.attn1\.(to_[qkv]|to_out\.0)",
    "attention": r".*\.attn[12]\.(to_[qkv]|to_out\.0)",
    "all-linear": r".*\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))",
    "style-blocks": r"up_blocks\.0\.attentions\.1\..*\.attn[12]\.(to_[qkv]|to_out\.0)",
    "content-blocks": r"up_blocks\.0\.attentions\.0\..*\.attn[12]\.(to_[qkv]|to_out\.0)",
    "style-and-content": r"up_blocks\.0\.attentions\.[01]\..*\.attn[12]\.(to_[qkv]|to_out\.0)",
}
"""Name -> regular expression over a layer's dotted path inside the denoiser (the whole path must match).

The names are those of diffusers' transformer blocks, of which UNets and most transformers of images are built; blocks
of style and content are SDXL's (`HALVES`), and other bases have no such layers."""

OF_SDXL = ("style-blocks", "content-blocks", "style-and-content")
"""Named targets that other bases than SDXL have no layers of."""

HALVES: Mapping[str, str] = {
    "content": r"up_blocks\.0\.attentions\.0\..*",
    "style": r"up_blocks\.0\.attentions\.1\..*",
}
"""Name -> the block of SDXL's UNet that carries it, as B-LoRA found (Frenkel et al. 2024, arXiv 2403.14572)."""


def select(model: nn.Module, targets: str) -> list[str]:
    """Dotted paths of the layers that ``targets`` names, in the model's order.

    Layers are `nn.Linear` and `nn.Conv2d`; the named targets match linear ones only. Layers that a bank has wrapped
    already count as what they were.

    Raises:
        ConfigError: the expression is broken, too long, too slow, or matches nothing.
    """
    from trainer.adapters.layers import GatedLayer, adaptable

    wrapped = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, GatedLayer))
    paths = [path for path, module in model.named_modules() if adaptable(module) and not path.startswith(wrapped)]
    chosen = matching(TARGETS.get(targets, targets), paths)
    if not chosen:
        examples = ", ".join(paths[:: max(1, len(paths) // 3)][:3]) or "none: the model has no such layers"
        raise ConfigError(
            f"adapter.targets {targets!r} matches no layer of this base; write one of {', '.join(TARGETS)}, or a "
            f"regular expression that matches whole paths such as {examples}."
        )
    return chosen


def describe(paths: Iterable[str]) -> str:
    """The named target that a file's layers of the denoiser amount to, or what they are in short.

    Args:
        paths: dotted paths inside the denoiser; no model is needed, so *which* blocks exist is not checked.
    """
    paths = list(paths)
    for name in OF_SDXL:
        if paths and all(re.fullmatch(TARGETS[name], path) for path in paths):
            return name
    kinds = {_kind(path) for path in paths}
    for name, known in _NAMED_KINDS.items():
        if kinds == known:
            return name
    return "custom: " + ", ".join(sorted(kinds)) if kinds else "none"


_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_NAMED_KINDS: Mapping[str, set[str]] = {
    "cross": {f"attn2.{p}" for p in _ATTENTION},
    "qv": {f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_v")},
    "self": {f"attn1.{p}" for p in _ATTENTION},
    "attention": {f"{a}.{p}" for a in ("attn1", "attn2") for p in _ATTENTION},
    "all-linear": {f"{a}.{p}" for a in ("attn1", "attn2") for p in _ATTENTION} | {"ff.net.0.proj", "ff.net.2"},
}


def _kind(path: str) -> str:
    """What is left of a path after its place: ``attn2.to_q``, ``ff.net.2``, ``resnets.conv1``."""
    within = re.split(r"transformer_blocks\.\d+\.", path)[-1]
    if within != path:
        return within
    return ".".join(part for part in path.split(".")[-3:] if not part.isdecimal())


def problem_with(pattern: str) -> str | None:
    """What is wrong with a regular expression, as a sentence without its subject; None when it can be used.

    Counted repetitions within each other are limited because they are written out when the expression is prepared,
    which no time-out can stop.
    """
    if len(pattern) > MAX_PATTERN:
        return f"is {len(pattern)} characters long; at most {MAX_PATTERN} are allowed"
    if re.search(r"[\s#]", pattern):
        return f"is {pattern!r}, but layers' names have neither white space nor #"
    counts = (max(map(int, re.findall("[0-9]+", braces)), default=1) for braces in re.findall("{[^{}]*}", pattern))
    if math.prod(max(1, count) for count in counts) > MAX_REPEATS:
        return f"is {pattern!r}, which repeats parts of itself more than {MAX_REPEATS} times; write smaller numbers"
    try:
        _compiled(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        return f"is {pattern!r}, but should be {', '.join(TARGETS)} or a regular expression ({error})"
    return None


def _compiled(pattern: str) -> regex.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return regex.compile(pattern)


def matching(pattern: str, paths: Sequence[str], *, setting: str = "adapter.targets") -> list[str]:
    """The paths that a regular expression matches whole, in their order.

    Args:
        setting: where the expression was written, for messages.

    Raises:
        ConfigError: the expression is broken, too long or too slow.
    """
    if problem := problem_with(pattern):
        raise ConfigError(f"{setting} {problem}.")
    compiled = _compiled(pattern)
    deadline = time.monotonic() + MATCH_SECONDS
    try:
        # A time-out of 0 or less would be none at all.
        return [path for path in paths if compiled.fullmatch(path, timeout=max(1e-3, deadline - time.monotonic()))]
    except (TimeoutError, MemoryError):
        raise ConfigError(
            f"{setting} {pattern!r} takes too long to match; write it with fewer repetitions (*, + or ?)."
        ) from None
