"""The methods of adapting a frozen model: every file of this folder that defines one.

A new method is a new file with a subclass of `trainer.adapters.methods.method.Method`; settings, help texts, bank and
files find it here. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from trainer.adapters.methods.method import Method
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError


def _defined_in(module: ModuleType) -> Iterator[type[Method]]:
    for value in vars(module).values():
        own = isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        if own and "name" in vars(value):
            yield value


def _found() -> Iterator[type[Method]]:
    for entry in pkgutil.iter_modules(__path__):
        yield from _defined_in(importlib.import_module(f"{__name__}.{entry.name}"))


_ALL: Mapping[str, type[Method]] = {
    each.name: each for each in sorted(_found(), key=lambda each: (each.name != "lora", each.name))
}

METHODS: Mapping[str, type[Method]] = {name: each for name, each in _ALL.items() if each.trains}
"""Every method that can be trained, by its name in a config: LoRA first, then by name."""


def method_named(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of that name.

    Args:
        settings: by name, such as the fields of `trainer.config.AdapterConfig`; those that are None or that the method
            does not have are as by default.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"adapter.method is {name!r}, but should be one of {known}.")
    method = METHODS[name]
    own = {field.name for field in dataclasses.fields(method)}
    return method(**{key: value for key, value in (settings or {}).items() if key in own and value is not None})


def method_of(weights: LayerWeights) -> Method:
    """The method that weights from a file belong to, whether or not it can be trained here."""
    return {**_ALL, **METHODS}[weights.method]()


def as_loras(weights: Mapping[str, LayerWeights]) -> dict[str, LayerWeights]:
    """Layers with two matrices each, exactly, wherever that needs no base; see `Method.as_lora`."""
    methods = {path: method_of(layer) for path, layer in weights.items()}
    return {
        path: layer if methods[path].needs_base else methods[path].as_lora(layer) for path, layer in weights.items()
    }


def told_by_layers(method: type[Method], layout: str) -> bool:
    """Whether files in a layout hold LoRA's or DoRA's tensors, of which is known what each program does with them."""
    return method.ranked or (layout == "diffusers" and layout in method.layouts and method.changes_weights)


def methods_with(setting: str) -> tuple[str, ...]:
    """The names of the methods that have a setting of their own by that name."""
    return tuple(
        name for name, method in METHODS.items() if setting in {field.name for field in dataclasses.fields(method)}
    )
