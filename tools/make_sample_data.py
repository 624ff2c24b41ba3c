"""Make ``sample_data``: two styles of 16 captioned images, drawn from two openly licensed icon sets.

    python tools/make_sample_data.py

Needs npm on PATH, and the Python packages ``resvg-py`` (draws SVG) and ``pillow``. Neither npm nor
resvg-py is needed to use Patina: the results are part of the repository. The icon sets are fetched
by name and version, so the same pictures come out again.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

SAMPLE_DATA = Path(__file__).resolve().parents[1] / "sample_data"
SIZE = 256  # pixels; icons are drawn square
SHEET_CELL = 96  # pixels
SHEET_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class IconStyle:
    """One icon set, and which of its icons make the style."""

    folder: str
    package: str
    version: str
    licence: str
    palette: int
    """Colours kept per image: the drawings are flat, so a few dozen hold the smooth edges too."""
    icons: tuple[str, ...]


STYLES = (
    IconStyle(
        folder="high_contrast",
        package="@iconify-json/fluent-emoji-high-contrast",
        version="1.2.6",
        licence="MIT, Copyright (c) Microsoft Corporation",
        palette=16,
        icons=(
            "automobile",
            "cat-face",
            "dog-face",
            "elephant",
            "ghost",
            "grinning-face",
            "guitar",
            "hamburger",
            "house",
            "mushroom",
            "owl",
            "rocket",
            "strawberry",
            "teapot",
            "tropical-fish",
            "tulip",
        ),
    ),
    IconStyle(
        folder="streamline",
        package="@iconify-json/streamline-emojis",
        version="1.2.4",
        licence="CC BY 4.0, Streamline",
        palette=64,
        icons=(
            "automobile",
            "cat-face",
            "doughnut-1",
            "grinning-face",
            "house-with-garden",
            "koala",
            "lemon",
            "locomotive",
            "robot-face-1",
            "sailboat",
            "strawberry-1",
            "tropical-fish",
            "tulip",
            "turtle",
            "umbrella",
            "wrapped-gift-1",
        ),
    ),
)


def subject(icon: str) -> str:
    """File stem of an icon: its name without the number that tells variants apart."""
    return re.sub(r"-\d+$", "", icon)


def fetch_icon_set(style: IconStyle) -> dict[str, Any]:
    """The icon set as its package holds it: SVG bodies by name, and their width and height."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", f"{style.package}@{style.version}"],
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/icons.json")
            if member is None:
                raise RuntimeError(f"{style.package}: package/icons.json is not a file")
            icon_set: dict[str, Any] = json.load(member)
    return icon_set


def draw(icon_set: dict[str, Any], name: str) -> Image.Image:
    """One icon on white, RGB, ``SIZE`` pixels square."""
    import resvg_py

    icon = icon_set["icons"][name]
    width = icon.get("width", icon_set["width"])
    height = icon.get("height", icon_set["height"])
    body = icon["body"].replace("currentColor", "#000000")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def contact_sheet(images: list[Image.Image]) -> Image.Image:
    """All images of a style in rows of ``SHEET_COLUMNS``, on white."""
    gap = 8
    rows = -(-len(images) // SHEET_COLUMNS)
    pitch = SHEET_CELL + gap
    sheet = Image.new("RGB", (SHEET_COLUMNS * pitch + gap, rows * pitch + gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, SHEET_COLUMNS)
        cell = ImageOps.contain(image, (SHEET_CELL, SHEET_CELL), Image.Resampling.LANCZOS)
        sheet.paste(cell, (gap + column * pitch, gap + row * pitch))
    return sheet


def save(image: Image.Image, path: Path, *, style: IconStyle, source: str) -> None:
    """Write a small palette PNG that says where it comes from."""
    text = PngInfo()
    text.add_text("Source", f"{style.package} {style.version}: {source}")
    text.add_text("Copyright", style.licence)
    # MEDIANCUT would merge a rare accent colour into its neighbours; FASTOCTREE keeps it.
    flat = image.quantize(style.palette, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # Averaging leaves the paper at 254: put pure white back.
    flat.putpalette([255 if value >= 252 else value for value in flat.getpalette() or []])
    flat.save(path, optimize=True, pnginfo=text)


def make(style: IconStyle) -> None:
    """Write the images, captions and contact sheet of one style."""
    icon_set = fetch_icon_set(style)
    folder = SAMPLE_DATA / style.folder
    sheets = SAMPLE_DATA / "sheets"  # apart from the images, or it would be trained on
    folder.mkdir(parents=True, exist_ok=True)
    sheets.mkdir(exist_ok=True)
    images = []
    for icon in style.icons:
        image = draw(icon_set, icon)
        images.append(image)
        save(image, folder / f"{subject(icon)}.png", style=style, source=icon)
        caption = subject(icon).replace("-", " ") + "\n"
        (folder / f"{subject(icon)}.txt").write_text(caption, encoding="utf-8")
    save(contact_sheet(images), sheets / f"{style.folder}.png", style=style, source="contact sheet")
    print(f"{folder.relative_to(SAMPLE_DATA.parent)}: {len(images)} images")


if __name__ == "__main__":
    for each in STYLES:
        make(each)
