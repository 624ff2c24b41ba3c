"""Texts longer than a text encoder reads, in windows: each has its own start and end marks, their states are joined.

CLIP reads 77 tokens, 75 without the marks. Stable Diffusion web UI and kohya's scripts give it longer texts in pieces
of 75, and so do we, with web UI's rules for where a piece ends; the bundled base's pieces are as short as its encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_WINDOWS = 3
"""As in kohya's scripts (``max_token_length`` 225); what goes beyond is not read."""


@dataclass(frozen=True)
class Window:
    """Tokens that the encoder reads together, without marks, and how much each weighs."""

    tokens: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


Piece = tuple[Sequence[int], float] | None
"""Tokens of one weight; None is a border that was asked for."""


def split(pieces: Iterable[Piece], size: int, comma: int | None, most: int = MOST_WINDOWS) -> list[Window]:
    """A text's tokens in windows, at least one.

    A window that is full ends behind its last comma where fewer than 4 in 15 of its tokens follow (20 of 75), so that
    no tag is cut in two; unless there is no room for what that would move beyond the last window.

    Args:
        size: tokens in a window, without marks.
        comma: the token of a comma; None where there is none.
        most: windows that are read.
    """
    known = list(pieces)
    neat = _split(known, size, comma)
    return (neat if len(neat) <= most else _split(known, size, None))[:most]


def _split(pieces: Iterable[Piece], size: int, comma: int | None) -> list[Window]:
    windows: list[list[tuple[int, float]]] = [[]]
    for piece in pieces:
        if piece is None:
            windows.append([])
            continue
        for token in piece[0]:
            if len(windows[-1]) == size:
                moved = 0 if token == comma else _behind_last_comma(windows[-1], comma)
                full, rest = windows[-1][: size - moved], windows[-1][size - moved :]
                windows[-1:] = [full, rest]
            windows[-1].append((token, piece[1]))
    if len(windows) > 1 and not windows[-1]:
        windows.pop()
    return [Window(tuple(token for token, _ in each), tuple(weight for _, weight in each)) for each in windows]


def _behind_last_comma(window: Sequence[tuple[int, float]], comma: int | None) -> int:
    """How many tokens move on with the next one; 0 when no comma is near enough."""
    after = next((count for count, (token, _) in enumerate(reversed(window)) if token == comma), None)
    return after if after is not None and after < len(window) * 4 // 15 else 0
