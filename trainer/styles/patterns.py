"""Values by pattern, as PEFT's ``alpha_pattern`` and ``rank_pattern`` have them: regular expressions on layers' paths.

A pattern comes from a stranger, and Python's matching of ``(a+)+`` takes forever. Here a pattern becomes a small
machine that is in several states at once, so that a path of n characters takes n steps, whatever the pattern. What it
understands: characters, ``.``, ``\\d``, ``\\w``, ``[...]``, groups, ``|``, ``*``, ``+``, ``?``, and ``^`` and ``$``
around the whole.

Source: Thompson 1968, Regular Expression Search Algorithm.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import AdapterFileError

MOST_PATTERNS = 10_000
MOST_MACHINES = 50
LONGEST = 200
"""Characters of a pattern that is more than a path."""
DEEPEST = 20
"""Groups in groups."""

_WORD = frozenset(string.ascii_letters + string.digits + "_")
_CLASSES = {"d": frozenset(string.digits), "w": _WORD}


@dataclass(frozen=True)
class Patterns:
    """Values by pattern; the first that matches a layer wins.

    Attributes:
        exact: end of a layer's dotted path -> (place in the table, value).
        machines: patterns that are more than a path, with their place and value.
    """

    exact: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    machines: tuple[tuple[int, Machine, float], ...] = ()

    @classmethod
    def parse(cls, path: Path, name: str, table: Any, number: Callable[[Any], float]) -> Patterns:
        """A table of patterns and numbers.

        Raises:
            AdapterFileError: it is no table, is too long, or has a pattern that is not understood.
        """
        table = table or {}
        if not isinstance(table, dict):
            raise AdapterFileError(
                f"{path} is damaged: {name} in its LoRA settings should be a table of layers and numbers."
            )
        if len(table) > MOST_PATTERNS:
            raise AdapterFileError(f"{path} has {len(table)} entries in {name}; at most {MOST_PATTERNS} are read.")
        exact: dict[str, tuple[int, float]] = {}
        machines: list[tuple[int, Machine, float]] = []
        for place, (pattern, value) in enumerate(table.items()):
            literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
            if _WORD.issuperset(literal.replace(".", "")) and literal:
                exact.setdefault(literal, (place, number(value)))
                continue
            if len(machines) == MOST_MACHINES:
                raise AdapterFileError(f"{path} has more than {MOST_MACHINES} patterns in {name}.")
            try:
                machines.append((place, Machine(pattern), number(value)))
            except _NotUnderstood as error:
                raise AdapterFileError(
                    f"{path} has the pattern {pattern[:80]!r} in {name}, which Patina does not read: {error}."
                ) from None
        return cls(exact, tuple(machines))

    def of(self, inner: str, otherwise: float | None) -> float | None:
        """The value of a layer by its dotted path, of which a pattern has to match the end, from a dot on."""
        parts = inner.split(".")
        ends = [".".join(parts[i:]) for i in range(len(parts))]
        found = [self.exact[end] for end in ends if end in self.exact]
        best = min(found, default=None)
        for place, machine, value in self.machines:
            if best is not None and best[0] < place:
                break
            if machine.matches(inner):
                best = place, value
                break
        return otherwise if best is None else best[1]


class _NotUnderstood(Exception):
    """What is odd about a pattern."""


@dataclass(frozen=True)
class _Letters:
    """The characters that a step takes: those in ``among``, or all others."""

    among: frozenset[str]
    others: bool = False

    def __contains__(self, letter: str) -> bool:
        return (letter in self.among) != self.others


_ANY = _Letters(frozenset(), others=True)


class Machine:
    """A pattern as states with steps between them; it matches a path whose end, from a dot on, the pattern matches.

    Sets of states that were met are kept, so that further paths cost one look-up a character.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > LONGEST:
            raise _NotUnderstood(f"it is longer than {LONGEST} characters")
        self._text = pattern.removeprefix("^")
        if self._text.endswith("$") and not self._text.endswith("\\$"):
            self._text = self._text[:-1]
        self._at = 0
        # For each state the steps that take a character, and those that take none.
        self._steps: list[list[tuple[_Letters, int]]] = []
        self._free: list[list[int]] = []
        before, start = self._state(), self._state()
        if pattern.startswith("^"):
            self._free[before].append(start)
        else:
            skipped = self._state()
            self._free[before] += [start, skipped]
            self._steps[skipped] += [(_ANY, skipped), (_Letters(frozenset(".")), start)]
        self._end = self._either(start, 0)
        if self._at < len(self._text):
            raise _NotUnderstood(f"a {self._text[self._at]!r} has no counterpart")
        self._start = self._reached({before})
        self._seen: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, path: str) -> bool:
        states = self._start
        for letter in path:
            known = self._seen.get((states, letter))
            if known is None:
                known = self._reached(
                    {to for state in states for letters, to in self._steps[state] if letter in letters}
                )
                self._seen[states, letter] = known
            states = known
        return self._end in states

    def _state(self) -> int:
        self._steps.append([])
        self._free.append([])
        return len(self._steps) - 1

    def _reached(self, states: set[int]) -> frozenset[int]:
        """These states and those that are reached from them without a character."""
        found, waiting = set(states), list(states)
        while waiting:
            for state in self._free[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)

    def _next(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _either(self, start: int, depth: int) -> int:
        """``a|b``: the state behind it, when its beginning is ``start``."""
        if depth > DEEPEST:
            raise _NotUnderstood("its groups lie too deep in each other")
        end = self._state()
        while True:
            first = self._state()
            self._free[start].append(first)
            self._free[self._row(first, depth)].append(end)
            if self._next() != "|":
                return end
            self._at += 1

    def _row(self, state: int, depth: int) -> int:
        """One thing after another, each perhaps repeated."""
        while self._next() not in ("", "|", ")"):
            first = self._state()
            self._free[state].append(first)
            last = self._thing(first, depth)
            state = self._state()
            self._free[last].append(state)
            repeated = self._next()
            if repeated and repeated in "*?":
                self._free[first].append(state)
            if repeated and repeated in "*+":
                self._free[last].append(first)
            if repeated and repeated in "*+?":
                self._at += 1
        return state

    def _thing(self, start: int, depth: int) -> int:
        letter = self._next()
        self._at += 1
        if letter == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            end = self._either(start, depth + 1)
            if self._next() != ")":
                raise _NotUnderstood("a group is not closed")
            self._at += 1
            return end
        end = self._state()
        self._steps[start].append((self._letters(letter), end))
        return end

    def _letters(self, letter: str) -> _Letters:
        if letter == ".":
            return _ANY
        if letter == "[":
            return self._class()
        if letter == "\\":
            return _Letters(self._escaped())
        if letter in "*+?{}^$":
            raise _NotUnderstood(f"{letter!r} stands where nothing goes before it, or is not known here")
        return _Letters(frozenset(letter))

    def _escaped(self) -> frozenset[str]:
        letter = self._next()
        self._at += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if not letter or letter.isalnum():
            raise _NotUnderstood(f"\\{letter} is not known here")
        return frozenset(letter)

    def _class(self) -> _Letters:
        others = self._next() == "^"
        self._at += others
        among: set[str] = set()
        while (letter := self._next()) != "]" or not among:
            self._at += 1
            if not letter:
                raise _NotUnderstood("a [ is not closed")
            if letter == "\\":
                among |= self._escaped()
                continue
            last = self._text[self._at + 1 : self._at + 2] if self._next() == "-" else ""
            if last in ("", "]"):
                among.add(letter)
                continue
            self._at += 2
            if not letter < last < "\x7f":
                raise _NotUnderstood(f"{letter}-{last} is no range of characters")
            among |= {chr(code) for code in range(ord(letter), ord(last) + 1)}
        self._at += 1
        return _Letters(frozenset(among), others)
