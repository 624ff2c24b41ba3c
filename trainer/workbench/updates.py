"""What a style's layer adds to the weights of a base, whatever its method, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import torch
from torch import Tensor

from trainer.adapters.methods import method_named
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
    method = method_named(layer.method)
    frozen = SimpleNamespace(weight=weight.float(), bias=None)
    tail = weight.shape[2:]
    if weight.dim() != layer.down.dim() and tail in ((), (1, 1)):
        # A linear layer that the file, or the base, keeps as a 1 x 1 convolution.
        frozen.weight = frozen.weight.reshape(weight.shape[0], *layer.down.shape[1:])
    with torch.no_grad():
        parts = method.read(layer, frozen)
        values = {**parts.trained, **parts.kept, **parts.derived}
        update = method.merged(values, frozen, layer.rank, layer.alpha)["weight"]
    return update.reshape(weight.shape)


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
        have, want = (layer.up.shape[0], *layer.down.shape[1:]), place.shape
        if have != want and (have[:2] != want[:2] or {*have[2:], *want[2:]} - {1}):
            raise AdapterFileError(
                f"{file.path} does not fit {base.source}: {path} is {' x '.join(map(str, have))} in the file, but "
                f"{' x '.join(map(str, want))} in the base.{made_for(file.layers)}"
            )
        yield path, layer, name, place
