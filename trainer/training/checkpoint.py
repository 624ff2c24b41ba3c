"""Resumable states of a run: written whole or not at all, checked when read, the newest good one wins.

A checkpoint is a folder ``step-000200`` with ``adapter.safetensors``, ``optimizer.safetensors``, optionally
``average.safetensors``, ``state.json``, and last ``manifest.json`` with the SHA-256 of each of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from trainer.atomic import sync_folder
from trainer.errors import RunError, means_full_disk
from trainer.training.run_folder import checkpoint_name, listed

FORMAT = 1


@dataclass
class Checkpoint:
    """A run's state after ``step`` optimizer steps; tensors are named by what they belong to."""

    step: int
    adapter: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def copied(self) -> Checkpoint:
        """The same state, in main memory, where it does not change with the weights."""

        def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

        return replace(
            self,
            adapter=copies(self.adapter),
            optimizer=copies(self.optimizer),
            average=copies(self.average),
        )


def save(checkpoint: Checkpoint, parent: Path, *, keep: int) -> Path:
    """Write a checkpoint below ``parent`` and then remove all but the newest ``keep``.

    Raises:
        RunError: the disk refuses; earlier checkpoints are untouched.
    """
    target = parent / checkpoint_name(checkpoint.step)
    partial = parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        contents = {
            "adapter.safetensors": save_tensors(_plain(checkpoint.adapter)),
            "optimizer.safetensors": save_tensors(_plain(checkpoint.optimizer)),
            "state.json": json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1).encode(),
        }
        if checkpoint.average:
            contents["average.safetensors"] = save_tensors(_plain(checkpoint.average))
        for name, content in contents.items():
            _write_synced(partial / name, content)
        manifest = {"format": FORMAT, "files": {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}}
        _write_synced(partial / "manifest.json", json.dumps(manifest, indent=1).encode())
        sync_folder(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
        sync_folder(parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        way = "Free some space" if means_full_disk(error) else "Look at the disk and the folder's rights"
        raise RunError(f"The checkpoint {target} could not be written: {error.strerror or error}. {way}.") from None
    prune(parent, keep=keep)
    return target


def prune(parent: Path, *, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what crashed attempts left half-written."""
    for stale in parent.glob(".step-*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    for _, old in listed(parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def newest(
    parent: Path, usable: Callable[[Checkpoint], bool] = lambda checkpoint: True
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole and ``usable``, and a sentence for each newer one that is not whole."""
    torn: list[str] = []
    for _, folder in listed(parent):
        try:
            found = read(folder)
        except RunError as error:
            torn.append(f"{error} The one before it is used.")
            continue
        if usable(found):
            return found, torn
    return None, torn


def read(folder: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        RunError: a file is missing or is not what the manifest says.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        contents: dict[str, bytes] = {}
        for name, digest in manifest["files"].items():
            content = (folder / Path(name).name).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise RunError(f"The checkpoint {folder} is damaged ({name} is not what was written).")
            contents[name] = content
        state = json.loads(contents["state.json"])
        return Checkpoint(
            step=state.pop("step"),
            adapter=load_tensors(contents["adapter.safetensors"]),
            optimizer=load_tensors(contents["optimizer.safetensors"]),
            average=load_tensors(contents["average.safetensors"]) if "average.safetensors" in contents else {},
            state=state,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"The checkpoint {folder} is incomplete ({type(error).__name__}).") from None


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
