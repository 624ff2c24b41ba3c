"""Which files of a diffusers model are read: pure functions over the names in a folder or a hub repository."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from trainer.bases.families import FAMILIES
from trainer.bases.families.family import names_a_class
from trainer.errors import BaseError

_DENOISERS = sorted({family.root for family in FAMILIES.values()})
SETTINGS_FILES = re.compile(
    rf"model_index\.json|({'|'.join(_DENOISERS)}|vae|text_encoder(_2)?)/config\.json|scheduler/scheduler_config\.json|"
    r"tokenizer(_2)?/(tokenizer\.json|vocab\.json|merges\.txt|tokenizer_config\.json|special_tokens_map\.json|"
    r"added_tokens\.json)"
)
_STEMS = dict.fromkeys((*_DENOISERS, "vae"), "diffusion_pytorch_model")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Weights:
    """The weight files of one component, all of one ``variant`` (``None``: the plain one), and their index if split."""

    variant: str | None
    files: tuple[str, ...]
    index: str | None = None


def choose_weights(names: Collection[str], component: str, variant: str | None, where: str) -> Weights:
    """Choose what to read of one component.

    Args:
        names: every file, as paths relative to the model, with ``/``.
        component: such as ``vae`` or ``text_encoder_2``.
        variant: the user's wish; ``None`` takes fp16 before the plain files, as they hold the same values for half
            the download.
        where: the model's name in messages.

    Raises:
        BaseError: no safetensors files, or not in that variant.
    """
    offered = _offered(names, component)
    if variant is None:
        for candidate in ("fp16", None):
            if candidate in offered:
                return offered[candidate]
    elif variant in offered:
        return offered[variant]
    if offered:
        known = ", ".join(sorted(repr(name or "none") for name in offered))
        raise BaseError(f"{where} has no variant {variant!r} of its {component}; base.variant can be {known}.")
    if any(name.startswith(f"{component}/") and name.endswith(_PICKLES) for name in names):
        raise BaseError(
            f"{where} offers its {component} only as a pickle (.bin), which can run code when it is opened; "
            "choose a model with .safetensors files."
        )
    raise BaseError(f"{where} has no weights for its {component}, so it is no complete diffusers model.")


def components_of(model_index: dict[str, object]) -> list[str]:
    """The components with weights that a text-to-image model needs, by its ``model_index.json``."""
    second = names_a_class(model_index.get("text_encoder_2"))
    return [denoiser_of(model_index), "vae", "text_encoder", *(["text_encoder_2"] if second else [])]


def denoiser_of(model_index: Mapping[str, object]) -> str:
    """The component that takes noise away, by what ``model_index.json`` names; a usual one if it names none."""
    return next((name for name in _DENOISERS if names_a_class(model_index.get(name))), _DENOISERS[0])


def files_to_fetch(names: Collection[str], chosen: Iterable[Weights]) -> list[str]:
    """Every file of a repository that loading needs, and no other."""
    wanted = {name for name in names if SETTINGS_FILES.fullmatch(name)}
    for weights in chosen:
        wanted.update(weights.files)
        if weights.index is not None:
            wanted.add(weights.index)
    return sorted(wanted)


def _offered(names: Collection[str], component: str) -> dict[str | None, Weights]:
    """Complete weights of a component by variant; split ones count only with their index."""
    stem = re.escape(_STEMS.get(component, "model"))
    whole = re.compile(rf"{component}/{stem}(?:\.(\w+))?\.safetensors")
    part = re.compile(rf"{component}/{stem}(?:\.(\w+))?-\d{{5}}-of-(\d{{5}})(?:\.(\w+))?\.safetensors")
    index = re.compile(rf"{component}/{stem}(?:\.(\w+))?\.safetensors\.index(?:\.(\w+))?\.json")
    found: dict[str | None, Weights] = {}
    parts: dict[str | None, list[str]] = {}
    indices: dict[str | None, str] = {}
    for name in sorted(names):
        if match := whole.fullmatch(name):
            found[match[1]] = Weights(match[1], (name,))
        elif match := part.fullmatch(name):
            parts.setdefault(match[1] or match[3], []).append(name)
        elif match := index.fullmatch(name):
            indices[match[1] or match[2]] = name
    for variant, files in parts.items():
        total = int(files[0].split("-of-")[1][:5])
        if variant not in found and variant in indices and len(files) == total:
            found[variant] = Weights(variant, tuple(files), indices[variant])
    return found
