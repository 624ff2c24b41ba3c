"""``patina convert``: a style file in another layout or number format."""

from __future__ import annotations

from trainer.cli.mending import mending
from trainer.cli.style_files import AlphaTold, File, Format, Out, Precision, RsLora, alpha_told, target


def convert(
    file: File,
    out: Out,
    format: Format = "kohya",  # noqa: A002
    precision: Precision = "fp32",
    alpha: AlphaTold = None,
    rslora: RsLora = False,
) -> None:
    """Write a style file again in another layout or number format; nothing about the style changes."""
    with mending():
        to, told = target(out, format, precision), alpha_told(alpha, rslora=rslora)
        from trainer.styles.read import read_style
        from trainer.workbench.convert import convert as converted

        to.write(converted(read_style(file.expanduser(), alpha=told)))
