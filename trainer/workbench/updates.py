"""What a style's layer adds to the weights of a base, whatever its method, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import torch
from torch import Tensor

from trainer.adapters.methods import method_of
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.styles.file import StyleFile, made_for
from trainer.styles.names import root_at_hand
from trainer.workbench.base_files import BaseFiles, Place


def update_of(layer: LayerWeights, weight: Tensor) -> Tensor:
    """A layer's update of its base's weight at strength 1, in the weight's shape, fp32.

    Args:
        weight: (out, in) or (out, in, kh, kw), of the base.
    """
    method = method_of(layer)
    fitted = method.shaped(layer, tuple(weight.shape))
    if fitted is None:
        raise ValueError(f"a layer of the sides {method.sides(layer)} is not one of the shape {tuple(weight.shape)}")
    if method.needs_base:
        fitted = method.as_lora(fitted, weight)
        method = method_of(fitted)
    frozen = SimpleNamespace(weight=weight.float(), bias=None)
    with torch.no_grad():
        parts = method.read(fitted, frozen)
        values = {**parts.trained, **parts.kept, **parts.derived}
        return method.merged(values, frozen, fitted.rank, fitted.alpha)["weight"]


def placed(file: StyleFile, base: BaseFiles) -> Iterator[tuple[str, LayerWeights, str, Place]]:
    """Each layer of a style with the name and place of its weight in a base.

    Raises:
        AdapterFileError: the base has no such layer, or one of another shape.
    """
    parameters: Mapping[str, Place] = base.parameters
    roots = {name.partition(".")[0] for name in parameters}
    for path, layer in file.layers.items():
        root, _, inner = path.partition(".")
        name = f"{root_at_hand(root, roots)}.{inner}.weight"
        place = parameters.get(name)
        if place is None:
            raise AdapterFileError(
                f"{file.path} does not fit {base.source}: that base has no layer {path}.{made_for(file.layers)}"
            )
        method = method_of(layer)
        if method.shaped(layer, place.shape) is None:
            out, inputs = method.sides(layer)
            raise AdapterFileError(
                f"{file.path} does not fit {base.source}: {path} is {' x '.join(map(str, (out, *inputs)))} in the "
                f"file, but {' x '.join(map(str, place.shape))} in the base.{made_for(file.layers)}"
            )
        yield path, layer, name, place


def biases_left_out(file: StyleFile) -> list[str]:
    """A note where a style changes biases, of which `update_of` knows nothing; else none."""
    count = sum("bias" in layer.extra for layer in file.layers.values())
    return [f"{file.path.name} also changes {count} biases; these are left out."] if count else []
