"""What a picture may be mistaken for: prompts that the base itself finds hard to tell apart."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

MOST_OTHERS = 36
"""Prompts in the pool."""
MOST_KNOWN = 12
"""Captions of training images among them: into those a style that learns by heart turns everything."""
ALIKE = 2
"""Others that a picture is compared with."""
SIEVE_LEVEL = 0.55
"""Noise level at which they are found."""

COMMON = (
    "apple", "clown", "panda", "sandwich", "moon", "train", "church", "monkey", "egg", "bird", "flower", "car", "cat",
    "person", "sun", "house", "horse", "tree", "cup", "shoe",
)  # fmt: skip
"""Things that a base of any family can be expected to know."""


def pool_of(subjects: Sequence[str], usual: Sequence[str], known: Sequence[str]) -> list[str]:
    """At most `MOST_OTHERS` prompts among which `alike` looks: the set's own, captions, the family's, common things.

    Args:
        subjects: prompts that are drawn.
        usual: the family's prompts (`trainer.bases.families.family.Family.prompts`).
        known: captions of training images, without the trigger.
    """
    captions = list(dict.fromkeys(caption for caption in known if caption))
    stride = max(1, -(-len(captions) // MOST_KNOWN))
    named = (*subjects, *captions[::stride], *usual, *COMMON)
    found: dict[str, str] = {}
    for prompt in named:
        found.setdefault(prompt.strip().lower(), prompt)
    return list(found.values())[:MOST_OTHERS]


def alike(errors: Tensor, pool: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, ...]]:
    """Of each subject the `ALIKE` others that explain the base's own picture of it best.

    Args:
        errors: of the base's pictures of ``subjects`` under all prompts of the pool, (P, K).
        pool: from `pool_of`.
    """
    found = []
    for row, subject in zip(errors.tolist(), subjects, strict=True):
        nearest = sorted(range(len(pool)), key=lambda index: (row[index], index))
        # A prompt that contains the subject, or is contained in it, is no other thing.
        others = [pool[index] for index in nearest if not _same(pool[index], subject)]
        found.append(tuple(others[:ALIKE]))
    return found


def _same(one: str, other: str) -> bool:
    words, others = set(one.lower().split()), set(other.lower().split())
    return words <= others or others <= words
