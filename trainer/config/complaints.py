"""What pydantic finds wrong, in the words of whoever has to mend it: which setting, what value, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from trainer.printable import printable


def worded(error: ValidationError, called: Mapping[str, str], known: Iterable[str]) -> str:
    """Pydantic's findings as sentences a user can act on.

    Args:
        called: how the user wrote some settings, by dotted path, such as ``--rank`` for ``adapter.rank``.
        known: the dotted paths there are, to guess what a misspelt one was meant to be.
    """
    parts = []
    for item in error.errors(include_url=False):
        path = printable(".".join(str(step) for step in item["loc"]), 80)
        where = called.get(path, path)
        kind = item["type"]
        context = {key: _plain(value) for key, value in item.get("ctx", {}).items()}
        if kind == "extra_forbidden":
            parts.append(f"There is no setting {path}{_near(path, known)}.")
        elif kind == "value_error":
            parts.append(f"{where} {context['error']}.".lstrip())
        elif kind in _ALLOWED:
            parts.append(f"{where} is {_shown(item['input'])}, but should {_ALLOWED[kind].format(**context)}.")
        elif kind == "literal_error":
            guess = _near(str(item["input"]), re.findall(r"'([^']*)'", str(context["expected"])))
            parts.append(f"{where} is {_shown(item['input'])}, but should be {context['expected']}{guess}.")
        else:
            parts.append(f"{where} is {_shown(item['input'])}, which does not do: {item['msg']}.")
    return " ".join(parts)


_NUMBER = "be a number"
_WHOLE = "be a whole number"
_ALLOWED = {
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "be a smaller number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": "be a finite number",
    "bool_parsing": "be true or false",
    "bool_type": "be true or false",
    "string_type": "be a text",
    "string_unicode": "be text in UTF-8",
    "list_type": 'be a list, such as ["one", "two"]',
    "tuple_type": 'be a list, such as ["one", "two"]',
    "model_type": "be a section with settings",
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be below {lt}",
    "less_than_equal": "be at most {le}",
    "multiple_of": "be a multiple of {multiple_of}",
    "string_too_short": "not be empty",
    "string_too_long": "have at most {max_length} characters",
    "too_long": "have at most {max_length} entries",
}
"""Pydantic's kind of finding -> what follows after "should"."""


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return f" (did you mean {found[0]}?)" if found else ""


def _plain(value: object) -> object:
    """Limits of a number as people write them: 30, not 30.0."""
    return f"{value:g}" if isinstance(value, float) else value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        # A list in a list in a list ..., or a number of more digits than Python converts.
        return "too much to be shown"
    return text if len(text) <= 60 else text[:57] + "..."
