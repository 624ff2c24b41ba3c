"""Counter-based randomness: every draw's seed is a hash of what the draw is for.

Noise, timesteps, flips, image order and caption dropout are functions of (seed, purpose, step,
slot), so a resumed run needs no generator state and a preview in the middle disturbs nothing.
"""

from __future__ import annotations

import hashlib
import json

Part = int | str | float | bool | None
"""What a seed may be made of: values with one spelling in JSON."""


def stable_seed(*parts: Part) -> int:
    """A seed in [0, 2**32) that depends on `parts` alone: not on process, platform or version.

    32 bits, because PyTorch's CPU generator ignores higher ones. `1`, `1.0`, `"1"` and `True` are
    different parts, and `("ab", "c")` differs from `("a", "bc")`.

    Raises:
        TypeError: a part is neither a number, a string, a bool nor None.
        ValueError: no parts, or a part is an infinite or undefined float.
    """
    return int.from_bytes(_digest(parts, 4), "big")


def permutation(n: int, *parts: Part) -> list[int]:
    """The order of `range(n)` that `parts` stand for.

    Sorts by a hash per index rather than shuffling with `random`, whose shuffling algorithm Python
    does not promise to keep.

    Raises:
        TypeError, ValueError: as `stable_seed`.
    """
    return sorted(range(n), key=lambda i: (_digest((*parts, i), 8), i))


def _digest(parts: tuple[Part, ...], size: int) -> bytes:
    """`size` bytes of a hash of the parts' one canonical spelling."""
    if not parts:
        raise ValueError("a seed needs at least one part")
    for part in parts:
        if part is not None and not isinstance(part, int | str | float):
            raise TypeError(f"a seed cannot be made of {type(part).__name__}: {part!r}")
    spelling = json.dumps(parts, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(spelling.encode("ascii"), digest_size=size).digest()
