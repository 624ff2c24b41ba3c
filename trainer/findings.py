"""What is worth knowing about the images: one finding a row in the tables of terminal and browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "unreadable",
    "exact_duplicate",
    "near_duplicate",
    "too_small",
    "aspect",
    "rotated",
    "transparent",
    "animated",
    "caption_missing",
    "caption_long",
    "caption_encoding",
    "caption_unmatched",
    "caption_language",
    "caption_tags",
    "not_read",
    "repeats",
    "no_images",
    "few_images",
    "many_images",
    "mask",
]

Severity = Literal["skipped", "warning", "note"]
"""`skipped`: the image is not trained on. `warning`: it is, but the result may suffer. `note`: it
was taken care of."""


@dataclass(frozen=True)
class Finding:
    """One thing about one image, or about the whole set.

    `image` is the image's name (or its folder's, or empty for the set), `message` says what is so, `action` what is
    done about it; both are plain text without a full stop.
    """

    image: str
    kind: Kind
    severity: Severity
    message: str
    action: str
