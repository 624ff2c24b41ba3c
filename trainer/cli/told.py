"""Commands that tell of themselves in the language of the terminal."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from trainer.languages import ENGLISH, of_settings, said, terminal_language
from trainer.languages.columns import unwrapped, wrappable

if TYPE_CHECKING:
    import click


def told(text: str, language: str) -> str:
    """A help text in a language; what is said of a setting is what the page says of it."""
    if language == ENGLISH:
        return text
    for english, translated in _of_settings(language).items():
        if text.startswith(english):
            return translated + said(text.removeprefix(english).strip(), language)
    return "\n\n".join(said(" ".join(paragraph.split()), language) for paragraph in text.split("\n\n"))


@functools.cache
def _of_settings(language: str) -> dict[str, str]:
    from trainer.config import settings

    known = of_settings(language)
    return {setting.help: known[path][1] for path, setting in settings().items() if path in known}


def translate(command: click.Command, context: click.Context) -> None:
    """Have a command's own texts and those of its options in the language of the terminal."""
    language = terminal_language()
    for holder in (command, *command.get_params(context)):
        for name in ("help", "epilog"):
            if text := getattr(holder, name, None):
                setattr(holder, name, wrappable(told(text, language), language))


class _Told:
    def get_help(self, ctx: Any) -> str:
        translate(self, ctx)  # type: ignore[arg-type]
        page: str = super().get_help(ctx)  # type: ignore[misc]
        return unwrapped(page, terminal_language())


class Command(_Told, TyperCommand):
    """A command."""


class Group(_Told, TyperGroup):
    """Several commands."""
