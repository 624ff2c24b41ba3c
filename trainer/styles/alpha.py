"""Alpha where a file does not say it: what somebody answered, and where the answer is kept.

PEFT and diffusers keep alpha beside the tensors. Where that got lost nothing in the file tells it, and a wrong one
makes the style half or twice as strong; so it is asked for, never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import AdapterFileError, ConfigError

KEY = "patina.alpha"
"""Metadata key for an answer that stays with the file."""

MAX_ALPHA = 1e6
"""Far above any alpha that was ever trained with; what is larger only breaks pictures."""


@dataclass(frozen=True)
class Alpha:
    """What somebody says of a file's alpha.

    Attributes:
        value: alpha as it was trained with; None is each layer's rank, as diffusers takes it.
        by_root: whether it counts ``alpha / sqrt(rank)`` (rsLoRA).
    """

    value: float | None = None
    by_root: bool = False

    @classmethod
    def parse(cls, text: str, *, by_root: bool = False, name: str = "--alpha") -> Alpha:
        """A number, or ``rank``.

        Args:
            name: of the setting, for the error.

        Raises:
            ConfigError: it is neither.
        """
        if text.strip().lower() == "rank":
            return cls(None, by_root)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not usable(value):
            raise ConfigError(
                f"{name} is {text[:40]!r}, but should be the alpha that the style was trained with, such as 16, or "
                "the word rank."
            )
        return cls(value, by_root)

    @classmethod
    def kept(cls, path: Path, metadata: Mapping[str, str]) -> Alpha | None:
        """The answer that a file carries; None where it has none.

        Raises:
            AdapterFileError: there is one that cannot be read.
        """
        text = metadata.get(KEY)
        if text is None:
            return None
        try:
            table = json.loads(text)
            value = table["alpha"]
            if value is not None and (isinstance(value, bool) or not usable(float(value))):
                raise ValueError("no alpha")
            return cls(None if value is None else float(value), table["rslora"] is True)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            raise AdapterFileError(f"{path} is damaged: {KEY} in its metadata is {text[:40]!r}.") from None

    def to_metadata(self) -> dict[str, str]:
        """The answer as a file carries it."""
        return {KEY: json.dumps({"alpha": self.value, "rslora": self.by_root})}

    def of_rank(self, rank: int) -> float:
        """A layer's alpha in the convention ``alpha / rank``."""
        alpha = float(rank) if self.value is None else self.value
        return alpha * math.sqrt(rank) if self.by_root else alpha


BEFORE_ASKED = Alpha()
"""What styles counted by that were taken into a library when nobody asked yet; newer ones carry their answer."""


def usable(alpha: float) -> bool:
    """Whether an alpha is a number that an update can be scaled by."""
    return math.isfinite(alpha) and 0 < abs(alpha) <= MAX_ALPHA
