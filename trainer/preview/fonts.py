"""A font that has the letters of what is drawn into a picture: Pillow's own, else one of this machine's."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SYSTEM = (
    "PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "msyh.ttc", "simhei.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "Arial Unicode.ttf", "DejaVuSans.ttf",
)  # fmt: skip
"""File names, looked for where macOS, Windows and Linux keep fonts: those with Chinese letters, then a wide one."""
_NO_LETTER = "\uffff"


def font_for(text: str, size: int) -> Font:
    """The first font that has every letter of ``text``, else the one that lacks fewest. ``size`` in pixels."""
    lacks: dict[Font, int] = {}
    for font in _fonts(size):
        lacks[font] = _lacking(font, text)
        if not lacks[font]:
            break
    return min(lacks, key=lacks.__getitem__)


def can_write(text: str) -> bool:
    """Whether some font of this machine has every letter of ``text``."""
    return any(not _lacking(font, text) for font in _fonts(16))


def _fonts(size: int) -> Iterator[Font]:
    yield ImageFont.load_default(size=size)
    for name in SYSTEM:
        if (font := _opened(name, size)) is not None:
            yield font


@functools.lru_cache(maxsize=64)
def _opened(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _lacking(font: Font, text: str) -> int:
    """How many different letters of a text a font does not have: it draws them as it draws no letter at all."""
    nothing = bytes(font.getmask(_NO_LETTER))
    return sum(bytes(font.getmask(letter)) == nothing for letter in set(text) if not letter.isspace())
