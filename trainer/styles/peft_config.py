"""Alpha in PEFT's and diffusers' files: it is not among the tensors but in a configuration beside them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header
from trainer.styles.alpha import MAX_ALPHA, usable
from trainer.styles.patterns import Patterns

KEY = "lora_adapter_metadata"
"""diffusers' header key for PEFT's configuration: JSON, with the model's name in front of each key."""

_MODELS = ("unet", "text_encoder_2", "text_encoder")
_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True)
class PeftConfig:
    """What PEFT's configuration says of the adapter on one model.

    Attributes:
        alpha, rank: of the layers that the patterns do not name; None where it does not say.
        alphas, ranks: by pattern.
        by_root: whether alpha counts ``alpha / sqrt(rank)`` (rsLoRA).
    """

    alpha: float | None = None
    rank: float | None = None
    alphas: Patterns = field(default_factory=Patterns)
    ranks: Patterns = field(default_factory=Patterns)
    by_root: bool = False

    def alpha_of(self, inner: str, rank: int | None) -> float | None:
        """A layer's alpha in the convention ``alpha / rank``; None where the configuration does not tell.

        Args:
            inner: its dotted path without the model's name.
            rank: None where the tensors show none; alpha is then divided by the configuration's.
        """
        alpha = self.alphas.of(inner, self.alpha)
        if alpha is None:
            return None
        if rank is None:
            own = self.ranks.of(inner, self.rank)
            return None if own is None else alpha / own
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


def alpha_of(configs: Mapping[str, PeftConfig], module: str, where: str, rank: int | None) -> float | None:
    """A layer's alpha in the convention ``alpha / rank``; None where nothing is said.

    Args:
        module: the layer as the file names it.
        where: its root-qualified path.
        rank: None where the tensors show none, and alpha is to be the factor on the whole.
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
    stated = table.get("lora_alpha", table.get("alpha"))
    rank = table.get("r")
    return PeftConfig(
        None if stated is None else _alpha(path, stated),
        None if rank is None else _number(path, "r", rank),
        Patterns.parse(path, "alpha_pattern", table.get("alpha_pattern"), lambda value: _alpha(path, value)),
        Patterns.parse(path, "rank_pattern", table.get("rank_pattern"), lambda value: _number(path, "rank", value)),
        bool(table.get("use_rslora")),
    )


def _alpha(path: Path, value: Any) -> float:
    return _number(path, "alpha", value)


def _number(path: Path, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not usable(number):
        raise AdapterFileError(
            f"{path} is damaged: {name} is {str(value)[:40]!r} in its LoRA settings, "
            f"but should be a number other than 0 and at most {MAX_ALPHA:g}."
        )
    return number


def _plain(alpha: float) -> int | float:
    """PEFT declares alpha a whole number; write it so where it is one."""
    return int(alpha) if alpha == int(alpha) else alpha
