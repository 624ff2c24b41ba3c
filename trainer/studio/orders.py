"""From what a user orders to what a worker draws: styles become files, and pictures made before are found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from trainer.config import BaseConfig
from trainer.errors import StudioError
from trainer.events import PreviewRow
from trainer.studio import weights
from trainer.studio.home import Home
from trainer.studio.library import Library
from trainer.studio.protocol import Source
from trainer.studio.store import State, Store
from trainer.studio.views import PreviewOrder, StyleUse
from trainer.training.run_folder import RunFolder


def sources_of(order: PreviewOrder, home: Home, store: Store, library: Library) -> tuple[Source, ...]:
    """Where each style of an order lies at this moment.

    Raises:
        StudioError: a style or checkpoint that is not there, or a row with other than one strength a style.
    """
    if not order.rows:
        raise StudioError("Nothing was asked for: write a prompt.")
    for row in order.rows:
        if row.strengths and len(row.strengths) != len(order.styles):
            raise StudioError(f"A picture has {len(row.strengths)} strengths for {len(order.styles)} styles.")
    return tuple(source_of(use, home, store, library) for use in order.styles)


def with_base(order: PreviewOrder, store: Store, library: Library) -> PreviewOrder:
    """The order with a base: the one it names, or else that of its first style that was trained here."""
    if "base" in order.model_fields_set:
        return order
    trained = next((use.style for use in order.styles if not library.is_imported(use.style)), None)
    if trained is None:
        return order
    settings = store.get(trained).settings.get("base", {})
    return order.model_copy(update={"base": BaseConfig.model_validate({"source": "bundled", **settings})})


def weights_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """Which weights each source has at this moment; a training's step is known only once it was drawn with."""
    return tuple(weights.of_file(Path(source.path)) if source.path else weights.live() for source in sources)


def keys_of(order: PreviewOrder, sources: Sequence[Source]) -> list[str]:
    """For each row what decides its pixels, or an empty text when that changes from moment to moment."""
    marks = [_mark(source) for source in sources]
    return [_key(order, row, sources, marks) for row in order.rows]


def source_of(use: StyleUse, home: Home, store: Store, library: Library) -> Source:
    """Where a style lies at this moment; errors as in `sources_of`."""
    if library.is_imported(use.style):
        card = library.card(use.style)
        return Source(name=card.name, path=str(card.file))
    run = store.get(use.style)
    folder = RunFolder(home.run(run.id))
    if use.step:
        checkpoint = folder.checkpoints / f"step-{use.step:06d}"
        if not checkpoint.is_dir():
            raise StudioError(f"{run.name} keeps no checkpoint of step {use.step} any more. Choose a later one.")
        return Source(name=run.name, path=str(checkpoint), run=run.id)
    if run.state is State.TRAINING:
        return Source(name=run.name, run=run.id)
    if run.state is State.FINISHED and folder.adapter_file.is_file():
        return Source(name=run.name, path=str(folder.adapter_file), run=run.id)
    saved = sorted(path for path in folder.checkpoints.glob("step-*") if path.is_dir())
    if not saved:
        raise StudioError(f"{run.name} has learned nothing yet that could be shown. Train it first.")
    return Source(name=run.name, path=str(saved[-1]), run=run.id)


def _mark(source: Source) -> str:
    """What changes when the weights do; empty for the weights in training."""
    if not source.path:
        return ""
    path = Path(source.path)
    try:
        status = (path / "manifest.json" if path.is_dir() else path).stat()
    except OSError:
        return ""
    return f"{source.path}:{status.st_mtime_ns}:{status.st_size}"


def _key(order: PreviewOrder, row: PreviewRow, sources: Sequence[Source], marks: Sequence[str]) -> str:
    # A style at strength 0 changes nothing, so the base's picture serves for every style.
    used = [
        (mark, strength)
        for mark, strength in zip(marks, row.strengths or [0.0] * len(sources), strict=True)
        if strength
    ]
    if not all(mark for mark, _ in used):
        return ""
    facts = {
        "base": order.base.model_dump(),
        "settings": (row.settings or order.settings).model_dump(),
        "prompt": row.prompt,
        "negative": row.negative,
        "seed": row.seed,
        "styles": used,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
