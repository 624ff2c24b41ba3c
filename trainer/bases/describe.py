"""What a base is, without loading it: for the studio's picker and for the command line (no torch, no diffusers)."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.bases.detect import DENOISER_PREFIX, VAE_PREFIX, Detected, detect_file, detect_folder, read_json
from trainer.bases.families import BUNDLED, Family
from trainer.bases.families.family import Prediction
from trainer.bases.hub import cached_copy, look_up
from trainer.bases.sources import Source, SourceKind, parse_source
from trainer.bases.weight_files import choose_weights, components_of
from trainer.config import RunConfig
from trainer.config.schedulers import Scheduler, able
from trainer.errors import BaseError
from trainer.safetensors_file import read_header

_PACKAGE = Path(__file__).parent
KNOWN_SECONDS = 60.0
PROBLEM_KNOWN_SECONDS = 5.0
SUBJECTS = "subjects.json"
"""Beside ``model_index.json``: a list of prompts that the base draws well. Nobody needs to have one."""


@dataclass(frozen=True)
class BaseInfo:
    """What can be said of a base before it is loaded.

    Attributes:
        source: as it was typed.
        kind: None when the text names nothing that could be opened.
        family: key of its row in `trainer.bases.families.FAMILIES`, None with a ``problem``.
        title: the family's name for people.
        prediction: the stated or, when ``prediction_sure`` is false, the assumed one; loading then probes it.
        zero_snr: whether its noise schedule ends in pure noise, which some schedulers cannot draw on.
        resolution: side in pixels that it was made for.
        size_bytes: of the weight files that are read.
        download_bytes: what has to be downloaded first; 0 when it is on this machine.
        parameters: number of weights by part: ``denoiser``, ``vae``, ``text``.
        subjects: prompts that it draws well, where a small base says so; empty for one that knows the world.
        notes: sentences worth knowing.
        problem: why it cannot be used, as a sentence with the way out; None when it can.
    """

    source: str
    kind: SourceKind | None = None
    family: str | None = None
    title: str = ""
    prediction: Prediction = "epsilon"
    prediction_sure: bool = True
    zero_snr: bool = False
    resolution: int = 0
    size_bytes: int = 0
    download_bytes: int = 0
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def schedulers(self) -> tuple[Scheduler, ...]:
        """Those that can draw with it."""
        return able(zero_terminal_snr=self.zero_snr)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def describe(
    source: str, *, revision: str | None = None, variant: str | None = None, offline: bool = False
) -> BaseInfo:
    """Look at a base: JSON files and headers only, a few kilobytes.

    A hub id that is not on this machine is looked up on the network unless ``offline``. Never raises for a base that
    cannot be used: ``problem`` says why.
    """
    kind: SourceKind | None = None
    try:
        parsed = parse_source(source)
        kind = parsed.kind
        return _describe(source, parsed, revision, variant, offline)
    except BaseError as error:
        return BaseInfo(source=source, kind=kind, problem=str(error))


class Bases:
    """What bases are, by source, revision and variant, remembered for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str | None, str | None], tuple[float, BaseInfo]] = {}

    def check(self, source: str, revision: str | None = None, variant: str | None = None) -> BaseInfo:
        """What a base is, or what is wrong with it, without loading it; may ask the network for a hub id.

        Asked again after a minute, or after seconds when something was wrong with it.
        """
        key = (source, revision, variant)
        with self._lock:
            known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        info = describe(source, revision=revision, variant=variant)
        lasts = KNOWN_SECONDS if info.problem is None else PROBLEM_KNOWN_SECONDS
        with self._lock:
            self._known[key] = (time.monotonic() + lasts, info)
        return info

    def of(self, config: RunConfig) -> BaseInfo:
        """The base of a run."""
        return self.check(config.base.source, config.base.revision, config.base.variant)


def _describe(source: str, parsed: Source, revision: str | None, variant: str | None, offline: bool) -> BaseInfo:
    if parsed.kind == "bundled":
        folder = _PACKAGE / "bundled"
        detected = dataclasses.replace(detect_folder(folder), family=BUNDLED)
        return _of_folder(source, "bundled", folder, detected, None)
    if parsed.kind == "hub":
        return _of_hub(source, parsed.repo, revision, variant, offline)
    path = parsed.path or Path(source)
    if parsed.kind == "folder":
        return _of_folder(source, "folder", path, detect_folder(path), variant)
    return _of_file(source, path)


def _of_folder(source: str, kind: SourceKind, folder: Path, detected: Detected, variant: str | None) -> BaseInfo:
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()]
    parameters: dict[str, int] = {}
    size = 0
    for component in components_of(read_json(folder / "model_index.json")):
        part = _part(component, detected.family)
        for name in choose_weights(names, component, variant, str(folder)).files:
            header = read_header(folder / name, BaseError)
            parameters[part] = parameters.get(part, 0) + header.parameters("")
            size += header.size
    return BaseInfo(
        source=source,
        kind=kind,
        family=detected.family.key,
        title=detected.family.title,
        prediction=detected.prediction or "epsilon",
        zero_snr=detected.zero_snr,
        resolution=_side(read_json(folder / detected.family.root / "config.json"), folder, detected.family),
        size_bytes=size,
        parameters=parameters,
        subjects=_subjects(folder / SUBJECTS),
        notes=() if kind == "bundled" else _notes(detected),  # whoever takes ours need not know how it predicts
    )


def _of_hub(source: str, repo: str, revision: str | None, variant: str | None, offline: bool) -> BaseInfo:
    if folder := cached_copy(repo, revision, variant):
        return _of_folder(source, "hub", folder, detect_folder(folder), variant)
    if offline:
        return BaseInfo(source, "hub", problem=f"The model {repo!r} is not on this machine; go online to look it up.")
    found = look_up(repo, revision=revision)
    parameters: dict[str, int] = {}
    size = 0
    for weights in found.chosen(variant):
        component = weights.files[0].split("/")[0]
        part = _part(component, found.detected.family)
        stored = sum(found.sizes[name] for name in weights.files)
        size += stored
        # Hub listings say bytes, not types: variants named fp16 hold two bytes a weight, plain files four.
        parameters[part] = parameters.get(part, 0) + stored // (2 if weights.variant in ("fp16", "bf16") else 4)
    detected = found.detected
    return BaseInfo(
        source=source,
        kind="hub",
        family=detected.family.key,
        title=detected.family.title,
        prediction=detected.prediction or "epsilon",
        zero_snr=detected.zero_snr,
        resolution=_side(read_json(found.folder / detected.family.root / "config.json"), found.folder, detected.family),
        size_bytes=size,
        download_bytes=found.download_bytes(variant),
        parameters=parameters,
        notes=_notes(detected),
    )


def _of_file(source: str, path: Path) -> BaseInfo:
    header = read_header(path, BaseError)
    detected = detect_file(header, path)
    family = detected.family
    config = _PACKAGE / "configs" / family.configs[detected.prediction or "epsilon"]
    return BaseInfo(
        source=source,
        kind="file",
        family=family.key,
        title=family.title,
        prediction=detected.prediction or "epsilon",
        prediction_sure=detected.prediction is not None,
        zero_snr=detected.zero_snr,
        resolution=_side(read_json(config / family.root / "config.json"), config, family),
        size_bytes=header.size,
        parameters={
            "denoiser": header.parameters(DENOISER_PREFIX),
            "vae": header.parameters(VAE_PREFIX),
            "text": header.parameters(*(spec.original_prefix for spec in family.text_encoders)),
        },
        notes=_notes(detected),
    )


def _part(component: str, family: Family) -> str:
    """The part of a base that a component of its folder is."""
    return "denoiser" if component == family.root else "vae" if component == "vae" else "text"


def _side(denoiser: dict[str, Any], folder: Path, family: Family) -> int:
    """Native side in pixels: latent cells times what the VAE shrinks by."""
    cells = denoiser.get("sample_size")
    levels = len(read_json(folder / "vae" / "config.json").get("block_out_channels", ())) or 4
    return cells * 2 ** (levels - 1) if isinstance(cells, int) else family.default_side


def _subjects(file: Path) -> tuple[str, ...]:
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()


def _notes(detected: Detected) -> tuple[str, ...]:
    notes = []
    if detected.prediction is None:
        notes.append("The file does not say whether it predicts epsilon or v; opening it finds the likelier one.")
    if detected.zero_snr:
        notes.append("Its noise schedule ends in pure noise (zero terminal SNR).")
    return tuple(notes)
