"""Style files in a bank: finding the base they were trained on, and loading them with what there is to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import BaseConfig
from trainer.errors import AdapterFileError
from trainer.safetensors_file import read_header
from trainer.styles.alpha import Alpha
from trainer.styles.fit import attach
from trainer.styles.metadata import check_base, clip_skip_of
from trainer.styles.read import read_style


def base_of(paths: Sequence[Path]) -> BaseConfig:
    """The base that the first of these files was trained on, opened as it was then; the bundled one without files.

    How many bits its weights had is nothing that a style asks for.

    Raises:
        AdapterFileError: a file is unreadable, or none of them names its base.
    """
    if not paths:
        return BaseConfig()
    for path in paths:
        try:
            told = json.loads(read_header(path, AdapterFileError).metadata.get("patina.config", "{}"))["base"]
            source = str(told["source"])
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
        known = {name: told[name] for name in BaseConfig.model_fields if name in told and name != "quantize"}
        try:
            return BaseConfig.model_validate(known)
        except ValueError:
            # Of another version, or edited: the source alone may do.
            return BaseConfig(source=source)
    raise AdapterFileError(f"{paths[0]} does not say which base it was trained on: name it with --base.")


def load_style(bank: Bank, base: Base, path: Path, *, name: str, alpha: Alpha | None = None) -> list[str]:
    """Load a style file into a bank and return what the user should know about it.

    Args:
        alpha: for a file that does not say it.

    Raises:
        AdapterFileError: the file is unreadable or does not fit the base.
    """
    names = {root: [path for path, _ in model.named_modules()] for root, model in bank.roots.items()}
    file = read_style(path, names, alpha=alpha)
    notes = check_base(file.metadata, base_sha256=base.identity, family=base.family.key)
    if base.family.clip_skip and (skipped := clip_skip_of(file.metadata)) not in (None, base.clip_skip):
        notes.append(
            f"it was trained with base.clip_skip {skipped}, and is drawn with {base.clip_skip}; say --clip-skip "
            f"{skipped} to draw as in training."
        )
    adapter = attach(bank, name, file)
    return [f"{path.name}: {note}" for note in (*notes, *adapter.notes)]
