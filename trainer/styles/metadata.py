"""What a style file says about itself: kohya's ``ss_*`` keys, the ModelSpec standard, and ours.

All values are strings. Sources: kohya's sd-scripts (``train_network.py``), the ModelSpec 1.0.1 standard.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.bases.families import key_of, title_of
from trainer.errors import AdapterFileError
from trainer.safetensors_file import copy_with_metadata, hash_of_tensors, read_header

if TYPE_CHECKING:
    from PIL import Image

LARGEST_RANK = 99_999
TITLE_KEYS = ("ss_output_name", "modelspec.title")
ORIGINAL_CODE = "https://github.com/Stability-AI/generative-models"
"""``modelspec.implementation`` of files that name layers as that code does."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a style came about. What is None or empty is left out of the file.

    Attributes:
        name: of the style and of its file.
        family: key of the base's family; ``version_name`` and ``architecture`` are its names in files.
        v2: whether kohya's tools take the base for Stable Diffusion 2.
        base_name: the base's hub id or its file's name, never a path: the whole world may read it.
        base_sha256: the identity of its UNet's weights.
        base_hashes: of the base's own file, old and new, as A1111 looks models up by them; see `checkpoint_hashes`.
        original_names: whether the layers have the names of Stability's original code.
        prediction: ``epsilon`` or ``v_prediction``.
        zero_terminal_snr: whether the base's noise schedule ends in pure noise.
        rank: or None when layers differ.
        alpha: in the convention ``alpha / rank`` of files.
        network: further settings of the adapter, such as method, targets and dropout.
        resolution: (width, height) in pixels.
        clip_skip: how many of the last text-encoder layers were left out.
        started_at, finished_at: seconds since 1970.
        tag_frequency, bucket_info: see `tag_frequency` and `bucket_info`.
        further: more of kohya's keys, without ``ss_``.
        thumbnail: a data URL, see `thumbnail_url`.
        recommended_strength: at which it was judged best.
        config: the run's settings.
    """

    name: str
    family: str
    version_name: str
    architecture: str
    version: str
    base_name: str = ""
    base_sha256: str = ""
    base_hashes: tuple[str, str] = ("", "")
    v2: bool = False
    original_names: bool = False
    prediction: str = "epsilon"
    zero_terminal_snr: bool = False
    rank: int | None = None
    alpha: float | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    resolution: tuple[int, int] | None = None
    images: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    clip_skip: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    bucket_info: Mapping[str, Any] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)
    trigger: str = ""
    usage_hint: str = ""
    recommended_strength: float | None = None
    author: str = ""
    license: str = ""
    description: str = ""
    thumbnail: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def build(facts: Provenance) -> dict[str, str]:
    """The header's strings. ``sshs_model_hash`` is not among them: the writer adds it."""
    made = facts.finished_at if facts.finished_at is not None else facts.started_at
    values: dict[str, Any] = {
        "ss_output_name": facts.name,
        "ss_base_model_version": facts.version_name,
        "ss_v2": facts.v2,
        "ss_network_module": "networks.lora",
        "ss_network_dim": "Dynamic" if facts.rank is None else facts.rank,
        "ss_network_alpha": "Dynamic" if facts.alpha is None else facts.alpha,
        "ss_network_args": _json(facts.network),
        "ss_sd_model_name": facts.base_name,
        "ss_sd_model_hash": facts.base_hashes[0],
        "ss_new_sd_model_hash": facts.base_hashes[1],
        "ss_resolution": None if facts.resolution is None else f"({facts.resolution[0]}, {facts.resolution[1]})",
        "ss_num_train_images": facts.images,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.steps,
        "ss_total_batch_size": facts.batch_size,
        "ss_learning_rate": facts.learning_rate,
        "ss_unet_lr": facts.learning_rate,
        "ss_seed": facts.seed,
        "ss_v_parameterization": facts.prediction == "v_prediction",
        "ss_zero_terminal_snr": facts.zero_terminal_snr,
        # There and in A1111, 1 means the last layer, which is none left out.
        "ss_clip_skip": facts.clip_skip + 1 if facts.clip_skip else "None",
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at,
        "ss_tag_frequency": _json(facts.tag_frequency),
        "ss_dataset_dirs": _json({place: {"n_repeats": 1, "img_count": facts.images} for place in facts.tag_frequency}),
        "ss_bucket_info": _json(facts.bucket_info),
        **{f"ss_{key}": value for key, value in facts.further.items()},
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{facts.architecture}/lora",
        "modelspec.implementation": ORIGINAL_CODE if facts.original_names else "diffusers",
        "modelspec.implementation_version": f"Patina/{facts.version}",
        "modelspec.title": facts.name,
        "modelspec.description": facts.description,
        "modelspec.author": facts.author,
        "modelspec.license": facts.license,
        "modelspec.date": None if made is None else datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.resolution": None if facts.resolution is None else f"{facts.resolution[0]}x{facts.resolution[1]}",
        "modelspec.prediction_type": "v" if facts.prediction == "v_prediction" else facts.prediction,
        "modelspec.encoder_layer": facts.clip_skip + 1 if facts.clip_skip else None,
        "modelspec.trigger_phrase": facts.trigger,
        "modelspec.usage_hint": facts.usage_hint,
        "modelspec.thumbnail": facts.thumbnail,
        "patina.version": facts.version,
        "patina.family": facts.family,
        "patina.recommended_strength": facts.recommended_strength,
        "patina.base_sha256": facts.base_sha256,
        "patina.config": _json(facts.config),
    }
    return {key: str(value) for key, value in values.items() if value is not None and value != ""}


def tag_frequency(captions: Iterable[str], folder: str) -> dict[str, dict[str, int]]:
    """How often each comma-separated part of the captions occurs, under the folder's name, as kohya counts."""
    counts = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    return {folder: dict(counts.most_common())}


def bucket_info(buckets: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """How many images each bucket (width, height in pixels) holds, in kohya's form; one item for each image."""
    counts = sorted(Counter(buckets).items())
    return {"buckets": {str(i): {"resolution": [w, h], "count": n} for i, ((w, h), n) in enumerate(counts)}}


def thumbnail_url(picture: Image.Image, side: int = 256) -> str:
    """A picture as a small JPEG in a data URL; its longer side is at most ``side`` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def checkpoint_hashes(path: Path) -> tuple[str, str]:
    """A1111's two hashes of a checkpoint, as ``ss_sd_model_hash`` and ``ss_new_sd_model_hash`` hold them.

    The old one is of 64 KiB at the file's second MiB, 8 digits; the new one is SHA-256 of all of it, and its first 10
    digits are what model sites call AutoV2.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(1 << 20)
        old = hashlib.sha256(file.read(1 << 16)).hexdigest()[:8]
    return old, whole


def auto_v2(path: Path) -> str:
    """What model sites call a file by: the first 10 digits of its SHA-256, in capitals."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10].upper()


def auto_v3(weights_hash: str) -> str:
    """What model sites call a style's weights by, whatever its metadata say: from `sshs_model_hash`, in capitals."""
    return weights_hash[:12].upper()


def sshs_model_hash(path: Path) -> str:
    """SHA-256 of a style file's weights, see `trainer.safetensors_file.hash_of_tensors`.

    Raises:
        AdapterFileError: it is no safetensors file.
    """
    return hash_of_tensors(read_header(path, AdapterFileError))


def copy_titled(source: Path, target: Path, title: str) -> None:
    """Write ``source`` as ``target`` with ``title`` in its metadata; its weights and their hash stay the same.

    Raises:
        AdapterFileError: the source is missing, is no safetensors file, or the copy cannot be written.
    """
    header = read_header(source, AdapterFileError)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_with_metadata(header, target, dict.fromkeys(TITLE_KEYS, title))
    except OSError as error:
        raise AdapterFileError(f"{source.name} cannot be copied ({error.strerror or error}).") from None


def family_of(metadata: Mapping[str, str]) -> str | None:
    """Key of the family of bases that a file names, another tool's name as it stands, or None when it names none."""
    if family := metadata.get("patina.family"):
        return family
    for key in ("ss_base_model_version", "modelspec.architecture"):
        if name := metadata.get(key):
            return key_of(name) or name
    return None


def rank_of(metadata: Mapping[str, str]) -> int | None:
    """The rank that a file names, or None where it is no number that a rank could be."""
    said = metadata.get("ss_network_dim", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) <= len(str(LARGEST_RANK)) else None


def strength_of(metadata: Mapping[str, str]) -> float | None:
    """The strength that a file was judged best at, or None where it names none that could be."""
    try:
        strength = float(metadata.get("patina.recommended_strength", ""))
    except ValueError:
        return None
    return strength if 0 < strength <= 4 else None


def check_base(metadata: Mapping[str, str], *, base_sha256: str, family: str) -> list[str]:
    """Whether a style was made for the base at hand, by what its file says.

    Returns:
        Notes for people: none when it is the very base, or when the file does not say.

    Raises:
        AdapterFileError: it was made for another family of bases.
    """
    recorded = family_of(metadata)
    name = metadata.get("ss_output_name") or "This style"
    if recorded is not None and recorded != family:
        raise AdapterFileError(
            f"{name} was made for {title_of(recorded)}, but the base is "
            f"{title_of(family)}; choose a base of its family."
        )
    made_on = metadata.get("patina.base_sha256")
    if made_on and made_on != base_sha256:
        base = metadata.get("ss_sd_model_name")
        return [f"{name} was trained on another base{f' ({base})' if base else ''}; it may look different here."]
    return []


def clip_skip_of(metadata: Mapping[str, str]) -> int | None:
    """How many of the last text-encoder layers a style was trained without; None where its file does not say.

    Other tools count from 1, which leaves none out, and write "None" for the same.
    """
    said = metadata.get("ss_clip_skip", "")
    if said == "None":
        return 0
    return max(0, int(said) - 1) if said.isascii() and said.isdigit() and len(said) < 3 else None


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
