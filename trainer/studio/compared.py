"""Two runs side by side: what was set differently, which images, how they learned, and the same prompts of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.errors import PatinaError
from trainer.events import Sampled, Validated
from trainer.judging.judgement import Judgement, from_json
from trainer.studio.run_log import RunLog
from trainer.training.run_folder import Origin, RunFolder

_WHERE = ("name", "data.images", "train.threads")
"""Settings that say where a run lies or works, and nothing of what it learns."""


@dataclass(frozen=True)
class Side:
    """One of two runs.

    Attributes:
        run: its folder's name.
        loss_steps, losses: one point for each optimizer step; same length.
        kept: step and strength that its file holds; None where nothing was judged.
        style, subject: scores of that; None likewise.
        origin: the run that it repeats.
    """

    run: str
    name: str
    folder: Path
    step: int
    seconds: float | None
    images: int
    loss_steps: tuple[int, ...]
    losses: tuple[float, ...]
    validation: tuple[Validated, ...]
    kept: tuple[int, float] | None
    style: float | None
    subject: float | None
    origin: Origin | None


@dataclass(frozen=True)
class Setting:
    """A setting of which the runs have other values; None is one that a run does not have."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Pair:
    """The pictures that both runs drew of a prompt, which is without the triggers; paths are absolute."""

    prompt: str
    first: Path
    second: Path


@dataclass(frozen=True)
class Compared:
    """Two runs and what differs between them.

    Attributes:
        only_first, only_second: names of images that one of them alone learned from.
        captions: names of images that both have under other captions.
        pairs: in the order of the first run's prompts.
        notes: sentences on what makes the comparison unfair.
    """

    first: Side
    second: Side
    settings: tuple[Setting, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    captions: tuple[str, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_plain))
        return plain


def compared(
    first: RunFolder,
    second: RunFolder,
    *,
    titles: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Compared:
    """Put two runs side by side, by what lies in their folders; nothing is drawn.

    Args:
        titles: what the user calls images, by file name.
        names: what the user calls the runs now, by folder; else they have the names of their settings.

    Raises:
        RunError, ConfigError: a folder is no run's, or its settings do not hold.
    """
    ours, theirs = _Read(first, names or {}), _Read(second, names or {})
    known = titles or {}
    mine, others = ours.images, theirs.images
    return Compared(
        first=ours.side,
        second=theirs.side,
        settings=_differing(ours.settings, theirs.settings),
        only_first=tuple(known.get(name, name) for key, (name, _) in mine.items() if key not in others),
        only_second=tuple(known.get(name, name) for key, (name, _) in others.items() if key not in mine),
        captions=tuple(
            known.get(name, name)
            for key, (name, caption) in mine.items()
            if key in others and others[key][1] != caption
        ),
        pairs=_pairs(ours, theirs),
        notes=tuple(_notes(ours, theirs)),
    )


class _Read:
    """What lies in a run's folder."""

    def __init__(self, folder: RunFolder, names: Mapping[str, str]) -> None:
        self.folder = folder
        self.name = names.get(folder.path.name, "")
        config = folder.config()
        self.settings = dict(_leaves(config.model_dump()))
        self.trigger = config.trigger
        self.standing = RunLog(folder.events_file).read()[0]
        self.judgement = _judgement(folder)
        self.images = _images(folder)

    @property
    def side(self) -> Side:
        judged, standing = self.judgement, self.standing
        kept = None if judged is None else judged.find(*judged.kept)
        return Side(
            run=self.folder.path.name,
            name=self.name or str(self.settings["name"]),
            folder=self.folder.path,
            step=standing.step,
            seconds=standing.finished.seconds if standing.finished is not None else None,
            images=len(self.images),
            loss_steps=tuple(standing.loss_steps),
            losses=tuple(standing.losses),
            validation=tuple(standing.validated),
            kept=None if judged is None else judged.kept,
            style=None if kept is None else kept.style,
            subject=None if kept is None else kept.subject,
            origin=self.folder.origin(),
        )

    @property
    def shown(self) -> dict[str, Path]:
        """Pictures by prompt without the trigger: of the step that the file holds, else the newest."""
        drawn = self.standing.sampled
        if not drawn:
            return {}
        kept = self.judgement.kept[0] if self.judgement is not None else None
        steps = {sample.step for sample in drawn}
        step = kept if kept in steps else max(steps)
        return {self._plain(sample): self.folder.path / sample.path for sample in drawn if sample.step == step}

    def _plain(self, sample: Sampled) -> str:
        return sample.prompt.removesuffix(self.trigger).rstrip(" ,") if self.trigger else sample.prompt


def _judgement(folder: RunFolder) -> Judgement | None:
    try:
        found = from_json(folder.judgement_file.read_bytes())
        found.find(*found.kept)
    except (OSError, PatinaError):
        return None
    return found


def _images(folder: RunFolder) -> dict[str, tuple[str, str]]:
    """Name and content of each image that was learned from, by the hash of its bytes."""
    try:
        listed = json.loads(folder.dataset_file.read_bytes())["examples"]
        return {str(one["sha256"]): (str(one["name"]), str(one["content"])) for one in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        found += _leaves(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)]
    return found


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Setting, ...]:
    paths = dict.fromkeys([*ours, *theirs])
    return tuple(
        Setting(path, ours.get(path), theirs.get(path))
        for path in paths
        if path not in _WHERE and ours.get(path) != theirs.get(path)
    )


def _pairs(ours: _Read, theirs: _Read) -> tuple[Pair, ...]:
    mine, others = ours.shown, theirs.shown
    return tuple(Pair(prompt, path, others[prompt]) for prompt, path in mine.items() if prompt in others)


def _notes(ours: _Read, theirs: _Read) -> Sequence[str]:
    notes = []
    if ours.settings["base.source"] != theirs.settings["base.source"]:
        notes.append("They were trained on different bases: their losses cannot be compared.")
    held_out = ours.side.validation and theirs.side.validation
    asked = ("data.validation_share", "train.seed")
    if held_out and (
        ours.images.keys() != theirs.images.keys() or any(ours.settings[a] != theirs.settings[a] for a in asked)
    ):
        notes.append("Other images were held out in each: compare their held-out losses with the base's, not directly.")
    if any(ours.settings[f"samples.{name}"] != theirs.settings[f"samples.{name}"] for name in _DRAWING):
        notes.append("Their sample pictures were drawn with other settings, and differ for that too.")
    return notes


_DRAWING = ("negative", "steps", "guidance", "scheduler", "seed")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return value.model_dump() if hasattr(value, "model_dump") else str(value)
