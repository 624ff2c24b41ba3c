"""Counting a caption's tokens as the base's text encoder will, without loading the base or torch.

Stable Diffusion's text encoders all read CLIP's byte-pair encoding (Radford et al. 2021): text in lower case, split
into words, numbers digit by digit, and marks; each word is then merged from its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.bases.describe import BaseInfo
from trainer.bases.prompts import read_weights
from trainer.bases.sources import BUNDLED_FOLDER
from trainer.bases.windows import MOST_WINDOWS, split

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BASES = BUNDLED_FOLDER.parent
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
READ_TOKENS = 75
"""Of the 77 that CLIP reads, without the marks of start and end."""


def token_count(text: str, info: BaseInfo) -> int:
    """Tokens of a text without the marks of start and end."""
    return len(_tokenizer(_folder(info)).encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class TokenCount:
    """The tokens of a text, without marks.

    Attributes:
        windows: in each window that is read.
        limit, window_limit: how many are read of any text, and at once.
        lost: beyond the last window, which nobody reads.
    """

    windows: tuple[int, ...]
    limit: int
    window_limit: int
    lost: int = 0

    @property
    def written(self) -> str:
        """Such as ``72 + 12``: by windows, what nobody reads with the last."""
        return " + ".join(map(str, (*self.windows[:-1], self.windows[-1] + self.lost)))

    @property
    def total(self) -> int:
        """Tokens of the whole text, whether they are read or not."""
        return sum(self.windows) + self.lost


def counted(text: str, info: BaseInfo) -> TokenCount:
    """A caption's tokens as the base's windows hold them (`trainer.bases.windows`)."""
    return _counted([text], info)


def counted_prompt(prompt: str, info: BaseInfo) -> TokenCount:
    """As `counted`, of a prompt: brackets and numbers that weigh words are no tokens, and ``BREAK`` ends a window."""
    return _counted([None if part.weight is None else part.text for part in read_weights(prompt)], info)


def _counted(parts: Sequence[str | None], info: BaseInfo) -> TokenCount:
    size = window_limit(info)
    tokenizer = _tokenizer(_folder(info))
    encoded = [None if part is None else tokenizer.encode(part, add_special_tokens=False).ids for part in parts]
    pieces = [None if ids is None else (ids, 1.0) for ids in encoded]
    windows = [len(window.tokens) for window in split(pieces, size, tokenizer.token_to_id(",</w>"))]
    total = sum(len(ids) for ids in encoded if ids is not None)
    return TokenCount(tuple(windows), MOST_WINDOWS * size, size, total - sum(windows))


def token_limit(info: BaseInfo) -> int:
    """How many tokens the base reads of a text, in all its windows."""
    return MOST_WINDOWS * window_limit(info)


def window_limit(info: BaseInfo) -> int:
    """How many tokens the base's text encoder reads at once."""
    try:
        config = json.loads((_folder(info) / "tokenizer_config.json").read_bytes())
        limit = int(config["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return READ_TOKENS
    return limit - 2 if limit < 10_000 else READ_TOKENS


def _folder(info: BaseInfo) -> Path:
    own = Path(info.source) / "tokenizer" if info.kind == "folder" else None
    if own is not None and own.is_dir():
        return own
    if info.kind == "bundled":
        return BUNDLED_FOLDER / "tokenizer"
    # All published bases share one vocabulary, so a hub's need not be fetched to count.
    return _BASES / "configs" / "clip_tokenizer"


@lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    ready = folder / "tokenizer.json"
    if ready.is_file():
        tokenizer = Tokenizer.from_file(str(ready))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    bytes_to_pairs = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt"), end_of_word_suffix="</w>", continuing_subword_prefix=""
    )
    tokenizer = Tokenizer(bytes_to_pairs)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
