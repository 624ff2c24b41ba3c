"""Counting a caption's tokens as the base's text encoder will, without loading the base or torch.

Stable Diffusion's text encoders all read CLIP's byte-pair encoding (Radford et al. 2021): text in lower case, split
into words, numbers digit by digit, and marks; each word is then merged from its bytes.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.bases.describe import BaseInfo
from trainer.bases.sources import BUNDLED_FOLDER

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BASES = BUNDLED_FOLDER.parent
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
READ_TOKENS = 75
"""Of the 77 that CLIP reads, without the marks of start and end."""


def token_count(text: str, info: BaseInfo) -> int:
    """Tokens of a text without the marks of start and end."""
    return len(_tokenizer(_folder(info)).encode(text, add_special_tokens=False).ids)


def token_limit(info: BaseInfo) -> int:
    """How many tokens the base reads."""
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
