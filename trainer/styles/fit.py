"""Whether a style file fits the models at hand, and putting it on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.adapters.attention import is_attention
from trainer.adapters.bank import Adapter, Bank
from trainer.adapters.layers import GatedEmbedding, adaptable
from trainer.adapters.methods import method_of
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.styles.file import StyleFile, made_for
from trainer.styles.names import installed_path, root_at_hand


def attach(bank: Bank, name: str, file: StyleFile, *, trainable: bool = False, dropout: float = 0.0) -> Adapter:
    """Put a style file's weights into a bank under a name; its strength is 1 until strengths are set.

    Layers of models that the bank does not hold (text encoders, when only the UNet is here) are left out, and the
    adapter's notes say so.

    Args:
        trainable: it may learn further; otherwise its matrices are frozen.
        dropout: share of its update that is switched off at random while training, 0 to 1.

    Raises:
        AdapterFileError: the file does not fit the bank's models.
        ConfigError: a name in use.
    """
    weights, notes = fit(file, bank.roots)
    return bank.load(name, weights, notes=notes, trainable=trainable, dropout=dropout)


def fit(file: StyleFile, roots: Mapping[str, nn.Module]) -> tuple[dict[str, LayerWeights], tuple[str, ...]]:
    """An adapter's layers under the names and in the shapes of the models at hand, with notes for people.

    A linear layer's matrices may be stored as 1 x 1 convolutions and the other way round. Layers of models that are
    not among ``roots`` are left out, with a note.

    Raises:
        AdapterFileError: a layer is missing in the model or has another shape there, or nothing is left.
    """
    modules = {root: dict(model.named_modules()) for root, model in roots.items()}
    fitted: dict[str, LayerWeights] = {}
    absent: dict[str, int] = {}
    for path, layer in file.layers.items():
        root, inner = path.split(".", 1)
        root = root_at_hand(root, roots)
        if root not in roots:
            absent[root] = absent.get(root, 0) + 1
            continue
        name = inner if root == "unet" else installed_path(inner, modules[root])
        module = modules[root].get(name) if name else None
        if module is None or _site_of(module) != method_of(layer).site:
            raise AdapterFileError(
                f"{file.path} does not fit this base: the base has no layer {path}.{made_for(file.layers)}"
            )
        fitted[f"{root}.{name}"] = _reshaped(file, path, layer, module)
    if not fitted:
        raise AdapterFileError(f"{file.path} adapts only {', '.join(absent)}, which this base does not have.")
    notes = tuple(
        f"{count} layers of {root} are left out, because that model is not open here." for root, count in absent.items()
    )
    return fitted, file.notes + notes


def _site_of(module: nn.Module) -> str:
    """What kind of method a module is a place for (`Method.site`); empty where it is none."""
    if is_attention(module):
        return "attention"
    if isinstance(module, nn.Embedding | GatedEmbedding):
        return "words"
    return "layer" if adaptable(module) else ""


def _reshaped(file: StyleFile, path: str, layer: LayerWeights, module: Any) -> LayerWeights:
    method = method_of(layer)
    shape = tuple((module.to_q if is_attention(module) else module).weight.shape)
    fitted = method.shaped(layer, shape)
    if fitted is None:
        out, inputs = method.sides(layer)
        raise AdapterFileError(
            f"{file.path} does not fit this base: {path} is {_size(out, inputs)} in the file, "
            f"but {_size(shape[0], shape[1:])} in the base.{made_for(file.layers)}"
        )
    if "bias" in fitted.extra and module.bias is None:
        raise AdapterFileError(f"{file.path} does not fit this base: it changes the bias of {path}, which has none.")
    return method.as_lora(fitted, module.weight) if method.needs_base else fitted


def _size(out: int, into: tuple[int, ...]) -> str:
    return f"{' x '.join(str(side) for side in into)} to {out}"
