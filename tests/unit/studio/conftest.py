"""What the studio's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from studio_parts import Parts, put_together


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A studio in which nothing is trained."""
    together = put_together(tmp_path / "studio")
    yield together
    together.store.db.close()


@pytest.fixture
def uploads(tmp_path: Path) -> list[Path]:
    """Five different pictures of 128 x 128 pixels with names that say what they show."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    files = []
    for index, name in enumerate(("red apple", "blue-car", "IMG_0042", "green_tree", "house2")):
        image = Image.new("RGB", (128, 128), "white")
        draw = ImageDraw.Draw(image)
        # Different shapes in different places: look-alikes would be found.
        box = (8 + 20 * index, 8, 60 + 15 * index, 30 + 20 * index)
        (draw.rectangle if index % 2 else draw.ellipse)(box, fill=(50 * index, 200 - 40 * index, 90), outline="black")
        files.append(folder / f"{name}.png")
        image.save(files[-1])
    return files
