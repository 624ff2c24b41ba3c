"""Weights in prompts, read as Stable Diffusion web UI reads them; captions are taken as they are written.

``(words)`` weigh 1.1 times as much, ``[words]`` 1.1 times less, ``(words:1.3)`` 1.3 times; brackets multiply within
each other, one that is never closed reaches to the end, and ``\\(`` is a mark like any other. ``BREAK`` ends a window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROUND = 1.1
"""What a pair of round brackets without a number multiplies by; square ones divide by it."""

_PARTS = re.compile(
    r"\\(?P<literal>[()\[\]\\])|:\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<mark>[()\[\]])"
    r"|\s*\b(?P<border>BREAK)\b\s*|(?P<other>.)",
    re.DOTALL,
)


@dataclass
class Part:
    """Text of one weight; an empty text of weight None is a border between windows."""

    text: str
    weight: float | None = 1.0


def read_weights(prompt: str) -> list[Part]:
    """The prompt in parts of one weight each, neighbours of equal weight joined; at least one."""
    parts: list[Part] = []
    round_, square = [], []
    for found in _PARTS.finditer(prompt):
        mark, number = found["mark"], found["number"]
        if found["border"]:
            parts.append(Part("", None))
        elif mark == "(":
            round_.append(len(parts))
        elif mark == "[":
            square.append(len(parts))
        elif mark == ")" and round_:
            _multiply(parts[round_.pop() :], ROUND)
        elif mark == "]" and square:
            _multiply(parts[square.pop() :], 1 / ROUND)
        elif number and round_:
            _multiply(parts[round_.pop() :], float(number))
        else:
            parts.append(Part(found["literal"] or found[0]))
    for start in round_:
        _multiply(parts[start:], ROUND)
    for start in square:
        _multiply(parts[start:], 1 / ROUND)
    joined: list[Part] = []
    for part in parts:
        if joined and part.weight is not None and joined[-1].weight == part.weight:
            joined[-1].text += part.text
        else:
            joined.append(part)
    return joined or [Part("")]


def literal(words: str) -> str:
    """Words as a prompt has to write them, so that their brackets stay: a trigger such as ``ink (style)``."""
    return re.sub(r"([()\[\]\\])", r"\\\1", words)


def _multiply(parts: list[Part], factor: float) -> None:
    for part in parts:
        if part.weight is not None:
            part.weight *= factor
