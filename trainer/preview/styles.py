"""Style files in a bank: finding the base they were trained on, and loading them with what there is to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.errors import AdapterFileError
from trainer.safetensors_file import read_header
from trainer.styles.alpha import Alpha
from trainer.styles.fit import attach
from trainer.styles.metadata import check_base
from trainer.styles.read import read_style


def base_of(paths: Sequence[Path]) -> str:
    """The base that the first of these files was trained on, as a source to load; the bundled one without files.

    Raises:
        AdapterFileError: a file is unreadable, or none of them names its base.
    """
    if not paths:
        return "bundled"
    for path in paths:
        try:
            settings = json.loads(read_header(path, AdapterFileError).metadata.get("patina.config", "{}"))
            return str(settings["base"]["source"])
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
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
    adapter = attach(bank, name, file)
    return [f"{path.name}: {note}" for note in (*notes, *adapter.notes)]
