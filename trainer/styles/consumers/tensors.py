"""A style file as a program that opens it finds it: names, shapes and alphas, without knowing what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

DOWN = ("lora_down.weight", "lora_A.weight")
UP = ("lora_up.weight", "lora_B.weight")
LENGTHS = ("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight")
PARTS = (*DOWN, *UP, *LENGTHS, "alpha")


@dataclass(frozen=True)
class FileTensors:
    """What is in a file.

    Attributes:
        parts: name of a layer, as the file spells it -> part, such as ``lora_down.weight`` -> shape.
        alphas: name of a layer -> its alpha, where the file holds one as a tensor.
        metadata: the header's strings.
    """

    parts: Mapping[str, Mapping[str, tuple[int, ...]]]
    alphas: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(
        shapes: Mapping[str, tuple[int, ...]],
        alphas: Mapping[str, float] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> FileTensors:
        """From the shape of each tensor of a file, by its key; embeddings that came with it are left out."""
        parts: dict[str, dict[str, tuple[int, ...]]] = {}
        for key, shape in sorted(shapes.items()):
            if not key.startswith("bundle_emb."):
                stem, part = split(key)
                parts.setdefault(stem, {})[part] = shape
        return FileTensors(parts, alphas or {}, metadata or {})

    def named(self, *starts: str) -> bool:
        """Whether any layer's name begins with one of ``starts``."""
        return any(stem.startswith(starts) for stem in self.parts)

    @property
    def lengths(self) -> Literal["rows", "columns"] | None:
        """Whose lengths it holds, as DoRA has them: of each weight's rows or, as some tools write it, its columns."""
        for parts in self.parts.values():
            shape, up = shape_of(parts, LENGTHS), shape_of(parts, UP)
            if shape is not None and up is not None:
                return "columns" if len(shape) > 1 and shape[0] == 1 != up[0] and LENGTHS[0] in parts else "rows"
        return None


def split(key: str) -> tuple[str, str]:
    """A tensor's key as the layer's name and the part."""
    for part in PARTS:
        if key.endswith(f".{part}"):
            return key.removesuffix(f".{part}"), part
    stem, _, part = key.partition(".")
    return stem, part


def shape_of(parts: Mapping[str, tuple[int, ...]], names: Iterable[str]) -> tuple[int, ...] | None:
    """The shape of the first part among ``names`` that a layer has."""
    return next((parts[name] for name in names if name in parts), None)
