"""What `trainer.adapters.inspect` found, as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.adapters.inspect import Inspection
from trainer.cli.progress import size


def show(found: Inspection, *, every_layer: bool) -> None:
    """Print the facts of a style file, and with ``every_layer`` one row for each of its layers."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, text in _facts(found):
        table.add_row(label, escape(text))
    console.print(table)
    for note in found.notes:
        console.print(escape(note))
    if every_layer:
        console.print(_layers(found))


def _facts(found: Inspection) -> Iterable[tuple[str, str]]:
    yield "File", f"{found.path}, {size(found.bytes)}"
    if found.title:
        yield "Style", found.title
    if found.trigger:
        yield "Trigger", found.trigger
    if found.usage_hint:
        yield "Hint", found.usage_hint
    yield "Layout", f"{found.layout}, {', '.join(found.dtypes)}"
    yield "Rank", f"{_listed(found.ranks)}, alpha {_listed(found.alphas)}, scale {_listed(found.scales)}"
    layers = ", ".join(f"{count} in {root}" for root, count in found.models.items())
    yield "Targets", f"{found.targets}: {layers}; {found.parameters:,} parameters"
    family = found.family or "unknown"
    yield "Base", f"{family} (told from its shapes)" if found.family_guessed and found.family else family
    if found.base_name:
        yield "Trained on", found.base_name
    if found.base_sha256:
        yield "Base's hash", found.base_sha256
    check = {None: "the file names none", True: "as the file says", False: "NOT what the file says"}
    yield "Weights' hash", f"{found.hash} ({check[found.hash_matches]})"
    norms = [layer.norm for layer in found.layers]
    if found.finite:
        strongest = max(found.layers, key=lambda layer: layer.norm)
        yield "Change", f"norms {min(norms):.3g} to {max(norms):.3g}, most in {strongest.path}"
    else:
        yield "Change", "holds values that are not numbers: this file is broken"
    yield from found.training.items()


def _layers(found: Inspection) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Layer", overflow="fold")
    for heading in ("rank", "scale", "norm"):
        table.add_column(heading, justify="right")
    for layer in found.layers:
        table.add_row(escape(layer.path), str(layer.rank), f"{layer.scale:g}", f"{layer.norm:.4g}")
    return table


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values[:4]) + (" ..." if len(values) > 4 else "")
