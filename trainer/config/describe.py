"""What each setting is, told once for whoever asks the user for it: the studio's form and the command line."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config.sections import Section
from trainer.config.tree import RunConfig

Kind = Literal["choice", "switch", "whole", "number", "text", "lines"]


@dataclass(frozen=True)
class Setting:
    """A leaf of the tree of settings.

    Attributes:
        path: dotted, ``optim.learning_rate``.
        kind: what its value is: one of `choices`, yes or no, a whole number, a number, a text, or several texts.
        help: one sentence on what you will see change.
        default: None where it is chosen for you.
        optional: whether it may be left empty, which leaves it to the preset.
        choices: of a ``choice``, in the order to be shown.
        least, most: allowed range, both ends included unless the help says otherwise; None is open.
    """

    path: str
    kind: Kind
    help: str
    default: Any
    optional: bool
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def section(self) -> str:
        """The branch it hangs on: the first part of the path."""
        return self.path.partition(".")[0]


@cache
def settings() -> Mapping[str, Setting]:
    """Every setting of a run by its dotted path, in the order of the tree."""
    return MappingProxyType({path: _setting(path, info) for path, info in _leaves(RunConfig)})


def help_of(path: str) -> str:
    """The help text of a dotted path such as ``optim.learning_rate``.

    Raises:
        KeyError: there is no such setting.
    """
    return settings()[path].help


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def _setting(path: str, info: FieldInfo) -> Setting:
    annotation = info.annotation
    members = typing.get_args(annotation) if typing.get_origin(annotation) in (Union, UnionType) else (annotation,)
    inner = next(member for member in members if member is not NoneType)
    limits = {
        name: getattr(part, name) for part in info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(part, name)
    }
    return Setting(
        path=path,
        kind=_kind(inner),
        help=str(info.description or ""),
        default=info.get_default(call_default_factory=True),
        optional=NoneType in members,
        choices=typing.get_args(inner) if typing.get_origin(inner) is Literal else (),
        least=limits.get("ge", limits.get("gt")),
        most=limits.get("le", limits.get("lt")),
    )


def _kind(annotation: Any) -> Kind:
    if typing.get_origin(annotation) is Literal:
        return "choice"
    if typing.get_origin(annotation) is list:
        return "lines"
    kinds: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    return kinds[annotation]
