"""How a race is run: who is left when, and what that costs. Without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
"""Of the preset's learning rate: what races where no rates are named."""


def heats_of(count: int, steps: int) -> list[tuple[int, int]]:
    """How many race in each heat, and at which step it ends; the last is one alone, to the end.

    Everybody gets a step at least, so that with very few steps there are fewer heats that drop more.
    """
    halvings = math.ceil(math.log2(count))
    ends = [max(1, round(steps * 2 ** (heat - halvings))) for heat in range(halvings + 1)]
    racing = [math.ceil(count / 2**heat) for heat in range(halvings + 1)]
    return [
        (number, end)
        for place, (number, end) in enumerate(zip(racing, ends, strict=True))
        if place == 0 or end > ends[place - 1]
    ]


def cost_of(heats: Sequence[tuple[int, int]]) -> int:
    """Steps of all heats."""
    before, total = 0, 0
    for number, end in heats:
        total += number * (end - before)
        before = end
    return total
