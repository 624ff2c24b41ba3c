"""From what somebody wrote to a checked tree of settings: TOML files, nested mappings, dotted paths."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config.complaints import worded
from trainer.config.describe import settings
from trainer.config.tree import RunConfig
from trainer.errors import ConfigError
from trainer.printable import printable


def parse(values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> RunConfig:
    """Check a nested mapping and make the tree of it.

    Args:
        called: how the user wrote some settings, by dotted path, such as ``--rank`` for ``adapter.rank``.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(sentence(error, called)) from None


def sentence(error: ValidationError, called: Mapping[str, str] | None = None) -> str:
    """Pydantic's findings as sentences a user can act on; ``called`` as in `parse`."""
    return worded(error, called or {}, settings())


def overlay(tree: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``{"optim.learning_rate": 1e-4}`` into a nested mapping; ``None`` values are passed over."""
    for path, value in values.items():
        if value is None:
            continue
        *branches, leaf = path.split(".")
        node = tree
        for branch in branches:
            child = node.setdefault(branch, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{branch} should be a section with settings, not a single value.")
            node = child
        node[leaf] = value
    return tree


def assignment(text: str) -> tuple[str, Any]:
    """``optim.ema_decay=0.99`` as a path and a value in TOML's spelling; a bare word is a text.

    Raises:
        ConfigError: there is no name, no equals sign, or a value that no setting could take.
    """
    path, sign, value = text.partition("=")
    if not (sign and path.strip()):
        raise ConfigError(f"--set {printable(text, 80)} should look like optim.ema_decay=0.99.")
    try:
        return path.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), value.strip()
    except RecursionError:
        raise ConfigError(f"--set {printable(path, 80)} is nested too deeply to be read.") from None
    except ValueError:
        # More digits than Python converts.
        raise ConfigError(f"--set {printable(path, 80)} should be a smaller number.") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A config file as a nested mapping, not yet checked.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: name the file with the settings.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not valid TOML, which is always UTF-8 text: save it in that encoding.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be read: no setting needs that.") from None
    except ValueError as error:
        # Numbers of more digits than Python converts are no TOMLDecodeError.
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def load(path: Path) -> RunConfig:
    """Read and check a config file; errors as in `read_toml` and `parse`."""
    values = read_toml(path)
    try:
        return parse(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
