"""Alpha in PEFT's and diffusers' files: it is not among the tensors but in a configuration beside them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header

KEY = "lora_adapter_metadata"
"""diffusers' header key for PEFT's configuration: JSON, with the model's name in front of each key."""

_MODELS = ("unet", "text_encoder_2", "text_encoder")


def read(header: Header) -> dict[str, dict[str, Any]]:
    """PEFT's configuration by model (``unet``, ``text_encoder``, ``text_encoder_2``; "" is for all), as far as known.

    Raises:
        AdapterFileError: there is one, but it cannot be read.
    """
    if KEY in header.metadata:
        text, flat = header.metadata[KEY], True
    else:
        beside = header.path.with_name("adapter_config.json")
        if header.path.stem != "adapter_model" or not beside.is_file():
            return {}
        text, flat = beside.read_text(encoding="utf-8", errors="replace"), False
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("no table")
    except ValueError:
        raise AdapterFileError(f"{header.path} is damaged: its LoRA settings ({KEY}) cannot be read.") from None
    if not flat:
        return {"": raw}
    configs: dict[str, dict[str, Any]] = {}
    for key, value in raw.items():
        model = next((model for model in _MODELS if key.startswith(f"{model}.")), "")
        configs.setdefault(model, {})[key.removeprefix(f"{model}.")] = value
    return configs


def alpha_of(path: Path, configs: Mapping[str, Mapping[str, Any]], module: str, where: str, rank: int) -> float:
    """A layer's alpha in the convention ``alpha / rank``; the rank itself where nothing is said, as diffusers does.

    Args:
        module: the layer as the file names it.
        where: its root-qualified path.
    """
    module = module.removeprefix("base_model.model.")
    model = next(
        (model for model in _MODELS if module.startswith(f"{model}.")), "unet" if where.startswith("unet.") else ""
    )
    config = configs.get(model) or configs.get("")
    if not config:
        return float(rank)
    value = config.get("lora_alpha", rank)
    for pattern, special in (config.get("alpha_pattern") or {}).items():
        literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", literal):
            raise AdapterFileError(f"{path} sets alpha by the pattern {pattern!r}, which Patina does not read.")
        if f".{module.removeprefix(f'{model}.')}".endswith(f".{literal}"):
            value = special
            break
    try:
        alpha = float(value)
    except (TypeError, ValueError):
        raise AdapterFileError(f"{path} is damaged: alpha is {value!r} in its LoRA settings.") from None
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def compose(shapes: Mapping[str, tuple[int, float]], models: Mapping[str, str]) -> str:
    """The configuration for a file's header.

    Args:
        shapes: (rank, alpha) by root-qualified path.
        models: diffusers' name of each root.
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
            "use_dora": False,
            "use_rslora": False,
        }
        packed.update({f"{models[root]}.{key}": value for key, value in config.items()})
    return json.dumps(packed, indent=2, sort_keys=True)


def _plain(alpha: float) -> int | float:
    """PEFT declares alpha a whole number; write it so where it is one."""
    return int(alpha) if alpha == int(alpha) else alpha
