"""What `trainer.styles.inspect` found, as a person reads it in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape

from trainer.cli.progress import size
from trainer.styles.inspect import Inspection

_LABELS = {
    "ss_num_train_images": "Images",
    "ss_steps": "Steps",
    "ss_learning_rate": "Learning rate",
    "ss_resolution": "Trained at",
    "ss_total_batch_size": "Batch size",
    "ss_seed": "Seed",
    "ss_clip_skip": "Clip skip",
    "ss_training_started_at": "Started",
    "ss_training_finished_at": "Finished",
    "ss_network_args": "Method",
    "modelspec.date": "Date",
    "patina.version": "Patina",
}
_MOMENTS = {"ss_training_started_at", "ss_training_finished_at"}


def show(found: Inspection, *, every_layer: bool) -> None:
    """Print the facts of a style file, and with ``every_layer`` one row for each of its layers."""
    console = Console(highlight=False, soft_wrap=True)
    for label, text in _facts(found):
        # Hashes and paths stay whole, so that they can be copied.
        console.print(f"[dim]{label:<15}[/]{escape(text)}")
    for note in (*found.opens, *found.notes):
        console.print(escape(note))
    if every_layer:
        console.print("\n rank   scale       norm  layer")
        for layer in found.layers:
            scale = "?" if layer.scale is None else f"{layer.scale:.4g}"
            norm = "?" if math.isnan(layer.norm) else f"{layer.norm:.4g}"
            console.print(f"{layer.rank:>5} {scale:>7} {norm:>10}  {escape(layer.path)}")


def _facts(found: Inspection) -> Iterable[tuple[str, str]]:
    yield "File", f"{found.path}, {size(found.bytes)}"
    if found.title:
        yield "Style", found.title
    if found.trigger:
        yield "Trigger", found.trigger
    if found.usage_hint:
        yield "Hint", found.usage_hint
    yield "Layout", f"{found.layout}, {', '.join(found.dtypes)}"
    if found.methods != ("lora",):
        yield "Made with", ", ".join(found.methods)
    alpha = f"alpha {_listed(found.alphas)}, scale {_listed(found.scales)}" if found.alpha_known else "alpha unknown"
    yield "Rank", f"{_listed(found.ranks)}, {alpha}"
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
    yield "On model sites", f"AutoV2 {found.auto_v2}, AutoV3 {found.auto_v3}"
    known = [layer for layer in found.layers if not math.isnan(layer.norm)]
    if found.finite and known:
        strongest = max(known, key=lambda layer: layer.norm)
        least = min(layer.norm for layer in known)
        yield "Change", f"norms {least:.3g} to {strongest.norm:.3g}, most in {strongest.path}"
    elif found.finite:
        yield "Change", "as large as its alpha says" if not found.alpha_known else "depends on the base"
    else:
        yield "Change", "holds values that are not numbers: this file is broken"
    for key, value in found.training.items():
        if value == "None":  # kohya's way of saying that nothing was set
            continue
        yield _LABELS.get(key, key), _moment(value) if key in _MOMENTS else value


def _moment(text: str) -> str:
    """Unix seconds as a date; other tools may have written anything."""
    try:
        return datetime.fromtimestamp(float(text), UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return text


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values[:4]) + (" ..." if len(values) > 4 else "")
