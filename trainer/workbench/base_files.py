"""Where the layers of a base lie in its files, so that one weight at a time is read or changed; no model is built.

A layer is named as in `trainer.styles.names`: ``unet.<diffusers' path>``, ``te.text_model...``. In a single file the
names are those of Stability's original code and, of OpenCLIP's encoders, query, key and value are rows of one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from trainer.bases.detect import DENOISER_PREFIX, Detected, detect_file, detect_folder, read_json
from trainer.bases.families import BUNDLED, Family
from trainer.bases.families.family import TextEncoderSpec
from trainer.bases.hub import fetch
from trainer.bases.single_file import CONFIGS, OPEN_CLIP_LAYER_NAMES
from trainer.bases.sources import BUNDLED_FOLDER, parse_source
from trainer.bases.weight_files import Weights, choose_weights
from trainer.errors import BaseError
from trainer.safetensors_file import Entry, Header, read_header, read_tensors
from trainer.styles.names import from_original, text_path

_THIRDS = ("q", "k", "v")


@dataclass(frozen=True)
class Place:
    """Where a parameter lies: a tensor of a file, or with ``third`` the first, second or last third of its rows."""

    header: Header
    key: str
    third: int | None = None

    @property
    def entry(self) -> Entry:
        return self.header.entries[self.key]

    @property
    def shape(self) -> tuple[int, ...]:
        rows, *rest = self.entry.shape
        return (rows // 3 if self.third is not None else rows, *rest)

    def read(self) -> Tensor:
        """The parameter in the type of its file."""
        tensor = read_tensors(self.header, [self.key], raises=BaseError)[self.key]
        return tensor if self.third is None else tensor.chunk(3)[self.third]


@dataclass(frozen=True)
class BaseFiles:
    """A base as it lies on the disk.

    Attributes:
        source: as the user named it.
        path: the folder, or the single file.
        detected: what it is.
        weights: of a folder, the files of each component; empty for a single file.
    """

    source: str
    path: Path
    detected: Detected
    weights: Mapping[str, Weights]

    @property
    def family(self) -> Family:
        return self.detected.family

    @property
    def name(self) -> str:
        """A hub id as it is; of a path only the last part, because the rest concerns nobody else."""
        return self.source if parse_source(self.source).kind in ("hub", "bundled") else self.path.stem

    @property
    def is_folder(self) -> bool:
        return bool(self.weights)

    @cached_property
    def headers(self) -> dict[Path, Header]:
        """The headers of all files with layers that a style may adapt."""
        roots = (self.family.root, *(spec.folder for spec in self.family.text_encoders))
        paths = (
            [self.path / name for root in roots for name in self.weights[root].files] if self.weights else [self.path]
        )
        return {path: read_header(path, BaseError) for path in paths}

    @cached_property
    def parameters(self) -> dict[str, Place]:
        """Every parameter of denoiser and text encoders by root-qualified path, with ``.weight`` or ``.bias`` last."""
        return dict(self._places())

    def layers(self) -> dict[str, Place]:
        """The weights of linear layers and convolutions by layer; norms and embeddings are none."""
        return {
            name.removesuffix(".weight"): place
            for name, place in self.parameters.items()
            if name.endswith(".weight") and len(place.shape) in (2, 4) and ".embeddings." not in name
        }

    def _places(self) -> Iterator[tuple[str, Place]]:
        if not self.weights:
            header = self.headers[self.path]
            for key in header.entries:
                yield from self._of_single_file(header, key)
            return
        folders = {self.family.root: self.family.root}
        folders |= {spec.folder: spec.root for spec in self.family.text_encoders}
        for path, header in self.headers.items():
            root = folders[path.parent.name]
            for key in header.entries:
                yield f"{root}.{key if root == self.family.root else text_path(key)}", Place(header, key)

    def _of_single_file(self, header: Header, key: str) -> Iterator[tuple[str, Place]]:
        if key.startswith(DENOISER_PREFIX):
            module, _, kind = key.removeprefix(DENOISER_PREFIX).rpartition(".")
            path = from_original(module)
            if path is not None:
                yield f"{self.family.root}.{path}.{kind}", Place(header, key)
            return
        for spec in self.family.text_encoders:
            if key.startswith(spec.original_prefix):
                inner = key.removeprefix(spec.original_prefix)
                for path, third in _in_encoder(spec, inner, self._encoder_layers(spec)):
                    yield f"{spec.root}.{path}", Place(header, key, third)

    def _encoder_layers(self, spec: TextEncoderSpec) -> int:
        """SD2's files hold one layer more than its text encoder has, because the last one is never used."""
        config = CONFIGS / next(iter(self.family.configs.values())) / spec.folder / "config.json"
        return int(read_json(config)["num_hidden_layers"])


def open_base_files(source: str, *, variant: str | None = None, offline: bool = False) -> BaseFiles:
    """Find a base's files by what a user named: a folder, a single file, a hub id or ``bundled``.

    Raises:
        BaseError: it is unknown, incomplete, or no base that a style can be for.
    """
    found = parse_source(source)
    if found.kind == "file":
        assert found.path is not None
        return BaseFiles(source, found.path, detect_file(read_header(found.path, BaseError), found.path), {})
    if found.kind == "hub":
        folder = fetch(found.repo, variant=variant, offline=offline).folder
    else:
        folder = BUNDLED_FOLDER if found.kind == "bundled" or found.path is None else found.path
    detected = detect_folder(folder)
    if found.kind == "bundled":
        detected = replace(detected, family=BUNDLED)
    family = detected.family
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*")) if path.is_file()]
    components = (family.root, "vae", *(spec.folder for spec in family.text_encoders))
    return BaseFiles(
        source, folder, detected, {part: choose_weights(names, part, variant, str(folder)) for part in components}
    )


def _in_encoder(spec: TextEncoderSpec, inner: str, layers: int) -> Iterator[tuple[str, int | None]]:
    """The path of a tensor of a single file's text encoder, three of them where it is fused."""
    if spec.original_layout == "clip":
        yield text_path(inner), None
        return
    if (match := re.match(r"transformer\.resblocks\.(\d+)\.", inner)) is None or int(match[1]) >= layers:
        return
    layer = f"text_model.encoder.layers.{match[1]}"
    inner = inner[match.end() :]
    module, _, kind = inner.rpartition(".")
    if inner.startswith("attn.in_proj_"):
        kind = inner.removeprefix("attn.in_proj_")
        for third, letter in enumerate(_THIRDS):
            yield f"{layer}.self_attn.{letter}_proj.{kind}", third
    else:
        yield f"{layer}.{OPEN_CLIP_LAYER_NAMES.get(module, module)}.{kind}", None
