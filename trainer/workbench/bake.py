"""Styles inside a base: a plain model that costs nothing more to draw with, and that every tool opens.

    W = round(W0 + sum_i s_i U_i)

computed in fp32 and rounded once to the type of the base's file. The files are rewritten one weight at a time, so that
a full-size base needs no more memory than its largest layer. Each changed file says what is inside, and a style that
is inside already is refused.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.atomic import write_file
from trainer.bases.detect import read_json
from trainer.bases.families.family import names_a_class
from trainer.bases.weight_files import choose_weights
from trainer.errors import AdapterFileError, BaseError, ConfigError
from trainer.safetensors_file import HASH_KEY, LEGACY_HASH_KEY, SPEC_HASH_KEY, copy_with_tensors
from trainer.styles.metadata import check_base
from trainer.workbench.base_files import BaseFiles
from trainer.workbench.made import source
from trainer.workbench.merge import Ingredient
from trainer.workbench.updates import biases_left_out, placed, update_of

KEY = "patina.baked"
"""Metadata key of a base's weight file: the styles inside, as a JSON list of entries as in ``patina.made``."""

_ROUNDABLE = ("F64", "F32", "F16", "BF16")
_STALE = (HASH_KEY, LEGACY_HASH_KEY, SPEC_HASH_KEY)
_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx", ".h5", ".gguf")
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
# The bundled base is told by its manifest, which would not hold any more.
_LEFT_BEHIND = ("manifest.json",)
Told = Callable[[int, int], None]


@dataclass
class Baked:
    """What baking did.

    Attributes:
        path: the new base.
        layers: how many weights changed.
        lost: share of the update that rounding to the base's type took, ``||rounded - exact|| / ||update||``.
        notes: sentences for people.
    """

    path: Path
    layers: int
    lost: float
    notes: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """What baking did, for people."""
        took = f"; rounding took {self.lost:.1%} of the update" if self.lost > 1e-3 else ""
        return f"{self.layers} weights changed{took}. {self.path.name} is a plain model now: open it without the style."


@dataclass
class _Sizes:
    update: float = 0.0
    lost: float = 0.0


def bake(ingredients: Sequence[Ingredient], base: BaseFiles, target: Path, *, told: Told = lambda n, of: None) -> Baked:
    """Write a base with styles inside: a folder beside a folder, a single file beside a single file.

    Args:
        target: the new folder, or the new ``.safetensors`` file; it must not exist.
        told: how many weights of how many are written.

    Raises:
        ConfigError: the target exists or is of the other kind, or a strength is 0 or no finite number.
        AdapterFileError: a style does not fit the base, or is inside it already.
        BaseError: the base's weights are quantised.
    """
    _check_target(base, target)
    for each in ingredients:
        if not math.isfinite(each.strength) or not each.strength:
            raise ConfigError(
                f"The strength of {each.file.path} is {each.strength:g}, but should be a number except 0."
            )
        # By family alone: a style for another base of the same family may well be wanted.
        check_base(
            each.file.metadata, base_sha256=each.file.metadata.get("patina.base_sha256", ""), family=base.family.key
        )
    inside, fresh = _inside(base), [source(each.file, strength=each.strength) for each in ingredients]
    for number, entry in enumerate(fresh):
        if any(entry["weights"] == old.get("weights") for old in [*inside, *fresh[:number]]):
            raise AdapterFileError(
                f"{base.source} holds {entry['name']} already, and twice would be too much: bake into the base without "
                "it, or choose another style."
            )
    shares = _shares(ingredients, base)
    sizes, count, total = _Sizes(), 0, sum(len(by_third) for keys in shares.values() for by_third in keys.values())
    listed = json.dumps([*inside, *fresh], ensure_ascii=False, sort_keys=True)

    def changed(parts: dict[int | None, list[tuple[LayerWeights, float]]], old: Tensor) -> Tensor:
        nonlocal count
        new = old.clone()
        for third, adapters in parts.items():
            rows = new if third is None else new.chunk(3)[third]
            update = sum(update_of(layer, rows) * strength for layer, strength in adapters)
            assert isinstance(update, Tensor)
            exact = rows.float() + update
            rounded = exact.to(rows.dtype)
            sizes.update += float(update.square().sum())
            sizes.lost += float((rounded.float() - exact).square().sum())
            rows.copy_(rounded)
            count += 1
            told(count, total)
        return new

    def write(path: Path, to: Path) -> None:
        header = base.headers[path]
        metadata = {key: value for key, value in header.metadata.items() if key not in _STALE}
        if title := metadata.get("modelspec.title"):
            metadata["modelspec.title"] = " + ".join([title, *(entry["name"] for entry in fresh)])
        changes = {key: partial(changed, parts) for key, parts in shares.get(path, {}).items()}
        copy_with_tensors(header, to, {"format": "pt", **metadata, KEY: listed}, changes, raises=BaseError)

    notes = _write_folder(base, target, write) if base.is_folder else []
    notes += [note for each in ingredients for note in biases_left_out(each.file)]
    if not base.is_folder:
        write(base.path, target)
    lost = (sizes.lost / sizes.update) ** 0.5 if sizes.update else 0.0
    return Baked(target, count, lost, notes)


def _check_target(base: BaseFiles, target: Path) -> None:
    if target.exists():
        raise ConfigError(f"--out {target} exists already: choose another name, so that nothing is overwritten.")
    if not target.parent.is_dir():
        raise ConfigError(f"--out {target} cannot be written: there is no folder {target.parent}.")
    single = target.suffix.lower() == ".safetensors"
    if single == base.is_folder:
        wanted = "a folder" if base.is_folder else "a .safetensors file"
        raise ConfigError(f"--out {target} should be {wanted}, as the base {base.source} is.")


def _inside(base: BaseFiles) -> list[dict[str, Any]]:
    """The styles that a base says are inside."""
    for header in base.headers.values():
        if text := header.metadata.get(KEY):
            try:
                found = json.loads(text)
                return [dict(entry) for entry in found]
            except (ValueError, TypeError, RecursionError):
                raise BaseError(f"{header.path} says what is baked into it ({KEY}), but that cannot be read.") from None
    return []


def _shares(
    ingredients: Sequence[Ingredient], base: BaseFiles
) -> dict[Path, dict[str, dict[int | None, list[tuple[LayerWeights, float]]]]]:
    """By file, tensor and part of its rows: the layers that change it, with their strengths."""
    shares: dict[Path, dict[str, dict[int | None, list[tuple[LayerWeights, float]]]]] = {}
    for each in ingredients:
        for path, layer, _, place in placed(each.file, base):
            if place.entry.dtype not in _ROUNDABLE:
                raise BaseError(
                    f"{base.source} keeps {path} as {place.entry.dtype}, which is too coarse for a style to be baked "
                    "into; use a version of the base in 16 or 32 bits."
                )
            parts = shares.setdefault(place.header.path, {}).setdefault(place.key, {})
            parts.setdefault(place.third, []).append((layer, each.strength))
    return shares


def _write_folder(base: BaseFiles, target: Path, write: Callable[[Path, Path], None]) -> list[str]:
    """The base's folder with its changed files under their plain names, and everything else as it is."""
    scratch = target.with_name(f".{target.name}.half")
    shutil.rmtree(scratch, ignore_errors=True)
    notes: list[str] = []
    try:
        names = [path.relative_to(base.path).as_posix() for path in sorted(base.path.rglob("*")) if path.is_file()]
        for name in names:
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if not (hidden or name in _LEFT_BEHIND or name.endswith(_WEIGHTS) or _INDEX.search(name)):
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(base.path / name, scratch / name)
        index = read_json(base.path / "model_index.json")
        for component in [name for name, entry in index.items() if names_a_class(entry)]:
            if not any(name.startswith(f"{component}/") and name.endswith(_WEIGHTS) for name in names):
                continue
            try:
                chosen = base.weights.get(component) or choose_weights(names, component, None, base.source)
            except BaseError:
                # Only as a pickle: pipelines open without it when it is said to be none.
                index[component] = [None, None]
                notes.append(f"{component} is left out, because it is there only as a pickle.")
                continue
            ending = f".{chosen.variant}" if chosen.variant else ""
            for name in chosen.files:
                to = scratch / name.replace(ending, "", 1) if ending else scratch / name
                to.parent.mkdir(parents=True, exist_ok=True)
                if base.path / name in base.headers:
                    write(base.path / name, to)
                else:
                    shutil.copyfile(base.path / name, to)
            if chosen.index is not None:
                table = read_json(base.path / chosen.index)
                table["weight_map"] = {key: file.replace(ending, "", 1) for key, file in table["weight_map"].items()}
                stem = chosen.files[0].split("-0")[0].replace(ending, "", 1)
                write_file(scratch / f"{stem}.safetensors.index.json", json.dumps(table, indent=1).encode())
        write_file(scratch / "model_index.json", json.dumps(index, indent=2).encode())
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return notes
