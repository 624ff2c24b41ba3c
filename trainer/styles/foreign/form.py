"""What every form of a layer in a style file has to say."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.safetensors_file import Entry

if TYPE_CHECKING:
    from torch import Tensor

MOST_VALUES = 1 << 26
"""Of one layer's update. The largest layer of Stable Diffusion XL has 29 million weights."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a file before any of its values is read.

    Attributes:
        path: of the file.
        where: the layer's root-qualified path.
        entries: its tensors by part.
        names: what the file calls the tensors, by part.
    """

    path: Path
    where: str
    entries: Mapping[str, Entry]
    names: Mapping[str, str]

    def shape(self, part: str) -> Shape:
        return self.entries[part].shape

    def __contains__(self, part: str) -> bool:
        return part in self.entries

    def refuse(self, reason: str) -> NoReturn:
        raise AdapterFileError(f"{self.path} {reason}")

    def disagree(self, *parts: str) -> NoReturn:
        """Refuse the layer because these parts do not go together."""
        shapes = ", ".join(f"{part} {self.shape(part)}" for part in parts)
        self.refuse(f"is damaged: the tensors of {self.where} do not go together ({shapes}).")


class Form(ABC):
    """One way to hold a layer's update.

    Attributes:
        name: for people.
        marks: the parts of which any shows the form.
        parts: all that it may have; another one belongs to a mixture that nothing is known of.
    """

    name: ClassVar[str]
    marks: ClassVar[frozenset[str]]
    parts: ClassVar[frozenset[str]]

    def check(self, layer: Layer) -> None:
        """Refuse a layer by what the header says of it.

        Raises:
            AdapterFileError: tensors are missing, of odd types or shapes, or larger than any layer.
        """
        if "alpha" in layer and math.prod(layer.shape("alpha")) != 1:
            layer.refuse(f"is damaged: alpha of {layer.where} should be one number.")
        for part, entry in layer.entries.items():
            if not entry.dtype.startswith(("F", "BF")) and (part != "alpha" or entry.dtype[0] not in "IU"):
                layer.refuse(
                    f"keeps {part} of {layer.where} as {entry.dtype}; weights must be floating-point numbers, such as "
                    "F16."
                )
            if not math.prod(entry.shape):
                layer.refuse(f"is damaged: {part} of {layer.where} is empty.")
        if odd := layer.entries.keys() - self.parts:
            part = min(odd)
            layer.refuse(f"has {self.odd(part, layer)}")
        self.check_shapes(layer)

    def odd(self, part: str, layer: Layer) -> str:
        """What to say of a part that does not belong to this form."""
        return f"{layer.names[part]} beside {self.name} in {layer.where}, which is no form that is known."

    @abstractmethod
    def check_shapes(self, layer: Layer) -> None:
        """Refuse a layer whose tensors do not go together."""

    @abstractmethod
    def rank(self, layer: Layer) -> int | None:
        """What alpha is divided by; None of a form that knows no rank, and then no alpha."""

    @abstractmethod
    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        """The layer from its tensors by part; without a rank, ``alpha`` is the factor on the whole."""


def check_size(layer: Layer, out: int, inputs: int) -> None:
    """Refuse an update of ``out`` x ``inputs`` values that no layer has room for, however small its factors are."""
    if not out * inputs:
        layer.refuse(f"is damaged: a tensor of {layer.where} is empty.")
    if out * inputs > MOST_VALUES:
        layer.refuse(
            f"is damaged: the update of {layer.where} would have {out} x {inputs} values, more than any layer of "
            "Stable Diffusion."
        )
