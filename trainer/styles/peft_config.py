"""Alpha in PEFT's and diffusers' files: it is not among the tensors but in a configuration beside them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header

KEY = "lora_adapter_metadata"
"""diffusers' header key for PEFT's configuration: JSON, with the model's name in front of each key."""

MAX_ALPHA = 1e6
"""Far above any alpha that was ever trained with; what is larger only breaks pictures."""

_MODELS = ("unet", "text_encoder_2", "text_encoder")
_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True)
class PeftConfig:
    """What PEFT's configuration says of the adapter on one model.

    Attributes:
        alpha: of the layers that ``patterns`` does not name; None is the rank.
        patterns: end of a layer's dotted path -> (place in the table, alpha); the first in the table wins.
        by_root: whether alpha counts ``alpha / sqrt(rank)`` (rsLoRA).
    """

    alpha: float | None = None
    patterns: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    by_root: bool = False

    def alpha_of(self, inner: str, rank: int) -> float:
        """A layer's alpha in the convention ``alpha / rank``, by its dotted path without the model's name."""
        parts = inner.split(".")
        ends = (".".join(parts[i:]) for i in range(len(parts)))
        named = min((self.patterns[end] for end in ends if end in self.patterns), default=None)
        if named is not None:
            alpha = named[1]
        else:
            alpha = float(rank) if self.alpha is None else self.alpha
        return alpha * math.sqrt(rank) if self.by_root else alpha


def read(header: Header) -> dict[str, PeftConfig]:
    """PEFT's configuration by model (``unet``, ``text_encoder``, ``text_encoder_2``; "" is for all), as far as known.

    Raises:
        AdapterFileError: there is one, but it cannot be read, or an alpha in it is no usable number.
    """
    text, flat = _text_of(header)
    if text is None:
        return {}
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("no table")
    except (ValueError, RecursionError):
        raise AdapterFileError(f"{header.path} is damaged: its LoRA settings ({KEY}) cannot be read.") from None
    tables: dict[str, dict[str, Any]] = {} if flat else {"": raw}
    for key, value in raw.items() if flat else ():
        model = next((model for model in _MODELS if key.startswith(f"{model}.")), "")
        tables.setdefault(model, {})[key.removeprefix(f"{model}.")] = value
    return {model: _config(header.path, table) for model, table in tables.items()}


def alpha_of(configs: Mapping[str, PeftConfig], module: str, where: str, rank: int) -> float:
    """A layer's alpha in the convention ``alpha / rank``; the rank itself where nothing is said, as diffusers does.

    Args:
        module: the layer as the file names it.
        where: its root-qualified path.
    """
    module = module.removeprefix("base_model.model.")
    model = next(
        (model for model in _MODELS if module.startswith(f"{model}.")), "unet" if where.startswith("unet.") else ""
    )
    config = configs.get(model) or configs.get("") or PeftConfig()
    return config.alpha_of(module.removeprefix(f"{model}."), rank)


def compose(shapes: Mapping[str, tuple[int, float]], models: Mapping[str, str], *, dora: bool = False) -> str:
    """The configuration for a file's header.

    Args:
        shapes: (rank, alpha) by root-qualified path.
        models: diffusers' name of each root.
        dora: the layers have magnitudes, too.
    """
    packed: dict[str, Any] = {}
    for root in sorted({where.split(".", 1)[0] for where in shapes}):
        own = {where.split(".", 1)[1]: value for where, value in shapes.items() if where.startswith(f"{root}.")}
        rank = Counter(rank for rank, _ in own.values()).most_common(1)[0][0]
        alpha = Counter(alpha for _, alpha in own.values()).most_common(1)[0][0]
        config = {
            "r": rank,
            "lora_alpha": _plain(alpha),
            "rank_pattern": {path: r for path, (r, _) in sorted(own.items()) if r != rank},
            "alpha_pattern": {path: _plain(a) for path, (_, a) in sorted(own.items()) if a != alpha},
            "target_modules": sorted(own),
            "bias": "none",
            "lora_bias": False,
            "lora_dropout": 0.0,
            "use_dora": dora,
            "use_rslora": False,
        }
        packed.update({f"{models[root]}.{key}": value for key, value in config.items()})
    return json.dumps(packed, indent=2, sort_keys=True)


def usable(alpha: float) -> bool:
    """Whether an alpha is a number that an update can be scaled by."""
    return math.isfinite(alpha) and 0 < abs(alpha) <= MAX_ALPHA


def _text_of(header: Header) -> tuple[str | None, bool]:
    """The configuration as it stands, and whether it is diffusers' flat form; None without one."""
    if KEY in header.metadata:
        return header.metadata[KEY], True
    beside = header.path.with_name("adapter_config.json")
    if header.path.stem != "adapter_model" or not beside.is_file():
        return None, False
    try:
        with beside.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise AdapterFileError(f"{beside} cannot be read: {error.strerror or error}.") from None
    if len(data) > _MAX_BYTES:
        raise AdapterFileError(f"{beside} is larger than {_MAX_BYTES // 2**20} MiB, so it is no LoRA's settings.")
    return data.decode("utf-8", errors="replace"), False


def _config(path: Path, table: Mapping[str, Any]) -> PeftConfig:
    pattern_table = table.get("alpha_pattern") or {}
    if not isinstance(pattern_table, dict):
        raise AdapterFileError(
            f"{path} is damaged: alpha_pattern in its LoRA settings should be a table of layers and alphas."
        )
    patterns: dict[str, tuple[int, float]] = {}
    for place, (pattern, value) in enumerate(pattern_table.items()):
        literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", literal):
            raise AdapterFileError(f"{path} sets alpha by the pattern {pattern[:80]!r}, which Patina does not read.")
        patterns.setdefault(literal, (place, _alpha(path, value)))
    stated = table.get("lora_alpha")
    return PeftConfig(None if stated is None else _alpha(path, stated), patterns, bool(table.get("use_rslora")))


def _alpha(path: Path, value: Any) -> float:
    try:
        alpha = float(value)
    except (TypeError, ValueError, OverflowError):
        alpha = math.nan
    if isinstance(value, bool) or not usable(alpha):
        raise AdapterFileError(
            f"{path} is damaged: alpha is {str(value)[:40]!r} in its LoRA settings, "
            f"but should be a number other than 0 and at most {MAX_ALPHA:g}."
        )
    return alpha


def _plain(alpha: float) -> int | float:
    """PEFT declares alpha a whole number; write it so where it is one."""
    return int(alpha) if alpha == int(alpha) else alpha
