"""Pictures that say how they were made, in the text chunk that A1111 and the tools after it read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import PngImagePlugin
from PIL.Image import Image

from trainer.atomic import replace_file
from trainer.config.schedulers import SCHEDULERS
from trainer.preview.generate import Canvas
from trainer.preview.order import PreviewRow


def parameters_of(row: PreviewRow, canvas: Canvas, names: Sequence[str], base: str) -> str:
    """The ``parameters`` text of a picture: prompt with ``<lora:name:strength>``, negative prompt, settings."""
    loras = [f"<lora:{name}:{strength:g}>" for name, strength in zip(names, row.strengths, strict=False) if strength]
    lines = [" ".join([row.prompt, *loras])]
    if row.negative:
        lines.append(f"Negative prompt: {row.negative}")
    lines.append(
        f"Steps: {canvas.steps}, Sampler: {SCHEDULERS[canvas.scheduler].title}, CFG scale: {canvas.guidance:g}, "
        f"Seed: {row.seed}, Size: {canvas.width}x{canvas.height}, Model: {base.replace(',', ' ')}, "
        + (f"Denoising strength: {canvas.change:g}, " if canvas.image else "")
        + "Version: Patina"
    )
    return "\n".join(lines)


def save_png(picture: Image, path: Path, parameters: str) -> None:
    """Write a PNG with its settings; appears under its name only when it is complete."""
    text = PngImagePlugin.PngInfo()
    # Latin-1 goes into a tEXt chunk, everything else into an iTXt one; both are read by the same tools.
    text.add_text("parameters", parameters)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: picture.save(file, "PNG", pnginfo=text))
