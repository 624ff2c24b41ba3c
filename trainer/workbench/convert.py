"""A style file in another layout or number format; nothing about the style changes."""

from __future__ import annotations

from trainer.adapters.methods import as_loras
from trainer.styles.file import StyleFile, readers_of
from trainer.workbench.made import Made, described, name_of, source


def convert(file: StyleFile) -> Made:
    """The very same layers, to be written in any layout and type; what is not LoRA or DoRA becomes LoRA, exactly."""
    name = name_of(file)
    layers = as_loras(file.layers)
    metadata = described("convert", [file], layers, of=[source(file)], name=name)
    notes = file.notes + readers_of(layers)
    if other := sorted({layer.method for path, layer in file.layers.items() if layer is not layers[path]}):
        return Made(layers, metadata, (*notes, f"What {' and '.join(other)} does is written as LoRA, exactly."))
    # What the maker wrote of rank and network holds still, DoRA's and differing ranks included.
    kept = {key: value for key, value in file.metadata.items() if key.startswith("ss_network_")}
    return Made(layers, metadata | kept, notes)
