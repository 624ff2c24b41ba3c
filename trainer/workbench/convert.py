"""A style file in another layout or number format; nothing about the style changes."""

from __future__ import annotations

from trainer.styles.file import StyleFile, readers_of
from trainer.workbench.made import Made, described, name_of, source


def convert(file: StyleFile) -> Made:
    """The very same layers, to be written in any layout and type."""
    name = name_of(file)
    metadata = described("convert", [file], file.layers, of=[source(file)], name=name)
    # What the maker wrote of rank and network holds still, DoRA's and differing ranks included.
    kept = {key: value for key, value in file.metadata.items() if key.startswith("ss_network_")}
    return Made(dict(file.layers), metadata | kept, file.notes + readers_of(file.layers))
