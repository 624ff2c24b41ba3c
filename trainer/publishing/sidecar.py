"""The ``.json`` that A1111 and Forge read beside a style file, which fills their card's form.

Its keys are those of A1111's editor for a network's user metadata (``ui_edit_user_metadata.py`` of its Lora extension).
"""

from __future__ import annotations

import json

from trainer.bases.families import BUNDLED, title_of
from trainer.publishing.subject import Subject

_VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


def sidecar(subject: Subject) -> str:
    """The file's text; a weight of 0 means there that none is preferred."""
    values = {
        "description": description(subject),
        "sd version": _VERSIONS.get(subject.family, "Unknown"),
        "activation text": subject.trigger,
        "preferred weight": subject.strength or 0,
        "negative text": "",
        "notes": subject.hint,
    }
    return json.dumps(values, indent=4, ensure_ascii=False) + "\n"


def description(subject: Subject) -> str:
    """One sentence on what the style is for."""
    base = subject.base or (title_of(subject.family) if subject.family else "Stable Diffusion")
    if subject.family == BUNDLED.key:
        base = "the small base that comes with Patina"
    by = f" by {subject.author}" if subject.author else ""
    return f"A style{by} for {base}, made with Patina."
