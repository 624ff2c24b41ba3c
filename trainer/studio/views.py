"""What the studio shows, as plain values: no file handles, no live objects, safe to keep and to compare.

Times are Unix seconds, durations seconds, sizes bytes, sides pixels. Paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer import config as configs
from trainer.config import FileLayout
from trainer.errors import PatinaError
from trainer.events import Notice, Phase, Planned, Sampled, Saved, Validated
from trainer.findings import Finding
from trainer.judging.judgement import Judgement
from trainer.judging.votes import Vote
from trainer.preview.order import PreviewOrder, PreviewRow
from trainer.studio.run_log import Standing
from trainer.studio.store import RunRow, State, Wish
from trainer.training.run_folder import Origin, RunFolder

# ---- drafts


@dataclass(frozen=True)
class ImageView:
    """A training image of a draft.

    Attributes:
        id: the key of everything about this image; never changes when others come or go.
        name: the file's name as it was uploaded.
        path: our own re-encoded copy (PNG), safe to show.
        crop: (left, top, right, bottom) of what training will see, in pixels of the copy.
        bucket: (width, height) it is resized to.
        caption: what the picture shows, without the trigger.
        findings: what is said of it, each under its id.
        part: whether a person chose this part of a larger one.
        repeats: how often it is asked for beside the others.
    """

    id: str
    name: str
    path: Path
    width: int
    height: int
    caption: str
    crop: tuple[int, int, int, int]
    bucket: tuple[int, int]
    findings: tuple[Finding, ...]
    removed: bool = False
    part: bool = False
    repeats: int = 1


@dataclass(frozen=True)
class ImageSet:
    """Images that a run has, under its name."""

    run: str
    name: str
    images: int


@dataclass(frozen=True)
class DraftView:
    """A draft: its settings as a nested mapping (absent: chosen for you), its images in order, and what it repeats."""

    id: str
    name: str
    settings: Mapping[str, Any]
    images: tuple[ImageView, ...]
    removed: tuple[ImageView, ...]
    findings: tuple[Finding, ...]
    origin: Origin | None = None


@dataclass(frozen=True)
class AddReport:
    """What became of uploaded files: ids of new images, and a sentence for each file that was not taken."""

    added: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlanView:
    """What a draft would do; ``None`` where only the start can measure it.

    Attributes:
        source: ``measured`` when a run like this was timed on this machine, else ``estimated``.
        problem: a sentence on why it cannot start, or empty.
        choices: dotted setting -> value that will be used, for everything left to the preset.
        cards: how many there are on this machine, 1 without any.
    """

    images: int
    steps: int
    rank: int
    learning_rate: float
    batch_size: int
    resolution: int
    seconds: float | None
    memory_bytes: int | None
    memory_available_bytes: int
    file_bytes: int | None
    source: Literal["measured", "estimated"]
    problem: str
    notes: tuple[str, ...]
    choices: Mapping[str, Any]
    cards: int = 1


# ---- runs


@dataclass(frozen=True)
class RunSummary:
    """A run in the list; ``queue_place`` counts from 1, ``waits`` is a sentence while it cannot go on by itself yet."""

    id: str
    name: str
    trigger: str
    state: State
    wish: Wish
    step: int
    steps: int
    queue_place: int | None
    created: float
    updated: float
    thumbnail: Path | None
    message: str
    waits: str = ""


@dataclass(frozen=True)
class RunView:
    """Everything about one run.

    Attributes:
        version: changes exactly when something else here does; compare it to skip a tick.
        loss_steps, losses: one point per optimizer step that was reported, raw; same length.
        samples, checkpoints: with paths relative to ``folder``; checkpoints only while they are kept.
        plan: what was announced at the start, with measured time and memory.
        seconds_left: until the file is there, pictures included, or None before the first step.
        samples_per_second: the last reported, or None before the first step.
        adapter: the finished style file.
        sheet: before/after sheet (PNG).
        verified: what was checked about the file, as short texts.
        opens: in which programs it opens, and then, a sentence each, who loses what of it.
        judgement: what was said of the kept states and which of them the file holds; None where none was judged.
        phase: what is being done before, between and after the steps, or while the file is written anew; else None.
        error: a sentence, when it failed, or when its file could not be written anew.
        images_changed: it failed over images that are gone or changed, without which it can go on.
        waits: a sentence while something outside keeps it from going on (a full disk); it goes on by itself later.
        votes: what was voted on its judged states.
        stopped: why it ended by itself before its last step, or empty.
        origin: the run that it repeats with other settings or images.
    """

    id: str
    name: str
    trigger: str
    state: State
    wish: Wish
    version: tuple[float, int]
    settings: Mapping[str, Any]
    step: int
    steps: int
    phase: Phase | None
    loss_steps: tuple[int, ...]
    losses: tuple[float, ...]
    learning_rate: float | None
    validation: tuple[Validated, ...]
    samples: tuple[Sampled, ...]
    checkpoints: tuple[Saved, ...]
    samples_per_second: float | None
    seconds_left: float | None
    plan: Planned | None
    notices: tuple[Notice, ...]
    adapter: Path | None
    sheet: Path | None
    verified: tuple[str, ...]
    seconds: float | None
    error: str
    queue_place: int | None
    created: float
    folder: Path
    waits: str = ""
    judgement: Judgement | None = None
    opens: tuple[str, ...] = ()
    images_changed: bool = False
    origin: Origin | None = None
    stopped: str = ""
    votes: tuple[Vote, ...] = ()

    @classmethod
    def of(
        cls,
        run: RunRow,
        standing: Standing,
        folder: RunFolder,
        *,
        phase: Phase | None,
        judgement: Judgement | None,
        place: int | None,
        waits: str,
        votes: tuple[Vote, ...],
        failed: str,
        version: tuple[float, int],
    ) -> RunView:
        """From the list's row and where the run stands by its log; ``phase`` is what the worker said last."""
        # The worker's own word is newer, and tells of parts done; without one (another studio's run) the log's is left.
        doing = phase if phase is not None else standing.phase
        rewritten = run.state is State.FINISHED and phase is not None
        if not (run.state is State.TRAINING or rewritten) or (doing is not None and doing.name == "training"):
            doing = None
        finished = standing.finished if run.state is State.FINISHED else None
        settings = _chosen_settings(folder, run)
        return cls(
            id=run.id,
            name=run.name,
            trigger=str(run.settings.get("trigger", "")),
            state=run.state,
            wish=run.wish,
            version=version,
            settings=settings,
            step=standing.step,
            steps=standing.steps,
            phase=doing,
            loss_steps=tuple(standing.loss_steps),
            losses=tuple(standing.losses),
            learning_rate=standing.learning_rate,
            validation=tuple(standing.validated),
            samples=tuple(standing.sampled),
            checkpoints=tuple(each for each in standing.saved if (folder.path / each.path).is_dir()),
            samples_per_second=standing.samples_per_second,
            seconds_left=standing.time_left(settings) if run.state is State.TRAINING else None,
            plan=standing.planned,
            judgement=judgement,
            notices=tuple(standing.notices),
            adapter=folder.adapter_file if finished is not None and folder.adapter_file.is_file() else None,
            sheet=folder.path / finished.sheet if finished is not None and finished.sheet else None,
            verified=finished.verified if finished is not None else (),
            opens=finished.opens if finished is not None else (),
            seconds=standing.took if finished is not None else None,
            error=failed,
            images_changed=run.state is State.FAILED and standing.failed is not None and standing.failed.images_changed,
            waits=waits,
            queue_place=place,
            created=run.created,
            folder=folder.path,
            origin=folder.origin(),
            votes=votes,
            stopped=finished.stopped if finished is not None else "",
        )


def _chosen_settings(folder: RunFolder, run: RunRow) -> dict[str, Any]:
    """A run's settings: as the engine resolved them once it has started, before that as they were asked for."""
    if run.state is State.DRAFT:
        return run.settings
    try:
        return configs.read_toml(folder.config_file)
    except PatinaError:
        return run.settings


# ---- pictures

JobState = Literal["queued", "working", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class PictureView:
    """A picture of a job; ``index`` is its row in the order."""

    index: int
    path: Path
    row: PreviewRow


@dataclass(frozen=True)
class JobView:
    """A preview job.

    Attributes:
        done, total: denoising steps over all pictures.
        pictures: those made so far; pictures made before are there at once.
        message: why it waits, failed or was cancelled; a sentence or empty.
    """

    id: str
    state: JobState
    created: float
    done: int
    total: int
    pictures: tuple[PictureView, ...]
    order: PreviewOrder
    message: str


# ---- library


@dataclass(frozen=True)
class StyleCard:
    """A style in the library; ``None`` and empty where its file does not say."""

    id: str
    name: str
    trigger: str
    origin: Literal["trained", "imported", "linked"]
    base: str
    family: str
    rank: int | None
    size_bytes: int
    created: float
    file: Path
    layout: FileLayout
    thumbnails: tuple[Path, ...]
    strength: float | None = None
    """At which it was judged best."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparedView:
    """What differs between two styles.

    Attributes:
        norms: sizes of the two updates at strength 1 (Frobenius norm over all layers).
        angle: between the two updates, radians: 0 is one direction, pi / 2 has nothing in common.
        shared: layers that both change; ``alone`` those that one of them changes alone.
        settings: metadata key -> what each says, where they differ; None is nothing.
        notes: sentences for people.
        shared_directions: of each kind of layer, which of the strongest directions the two write along are the same.
    """

    styles: tuple[str, str]
    names: tuple[str, str]
    norms: tuple[float, float]
    angle: float
    shared: int
    alone: tuple[int, int]
    settings: Mapping[str, tuple[str | None, ...]]
    notes: tuple[str, ...] = ()
    shared_directions: tuple[SharedDirections, ...] = ()


@dataclass(frozen=True)
class SharedDirections:
    """What two styles share in the layers of one kind, see `trainer.workbench.subspaces.Overlap`.

    Attributes:
        similarity: rows over the first style's directions, columns over the second's, 0 to 1.
        by_chance: what the first entry would be for random directions.
    """

    kind: str
    layers: int
    similarity: tuple[tuple[float, ...], ...]
    by_chance: float


@dataclass(frozen=True)
class LayerView:
    """One layer of a style, see `trainer.workbench.anatomy.LayerAnatomy`."""

    path: str
    kind: str
    rank: int
    norm: float
    sizes: tuple[float, ...]
    effective: int
    share: float | None
    factor: float | None


@dataclass(frozen=True)
class AnatomyView:
    """What a style does to each layer.

    Attributes:
        smaller: a rank that would do, None where none of the offered ones does; it keeps ``kept`` of the energy.
        energy: share of a layer's energy that its effective rank holds.
    """

    style: str
    layers: tuple[LayerView, ...]
    smaller: int | None
    kept: float
    energy: float


@dataclass(frozen=True)
class StyleView:
    """A style opened: its card, what its file says (for people), and the run it came from, if it was trained here.

    ``twins`` are the names of other styles with the very same weights.
    """

    card: StyleCard
    metadata: Mapping[str, str]
    inspection: Mapping[str, Any]
    run: RunView | None
    twins: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleSet:
    """A style that comes along to try."""

    name: str
    title: str
    folder: Path
    images: int
    sheet: Path | None


@dataclass(frozen=True)
class MachineView:
    """The machine for the device chip.

    Attributes:
        device: ``cpu``, ``cuda`` or ``mps``, or empty while unknown (no worker has looked yet).
        name: such as ``CPU, 2 cores`` or ``RTX 3060``.
        memory_used_bytes, memory_total_bytes: the accelerator's, or the machine's on a CPU.
        worker: ``off``, ``starting``, ``idle``, ``training`` or ``drawing``.
        disk_full: work waits until there is room on it.
    """

    device: str
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    worker: Literal["off", "starting", "idle", "training", "drawing"]
    disk_full: bool = False
