"""What a file says that concerns nobody else, and how it is taken out: captions, names of images, and paths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from trainer.config import RunConfig
from trainer.safetensors_file import HASH_KEY, SPEC_HASH_KEY

CAPTIONS = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs", "ss_datasets", "ss_session_id")
"""Metadata keys that hold captions, or the names of folders with images."""

_UNTOUCHED = ("modelspec.thumbnail", HASH_KEY, SPEC_HASH_KEY)
# What a path starts with on any system, or a relative one of three parts and more.
_PATH = re.compile(r"(?:[~/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\])[^\n]*|[^\s:]+[/\\][^\s:]+[/\\][^\s:]*")
_MODEL_FILE = re.compile(r"[^\n]*[/\\][^\n]*\.(?:safetensors|ckpt|pt|pth|bin)", re.IGNORECASE)


def public_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """A file's metadata without captions, and with the last part alone of each path."""
    return {
        key: value if key in _UNTOUCHED else _public_text(value)
        for key, value in metadata.items()
        if key not in CAPTIONS
    }


def removed(metadata: Mapping[str, str]) -> list[str]:
    """The metadata keys that `public_metadata` drops or changes."""
    kept = public_metadata(metadata)
    return sorted(key for key, value in metadata.items() if kept.get(key) != value)


def public_config(config: RunConfig) -> RunConfig:
    """Settings without where the images lie, and with the last part alone of each path."""
    values: dict[str, Any] = _public_value(config.model_dump())
    values["data"]["images"] = ""
    return RunConfig.model_validate(values)


def _public_text(text: str) -> str:
    if text[:1] in "{[":
        try:
            return json.dumps(_public_value(json.loads(text)), sort_keys=True, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return str(_public_value(text))


def _public_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public_value(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if _PATH.fullmatch(value) or _MODEL_FILE.fullmatch(value):
        return last_part(value)
    # In the middle of a sentence: whatever begins with this user's own folder.
    home = str(Path.home())
    return value.replace(home, "~") if len(home) > 1 else value


def last_part(path: str) -> str:
    """The last part of a path of any system."""
    kind = PureWindowsPath if "\\" in path or re.match("[A-Za-z]:", path) else PurePosixPath
    return kind(path).name
