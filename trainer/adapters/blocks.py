"""How strongly a style counts in each part of a UNet: below, in the middle, above, and in SDXL's two telling blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from trainer.adapters.targets import HALVES
from trainer.errors import ConfigError

BLOCKS: Mapping[str, str] = {
    "down": r"down_blocks\..*",
    "mid": r"mid_block\..*",
    "up": r"up_blocks\..*",
    **HALVES,
}
"""Name -> the layers it means, as paths inside the denoiser; a later one counts where two mean the same."""
MOST = 4.0


def read_blocks(text: str, setting: str = "blocks") -> dict[str, float]:
    """``down=0.5, style=0`` as factors on a style's strength; blocks that are not named count 1.

    Raises:
        ConfigError: an unknown block, or a factor that is no number from 0 to 4.
    """
    factors: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if name not in BLOCKS or not 0 <= factor <= MOST:
            raise ConfigError(
                f"{setting} is {text!r}, but should be names with numbers from 0 to {MOST:g}, such as "
                f"'down=0.5, up=1'; the names are {', '.join(BLOCKS)}."
            )
        factors[name] = factor
    return factors


def blocks_text(factors: Mapping[str, float]) -> str:
    """Factors as `read_blocks` reads them, without those that change nothing; empty where all are 1."""
    # What is said of SDXL's two blocks, which lie above, counts in place of what is said of all that lies there.
    said = {name: factors.get("up", 1.0) if name in HALVES else 1.0 for name in factors}
    return ", ".join(f"{name}={factor:g}" for name, factor in factors.items() if factor != said[name])


def factor_of(path: str, factors: Mapping[str, float]) -> float:
    """Of a layer by its path inside the denoiser or behind the denoiser's root; 1 for every layer elsewhere."""
    factor = 1.0
    for name, pattern in BLOCKS.items():
        if name in factors and re.fullmatch(rf"(?:unet\.)?{pattern}", path):
            factor = factors[name]
    return factor
