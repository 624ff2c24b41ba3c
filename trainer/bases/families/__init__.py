"""The families of bases: one object each, and everything that the rest of the program asks about them.

A new family is a module (or folder) here and its name in `FAMILIES`. Sources of the facts: the models' own
configuration files, and for the names in files the conventions of kohya's sd-scripts (``ss_base_model_version``) and
of the ModelSpec standard (``modelspec.architecture``).
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.bases.families.bundled import BUNDLED as BUNDLED
from trainer.bases.families.family import Family as Family
from trainer.bases.families.family import Preset as Preset
from trainer.bases.families.sdxl import SDXL as SDXL
from trainer.bases.families.stable_diffusion import SD1 as SD1
from trainer.bases.families.stable_diffusion import SD2 as SD2

FAMILIES: Mapping[str, Family] = {family.key: family for family in (BUNDLED, SD1, SD2, SDXL)}


def title_of(key: str) -> str:
    """A family's title by its key; another tool's name for a family as it stands."""
    return FAMILIES[key].title if key in FAMILIES else key


def key_of(name: str) -> str | None:
    """Key of the family that a file calls by ``name`` (``ss_base_model_version``, ``modelspec.architecture``)."""
    return next((key for key, family in FAMILIES.items() if name.startswith(family.name_prefixes)), None)


def of_text_width(width: int) -> Family | None:
    """The family whose published members read text features of so many channels."""
    return next((family for family in FAMILIES.values() if family.text_width == width), None)
