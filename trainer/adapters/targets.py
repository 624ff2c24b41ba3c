"""Which layers of the UNet learn: names for the usual choices, or a regular expression."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from trainer.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

MAX_PATTERN = 500
MATCH_SECONDS = 5.0

TARGETS: Mapping[str, str] = {
    "cross": r".*\.attn2\.(to_[qkv]|to_out\.0)",
    "qv": r".*\.attn[12]\.to_[qv]",
    "self": r".*\.attn1\.(to_[qkv]|to_out\.0)",
    "attention": r".*\.attn[12]\.(to_[qkv]|to_out\.0)",
    "all-linear": r".*\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))",
}
"""Name -> regular expression over a layer's dotted path inside the UNet (the whole path must match)."""

# Reads a pattern and paths from standard input, so that a pattern that backtracks without end can be stopped.
_MATCHER = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, paths = json.load(sys.stdin)
compiled = re.compile(pattern)
json.dump([i for i, path in enumerate(paths) if compiled.fullmatch(path)], sys.stdout)
"""


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
    chosen = _matching(TARGETS.get(targets, targets), paths)
    if not chosen:
        examples = ", ".join(paths[:: max(1, len(paths) // 3)][:3]) or "none: the model has no such layers"
        raise ConfigError(
            f"adapter.targets {targets!r} matches no layer of this base; write one of {', '.join(TARGETS)}, or a "
            f"regular expression that matches whole paths such as {examples}."
        )
    return chosen


def describe(paths: Iterable[str]) -> str:
    """The named target that a file's UNet layers amount to, or what they are in short.

    Args:
        paths: dotted paths inside the UNet; no model is needed, so *which* blocks exist is not checked.
    """
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
    return ".".join(part for part in path.split(".")[-3:] if not part.isdigit())


def _matching(pattern: str, paths: Sequence[str]) -> list[str]:
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(f"adapter.targets is {len(pattern)} characters long; at most {MAX_PATTERN} are allowed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"adapter.targets {pattern!r} is neither one of {', '.join(TARGETS)} nor a regular expression: {error}."
        ) from None
    # One repetition can backtrack at most quadratically; more of them can run for hours on a path of 80 characters.
    if pattern in TARGETS.values() or sum(pattern.count(sign) for sign in "*+{") <= 1:
        return [path for path in paths if compiled.fullmatch(path)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([pattern, list(paths)]),
            capture_output=True,
            text=True,
            check=True,
            timeout=MATCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"adapter.targets {pattern!r} takes too long to match; write it with fewer repetitions (* or +)."
        ) from None
    return [paths[index] for index in json.loads(done.stdout)]
