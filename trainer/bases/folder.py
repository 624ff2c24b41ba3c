"""Reading a folder in diffusers' layout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from trainer.bases.detect import Detected, detect_folder, read_json
from trainer.bases.families import BUNDLED, Family
from trainer.bases.parts import Parts, first_line, stored_dtype_of
from trainer.bases.sources import BUNDLED_FOLDER
from trainer.bases.weight_files import Weights, choose_weights
from trainer.errors import BaseError

MANIFEST = "manifest.json"


def read_bundled() -> Parts:
    """The base that ships with Patina, after a look at whether its files are as they were shipped.

    Raises:
        BaseError: a file is missing or was changed.
    """
    check_manifest(BUNDLED_FOLDER)
    detected = detect_folder(BUNDLED_FOLDER)
    return read_folder(BUNDLED_FOLDER, Detected(BUNDLED, detected.prediction, detected.zero_snr))


def read_folder(folder: Path, detected: Detected | None = None, *, variant: str | None = None) -> Parts:
    """Read a diffusers folder; of several variants of its weights the smallest, unless one is named.

    Raises:
        BaseError: it is incomplete, has only pickled weights, or is no model that can be trained on.
    """
    detected = detected or detect_folder(folder)
    family = detected.family
    opened = family.opened_class()
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*")) if path.is_file()]

    def read(cls: Any, component: str) -> nn.Module:
        return _read_module(cls, folder, choose_weights(names, component, variant, str(folder)), component)

    index = read_json(folder / "model_index.json")
    return Parts(
        detected=detected,
        denoiser=read(opened.denoiser_class(), family.root),
        vae=read(opened.vae_class(), "vae"),
        text_encoders={spec.root: read(opened.text_encoder_class(spec), spec.folder) for spec in family.text_encoders},
        tokenizers=read_tokenizers(folder, family),
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        zero_empty_negative=zero_empty_negative(index, family),
    )


def zero_empty_negative(model_index: dict[str, Any], family: Family) -> bool:
    """``force_zeros_for_empty_prompt`` as diffusers' StableDiffusionXLPipeline reads it: true unless it says no."""
    return family.pooled and bool(model_index.get("force_zeros_for_empty_prompt", True))


def read_tokenizers(folder: Path, family: Family) -> dict[str, Any]:
    """The family's tokenizers from a model's folder.

    Raises:
        BaseError: one is missing or broken.
    """
    from transformers import CLIPTokenizer

    tokenizers = {}
    for spec in family.text_encoders:
        place = folder / spec.tokenizer_folder
        if not any((place / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise BaseError(f"{place} has no tokenizer.json or vocab.json, so {folder} is no complete diffusers model.")
        try:
            tokenizers[spec.root] = CLIPTokenizer.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BaseError(f"{place} cannot be read as a CLIP tokenizer: {first_line(error)}") from None
    return tokenizers


def check_manifest(folder: Path) -> None:
    """Compare every file with the SHA-256 in the folder's manifest.

    Raises:
        BaseError: names the first file that is missing or differs.
    """
    listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
    for name, expected in listed.items():
        path = folder / name
        try:
            actual = file_sha256(path)
        except OSError:
            raise BaseError(f"{path} of the bundled base is missing; install Patina again.") from None
        if actual != expected:
            raise BaseError(f"{path} of the bundled base was changed or damaged; install Patina again.")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_module(cls: Any, folder: Path, weights: Weights, component: str) -> nn.Module:
    dtype = stored_dtype_of(folder / weights.files[0])
    # A damaged file fails here with its name; the libraries below would speak of tensors.
    for name in weights.files[1:]:
        stored_dtype_of(folder / name)
    dtype_argument = "torch_dtype" if cls.__module__.startswith("diffusers.") else "dtype"
    try:
        model, report = cls.from_pretrained(
            folder / component,
            variant=weights.variant,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
            **{dtype_argument: dtype},
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BaseError(f"{folder / component} cannot be read as {cls.__name__}: {first_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise BaseError(
            f"{folder / component} lacks {len(missing)} tensors, such as {missing[0]}; get the model again."
        )
    module: nn.Module = model
    return module
