"""A part of a style: the layers of some blocks."""

from __future__ import annotations

from trainer.adapters.targets import HALVES, TARGETS, matching
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError, ConfigError
from trainer.styles.file import StyleFile, likely_family
from trainer.styles.metadata import family_of
from trainer.workbench.made import Made, described, name_of, source


def split(file: StyleFile, keep: str, *, name: str = "") -> tuple[Made, Made | None]:
    """The layers that ``keep`` names, and the rest of the style; None where nothing is left.

    Args:
        keep: ``style`` or ``content`` (SDXL), a named target such as ``self``, or a regular expression that matches
            whole paths, with their root (``te1.text_model...``) or, of the UNet, without it.
        name: of the kept part; empty is the style's own with ``keep`` behind it.

    Raises:
        ConfigError: the expression is broken, or matches no layer or every one.
        AdapterFileError: halves are asked of a style for another family than SDXL.
    """
    if keep in HALVES and (family_of(file.metadata) or likely_family(file.layers)) not in (
        "sdxl",
        "Stable Diffusion XL",
    ):
        raise AdapterFileError(
            f"{file.path} is not known to be for Stable Diffusion XL, whose blocks alone are known to hold style and "
            "content apart: give --keep a regular expression over its layers' paths instead."
        )
    pattern = HALVES.get(keep) or TARGETS.get(keep, keep)
    inner = {path: path.partition(".")[2] if path.startswith("unet.") else path for path in file.layers}
    wanted = set(matching(pattern, [*inner.values(), *file.layers], setting="--keep"))
    kept = {path: layer for path, layer in file.layers.items() if path in wanted or inner[path] in wanted}
    if not kept:
        examples = ", ".join(list(inner.values())[:: max(1, len(inner) // 3)][:3])
        raise ConfigError(f"--keep {keep!r} matches no layer of {file.path}; its layers have paths such as {examples}.")
    title = name_of(file)
    short = keep if keep in HALVES or keep in TARGETS else "part"
    rest = {path: layer for path, layer in file.layers.items() if path not in kept}
    return (
        _part(file, kept, keep, name or f"{title} {short}"),
        _part(file, rest, f"all but {keep}", f"{title} rest") if rest else None,
    )


def _part(file: StyleFile, layers: dict[str, LayerWeights], keep: str, name: str) -> Made:
    settings = {"keep": keep, "layers": len(layers)}
    metadata = described("split", [file], layers, of=[source(file)], name=name, settings=settings)
    return Made(layers, metadata, (*file.notes, f"{len(layers)} of {len(file.layers)} layers."))
