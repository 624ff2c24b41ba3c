"""``patina resize``: a style at a lower rank."""

from __future__ import annotations

from trainer.cli.mending import mending
from trainer.cli.style_files import Energy, File, Format, Name, Out, Precision, Rank, target


def resize(
    file: File,
    out: Out,
    rank: Rank = None,
    energy: Energy = None,
    name: Name = "",
    format: Format = "kohya",  # noqa: A002
    precision: Precision = "fp32",
) -> None:
    """Make a style file smaller: keep each layer's strongest directions, by number or by their share of its energy."""
    with mending():
        to = target(out, format, precision)
        from trainer.styles.read import read_style
        from trainer.workbench.resize import check
        from trainer.workbench.resize import resize as resized

        check(rank, energy)
        to.write(resized(read_style(file.expanduser()), rank=rank, energy=energy, name=name))
