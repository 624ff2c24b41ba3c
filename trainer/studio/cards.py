"""What the library's cards say, read from the style files' own headers.

Whatever stands in a header was written by somebody else: a file that says nonsense of itself gets a card that says
less, and never takes the list down with it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from trainer.bases.families import title_of
from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header, hash_of_tensors, read_header
from trainer.studio.views import StyleCard
from trainer.styles.metadata import family_of

KEPT_FILES = 512
LARGEST_RANK = 99_999
_Identity = tuple[Path, int, int]

logger = logging.getLogger(__name__)


class Cards:
    """Makes cards, and remembers the headers and hashes of files that have not changed since."""

    def __init__(self) -> None:
        self._headers: OrderedDict[_Identity, Header] = OrderedDict()
        self._weights: OrderedDict[_Identity, str] = OrderedDict()

    def card(
        self,
        style_id: str,
        name: str,
        file: Path,
        *,
        created: float,
        origin: Literal["trained", "imported"],
        thumbnails: tuple[Path, ...],
        base: str = "",
        trigger: str = "",
    ) -> StyleCard | None:
        """The card of a file, or None when there is no readable one.

        Args:
            base, trigger: what the studio knows itself, where the file does not say.
        """
        header = self.header(file)
        if header is None:
            return None
        said = header.metadata
        family, rank = "", None
        try:
            family, rank = family_of(said) or "", rank_of(said)
        except Exception:
            logger.exception("The header of %s cannot be understood; its card says less.", style_id)
        return StyleCard(
            id=style_id,
            name=name,
            trigger=said.get("modelspec.trigger_phrase", "") or trigger,
            origin=origin,
            base=base or said.get("ss_sd_model_name", "") or title_of(family),
            family=family,
            rank=rank,
            size_bytes=header.size,
            created=created,
            file=file,
            layout="kohya" if header.has("lora_") else "diffusers",
            thumbnails=thumbnails,
            strength=strength_of(said),
        )

    def header(self, file: Path) -> Header | None:
        """A file's header; None when it is gone or no safetensors file."""
        try:
            key = _identity(file)
            if key not in self._headers:
                self._headers[key] = read_header(file, AdapterFileError)
                _forget_oldest(self._headers)
            return self._headers[key]
        except (OSError, AdapterFileError, KeyError):
            return None

    def weights(self, file: Path) -> str:
        """SHA-256 over a file's tensors, which tells the weights whatever is written around them; empty without one."""
        header = self.header(file)
        if header is None:
            return ""
        try:
            key = _identity(file)
            if key not in self._weights:
                self._weights[key] = hash_of_tensors(header)
                _forget_oldest(self._weights)
            return self._weights[key]
        except (OSError, KeyError):
            return ""


def rank_of(metadata: dict[str, str]) -> int | None:
    """The rank that a file names, or None where it is no number that a rank could be."""
    said = metadata.get("ss_network_dim", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) <= len(str(LARGEST_RANK)) else None


def strength_of(metadata: dict[str, str]) -> float | None:
    """The strength that a file was judged best at, or None where it names none that could be."""
    try:
        strength = float(metadata.get("patina.recommended_strength", ""))
    except ValueError:
        return None
    return strength if 0 < strength <= 4 else None


def _identity(file: Path) -> _Identity:
    status = file.stat()
    return file, status.st_mtime_ns, status.st_size


def _forget_oldest(kept: OrderedDict[_Identity, Header] | OrderedDict[_Identity, str]) -> None:
    while len(kept) > KEPT_FILES:
        kept.popitem(last=False)
