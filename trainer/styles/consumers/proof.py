"""Proof of a file: the update of each layer as each program computes it, compared with ours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.bases.families import FAMILIES, Family
from trainer.errors import AdapterFileError
from trainer.safetensors_file import read_header, read_tensors
from trainer.styles.consumers.opening import Opening, openings
from trainer.styles.consumers.programs import PROGRAMS, Program
from trainer.styles.consumers.tensors import DOWN, PARTS, UP, FileTensors, split
from trainer.styles.file import StyleFile, likely_family
from trainer.styles.metadata import family_of
from trainer.styles.names import DIFFUSERS_ROOTS

SAME = 1e-5
"""Largest relative difference of two updates (Frobenius) that counts as none: the comparison itself rounds."""


def prove(file: StyleFile, family: Family | None = None) -> tuple[Opening, ...]:
    """What each program does with a file, with every update computed; () where too little is known to say.

    That is so of a base of unknown family, of an alpha that nobody knows, and of files that are neither in kohya's
    layout nor in diffusers', with LoRA's or DoRA's tensors alone.

    Args:
        file: as `trainer.styles.read.read_style` read it.
        family: of its base; None is what the file says, or what its layers point to.

    Raises:
        AdapterFileError: the file cannot be read any more.
    """
    family = family or FAMILIES.get(family_of(file.metadata) or "") or likely_family(file.layers)
    header = read_header(file.path, AdapterFileError)
    if family is None or not file.alpha_known or not all(map(_is_ours, header.entries)):
        return ()
    tensors = read_tensors(header, raises=AdapterFileError)
    alphas = {split(key)[0]: float(tensor.float().reshape(-1)[0]) for key, tensor in tensors.items() if _is_alpha(key)}
    facts = FileTensors.of(header.shapes, alphas, file.metadata)
    layers = _Layers(tensors, alphas, file.layers)
    found = openings(facts, file.layers, family)
    return tuple(layers.checked(each, program) for each, program in zip(found, PROGRAMS, strict=True))


class _Layers:
    """The layers of a file, computed as a program does that finds them by name."""

    def __init__(
        self, tensors: Mapping[str, Tensor], alphas: Mapping[str, float], ours: Mapping[str, LayerWeights]
    ) -> None:
        self._tensors, self._alphas, self._ours = tensors, alphas, ours
        self._differences: dict[tuple[str, str, float], float] = {}

    def checked(self, opening: Opening, program: Program) -> Opening:
        """The same opening, or one that says what is wrong about it."""
        ratios: list[float] = []
        for path, stem in opening.taken.items():
            ours = self._ours[path]
            down = self._part(stem, DOWN)
            scale = self._alphas[stem] / down.shape[0] if stem in self._alphas else 1.0
            if stem not in self._alphas and program.reads_header:
                scale = ours.scale
            if self._difference(path, stem, scale) > SAME:
                ratios.append(scale / ours.scale)
        if not ratios:
            return opening
        same = all(math.isclose(ratio, ratios[0], rel_tol=1e-3) for ratio in ratios)
        much = f"at {ratios[0]:.3g} times its strength" if same else "at another strength in each layer"
        where = "" if len(ratios) == len(self._ours) else f" in {len(ratios)} of {len(self._ours)} layers"
        way_out = "choose kohya's layout" if not next(iter(opening.taken.values())).startswith("lora_") else ""
        return dataclasses.replace(opening, state="wrong", why=f"{much}{where}", way_out=way_out)

    def _difference(self, path: str, stem: str, scale: float) -> float:
        key = (path, stem, scale)
        if key not in self._differences:
            theirs = (scale, self._part(stem, UP), self._part(stem, DOWN))
            ours = self._ours[path]
            self._differences[key] = difference(theirs, (ours.scale, ours.up, ours.down))
        return self._differences[key]

    def _part(self, stem: str, names: tuple[str, ...]) -> Tensor:
        return next(self._tensors[f"{stem}.{name}"] for name in names if f"{stem}.{name}" in self._tensors)


def difference(one: tuple[float, Tensor, Tensor], other: tuple[float, Tensor, Tensor]) -> float:
    """How far two updates ``scale * up @ down`` are apart, relative to the second (Frobenius norms).

    Through products of rank x rank matrices, so that no layer is ever written out.
    """
    (up, down), (other_up, other_down) = (
        (scale * up.double().flatten(1), down.double().flatten(1)) for scale, up, down in (one, other)
    )
    length = _norm(other_up, other_down)
    apart = _norm(torch.cat([up, -other_up], dim=1), torch.cat([down, other_down]))
    return apart / length if length > 0 else apart


def _norm(up: Tensor, down: Tensor) -> float:
    return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum())))


def _is_alpha(key: str) -> bool:
    return key.endswith(".alpha")


def _is_ours(key: str) -> bool:
    """Whether a tensor is named as in one of the two layouts that Patina writes."""
    stem, part = split(key)
    return stem == "bundle_emb" or (part in PARTS and stem.startswith(_STARTS))


_STARTS = ("lora_unet_", "lora_te", *(f"{root}." for root in DIFFUSERS_ROOTS.values()))
