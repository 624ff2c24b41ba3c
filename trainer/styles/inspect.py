"""What is in an adapter file, told without a base model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.adapters.methods import method_of
from trainer.adapters.targets import describe
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import title_of
from trainer.styles.consumers import told
from trainer.styles.consumers.proof import prove
from trainer.styles.file import StyleFile, likely_family, readers_of
from trainer.styles.metadata import auto_v2, auto_v3, family_of, sshs_model_hash
from trainer.styles.read import read_style

Value = TypeVar("Value", int, float, str)

TRAINING_KEYS = (
    "ss_num_train_images",
    "ss_steps",
    "ss_learning_rate",
    "ss_resolution",
    "ss_total_batch_size",
    "ss_seed",
    "ss_clip_skip",
    "ss_training_started_at",
    "ss_training_finished_at",
    "ss_network_args",
    "modelspec.date",
    "patina.version",
)


@dataclass(frozen=True)
class LayerFacts:
    """One layer.

    Attributes:
        alpha, scale: None where the file does not tell.
        norm: the Frobenius norm of its update at strength 1, ``scale * B A`` of LoRA; not a number where it depends on
            what the file does not tell.
    """

    path: str
    rank: int
    alpha: float | None
    scale: float | None
    down: tuple[int, ...]
    up: tuple[int, ...]
    norm: float


@dataclass(frozen=True)
class Inspection:
    """What is in an adapter file.

    Attributes:
        layout: how its tensors are named.
        bytes: size of the file.
        parameters: number of values in its layers.
        dtypes: types of the matrices.
        ranks, alphas, scales: the different values over its layers; a scale is alpha / rank.
        alpha_known: whether alpha is in the file, or was said; the style cannot be used until it is.
        methods: what its layers are made with, such as ``lora``.
        targets: a named target or what the UNet's layers are, without regard to which blocks.
        models: number of layers by root.
        family: the base it needs, for people: from the metadata, or ``family_guessed`` from its shapes, or None.
        base_version, base_name, base_sha256: what the metadata says of its base.
        trigger, title, usage_hint: for its use.
        hash, stored_hash: SHA-256 of the weights' bytes as it is, and as the file says; ``hash_matches`` compares them.
        auto_v2, auto_v3: what model sites call the file and its weights by.
        finite: whether all values are finite numbers.
        training: facts about its training, by metadata key.
        opens: in which programs it opens, and then, a sentence each, who loses what of it; () where that is not known.
        notes: what else a person should know.
        layers: every layer.
    """

    path: str
    layout: str
    bytes: int
    parameters: int
    dtypes: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    scales: tuple[float, ...]
    alpha_known: bool
    methods: tuple[str, ...]
    targets: str
    models: dict[str, int]
    family: str | None
    family_guessed: bool
    base_version: str | None
    base_name: str | None
    base_sha256: str | None
    trigger: str | None
    title: str | None
    usage_hint: str | None
    hash: str
    stored_hash: str | None
    hash_matches: bool | None
    auto_v2: str
    auto_v3: str
    finite: bool
    training: dict[str, str]
    opens: tuple[str, ...]
    notes: tuple[str, ...]
    layers: tuple[LayerFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a norm that is no finite number is None."""
        plain = asdict(self)
        for layer in plain["layers"]:
            if not torch.isfinite(torch.tensor(layer["norm"])):
                layer["norm"] = None
        return plain


def inspect_file(path: Path | str) -> Inspection:
    """Read an adapter file and tell what is in it, whoever made it.

    Raises:
        AdapterFileError: it is no adapter that Patina can read. Values that are not finite are reported, not refused.
    """
    path = Path(path)
    file = read_style(path, check_values=False)
    finite = all(_finite(layer) for layer in file.layers.values())
    facts = tuple(_facts(where, layer) for where, layer in file.layers.items())
    recorded = family_of(file.metadata)
    found = prove(file) if finite else ()
    guessed = likely_family(file.layers)
    actual, stored = sshs_model_hash(path), file.metadata.get("sshs_model_hash")
    return Inspection(
        path=str(path),
        layout=file.layout,
        bytes=path.stat().st_size,
        parameters=sum(layer.size for layer in file.layers.values()),
        dtypes=_different(str(layer.down.dtype).removeprefix("torch.") for layer in file.layers.values()),
        ranks=_different(layer.rank for layer in facts),
        alphas=_different(layer.alpha for layer in facts if layer.alpha is not None),
        scales=_different(layer.scale for layer in facts if layer.scale is not None),
        alpha_known=file.alpha_known,
        methods=_different(method_of(layer).name for layer in file.layers.values()),
        targets=describe(layer.path.removeprefix("unet.") for layer in facts if layer.path.startswith("unet.")),
        models=dict(Counter(layer.path.split(".", 1)[0] for layer in facts)),
        family=title_of(recorded) if recorded else guessed.title if guessed else None,
        family_guessed=recorded is None,
        base_version=_either(file, "ss_base_model_version", "modelspec.architecture"),
        base_name=_either(file, "ss_sd_model_name"),
        base_sha256=_either(file, "patina.base_sha256"),
        trigger=_either(file, "modelspec.trigger_phrase"),
        title=_either(file, "modelspec.title", "ss_output_name"),
        usage_hint=_either(file, "modelspec.usage_hint"),
        hash=actual,
        stored_hash=stored,
        hash_matches=None if stored is None else stored == actual,
        auto_v2=auto_v2(path),
        auto_v3=auto_v3(actual),
        finite=finite,
        training={key: file.metadata[key] for key in TRAINING_KEYS if key in file.metadata},
        opens=told(found),
        notes=file.notes + readers_of(file.layers),
        layers=facts,
    )


def _facts(where: str, layer: LayerWeights) -> LayerFacts:
    norm = method_of(layer).norm(layer)
    known = not math.isnan(layer.alpha)
    alpha, scale = (layer.alpha, layer.scale) if known else (None, None)
    return LayerFacts(where, layer.rank, alpha, scale, tuple(layer.down.shape), tuple(layer.up.shape), norm)


def _finite(layer: LayerWeights) -> bool:
    return all(bool(torch.isfinite(tensor.float()).all()) for tensor in (layer.down, layer.up, *layer.extra.values()))


def _different(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(sorted(set(values)))


def _either(file: StyleFile, *keys: str) -> str | None:
    return next((file.metadata[key] for key in keys if file.metadata.get(key)), None)
