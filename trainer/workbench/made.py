"""What a tool of the workbench made: layers, and metadata that says how and from what."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.adapters.methods import as_loras, method_of
from trainer.adapters.weights import LayerWeights
from trainer.config import FileLayout
from trainer.errors import AdapterFileError
from trainer.safetensors_file import HASH_KEY, LEGACY_HASH_KEY, SPEC_HASH_KEY
from trainer.styles import peft_config
from trainer.styles.file import StyleFile
from trainer.styles.metadata import TITLE_KEYS, family_of, sshs_model_hash
from trainer.version import __version__

if TYPE_CHECKING:
    import torch

KEY = "patina.made"
"""Metadata key: how a file was made, as JSON: ``how`` (the tool), ``of`` (what from), and the tool's settings."""

_LONGEST_HISTORY = 20_000
# They tell one file's bytes, or are written anew with them.
_OF_THE_BYTES = (HASH_KEY, LEGACY_HASH_KEY, SPEC_HASH_KEY, peft_config.KEY)


@dataclass(frozen=True)
class Made:
    """A style that a tool made.

    Attributes:
        notes: sentences for people.
        lost: share of the energy that was left out, 0 to 1; 0 where nothing was.
    """

    layers: dict[str, LayerWeights]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    lost: float = 0.0

    def write(self, path: Path, *, layout: FileLayout = "kohya", dtype: torch.dtype | None = None) -> None:
        """Write it as a style file; errors as in `trainer.styles.write.write_style`.

        Args:
            dtype: None is fp32.
        """
        import torch

        from trainer.styles.write import write_style

        write_style(path, self.layers, layout=layout, metadata=self.metadata, dtype=dtype or torch.float32)


def name_of(file: StyleFile) -> str:
    """A style's name: its title, or its file's."""
    return next((file.metadata[key] for key in TITLE_KEYS if file.metadata.get(key)), file.path.stem)


def source(file: StyleFile, **facts: Any) -> dict[str, Any]:
    """A style as an entry of ``of``: its name, the hash of its weights, how it was made itself, and more facts."""
    entry = {"name": name_of(file), "weights": sshs_model_hash(file.path), **facts}
    history = file.metadata.get(KEY, "")
    if history and len(history) <= _LONGEST_HISTORY:
        # Somebody else wrote it; a style without its history is still a style.
        with contextlib.suppress(ValueError, RecursionError):
            entry["made"] = json.loads(history)
    return entry


def described(
    how: str,
    files: Sequence[StyleFile],
    layers: Mapping[str, LayerWeights],
    *,
    of: Sequence[Mapping[str, Any]],
    name: str,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Metadata of what was made: what all files agree on, the new name and ranks, and how it was made from what.

    Where the files' triggers differ, the usage hint names them all.
    """
    first = files[0].metadata
    agreed = {
        key: value
        for key, value in first.items()
        if key not in _OF_THE_BYTES and all(file.metadata.get(key) == value for file in files[1:])
    }
    changed = dict.fromkeys(TITLE_KEYS, name) | made(how, of, layers, settings)
    triggers = {name_of(file): file.metadata.get("modelspec.trigger_phrase", "") for file in files}
    if len(set(triggers.values())) > 1:
        told = "; ".join(f"{trigger} ({name})" for name, trigger in triggers.items() if trigger)
        changed["modelspec.usage_hint"] = f"Triggers: {told}."
    return agreed | changed


def made(
    how: str, of: Sequence[Mapping[str, Any]], layers: Mapping[str, LayerWeights], settings: Mapping[str, Any] | None
) -> dict[str, str]:
    """The metadata that every tool writes: rank and alpha, and how it was made from what."""
    ranks = {layer.rank for layer in layers.values()}
    alphas = {layer.alpha for layer in layers.values()}
    return {
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "ss_network_module": "networks.lora",
        "patina.version": __version__,
        KEY: json.dumps({"how": how, "of": list(of), **(settings or {})}, ensure_ascii=False, sort_keys=True),
    }


def plain(file: StyleFile, what: str) -> dict[str, LayerWeights]:
    """A style's layers, which are all low-rank updates that can be calculated with.

    Args:
        what: is to be done, for the message, such as "merged".

    Raises:
        AdapterFileError: a layer's update depends on the base's weights, too, or changes a bias.
    """
    layers = as_loras(file.layers)
    for path, layer in layers.items():
        if "bias" in layer.extra:
            raise AdapterFileError(f"{file.path} cannot be {what}: it also changes the bias of {path}.")
        if not method_of(layer).changes_weights:
            raise AdapterFileError(
                f"{file.path} cannot be {what}: {path} is made with {layer.method}, which is no change of the base's "
                "weights, so no LoRA can be made of it."
            )
        if layer.method != "lora":
            raise AdapterFileError(
                f"{file.path} cannot be {what} as it is: {path} is made with {layer.method}, whose change depends on "
                "the base. Make a plain LoRA of it first: patina extract --style FILE --base BASE."
            )
    return layers


def same_family(files: Sequence[StyleFile]) -> None:
    """Refuse styles for different families of bases, as far as their files say.

    Raises:
        AdapterFileError: two of them name different ones.
    """
    from trainer.bases.families import title_of

    known = {family: file for file in files if (family := family_of(file.metadata)) is not None}
    if len(known) > 1:
        (one, first), (other, second), *_ = known.items()
        raise AdapterFileError(
            f"{first.path} is made for {title_of(one)} and {second.path} for {title_of(other)}; choose styles of one "
            "family of bases."
        )
