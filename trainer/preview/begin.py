"""Pictures to begin with instead of noise alone: taken in from anybody, and opened again to draw from."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from trainer.atomic import replace_file
from trainer.data.decoder import Decoder, Source
from trainer.errors import ConfigError

MAX_SIDE = 2048
"""Longest side in pixels of what is kept; twice what the largest family draws."""
NAME = re.compile(r"[0-9a-f]{32}\.png")
"""What a kept picture is called."""


def keep_image(source: Path, folder: Path) -> str:
    """Take a picture in: decoded in a child process, written anew; returns its name in the folder.

    Raises:
        ImageError: the file is no image that can be used.
    """
    read = Source.read(source)
    name = f"{read.sha256[:32]}.png"
    if not (folder / name).is_file():
        with Decoder() as decoder:
            picture, _ = decoder.copy(read, max_side=MAX_SIDE)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, lambda file: picture.save(file, "PNG"))
    return name


def begin_image(path: str) -> Image.Image:
    """The picture to begin with: a PNG that Patina wrote itself, so nobody's file is opened here.

    Raises:
        ConfigError: it is not there, or is no such file.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.convert("RGB")
    except OSError:
        raise ConfigError("The picture to begin with is not there any more: choose it again.") from None


def shape_like(size: tuple[int, int], resolution: int, multiple: int) -> tuple[int, int]:
    """Width and height of about ``resolution`` squared pixels in the shape of an image, at most twice as long as wide.

    Args:
        size: (width, height) of the image.
        multiple: what both sides must be a multiple of.
    """
    aspect = min(2.0, max(0.5, size[0] / size[1]))
    sides = resolution * aspect**0.5, resolution / aspect**0.5
    width, height = (max(1, round(side / multiple)) * multiple for side in sides)
    return width, height
