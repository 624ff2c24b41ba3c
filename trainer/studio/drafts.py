"""Where a run is prepared: settings, images, captions, and what would come of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer import config as configs
from trainer.bases import tokens
from trainer.bases.describe import BaseInfo, Bases
from trainer.config import RunConfig
from trainer.config.sections import focus_points, repeat_counts
from trainer.data.captions import compose, find_replace, from_names
from trainer.data.decoder import Source
from trainer.data.doctor import about_the_set
from trainer.data.folder import list_images
from trainer.data.repeats import folder_repeats
from trainer.data.suffixes import IMAGE_SUFFIXES
from trainer.errors import ImageError, PatinaError, StudioError
from trainer.studio.estimate import PastRuns, estimate, file_bytes, foretold, resolved, side_multiple
from trainer.studio.folder import StudioFolder, new_id
from trainer.studio.images import DraftImages, image_id_of, told_by_id
from trainer.studio.machine import Device
from trainer.studio.store import RunRow, State, Store
from trainer.studio.views import AddReport, DraftView, ImageSet, PlanView, SampleSet
from trainer.study.heats import FACTORS, cost_of, heats_of
from trainer.training.run_folder import Origin, RunFolder

START_BYTES = 256 * 2**20
"""What a run writes at least: caches, checkpoints, samples."""
DEFAULT_NAME = "My style"


class Drafts:
    """DraftImages and what is asked about them.

    Args:
        device: the device that would train, with its memory.
    """

    def __init__(
        self,
        home: StudioFolder,
        store: Store,
        images: DraftImages,
        bases: Bases,
        past: PastRuns,
        device: Callable[[], Device],
    ) -> None:
        self._home, self._store, self._images = home, store, images
        self._bases, self._past, self._device = bases, past, device

    def samples(self) -> list[SampleSet]:
        """Styles that come along, for the first visit; an installed wheel has none."""
        return sample_sets()

    # ---- making drafts

    def create(self, settings: Mapping[str, Any] | None = None) -> str:
        """A new draft; ``settings`` as in `update`. Returns its id."""
        tree = _changed({"name": DEFAULT_NAME}, settings or {})
        run_id = new_id("run")
        self._store.add(run_id, str(tree["name"]), tree)
        self._home.images(run_id).mkdir(parents=True, exist_ok=True)
        return run_id

    def create_from_samples(self, name: str) -> str:
        """A new draft filled with a sample set's images and captions, ready to train. Returns its id."""
        chosen = next((each for each in sample_sets() if each.name == name), None)
        if chosen is None:
            raise StudioError(f"There is no sample style {name!r} in this installation.")
        run_id = self.create(_sample_settings(chosen))
        self._add_folder(run_id, chosen.folder)
        return run_id

    def plan_from_samples(self, sample: SampleSet) -> PlanView:
        """What `create_from_samples` would lead to, as `plan` says of the draft."""
        return self._plan(_changed({"name": DEFAULT_NAME}, _sample_settings(sample)), sample.images)

    def duplicate(self, run_id: str, *, without: str = "") -> str:
        """A new draft with a run's settings, images and captions. Returns its id.

        Args:
            without: file name of an image to leave out; it can be brought back.
        """
        run = self._store.get(run_id)
        tree = copy.deepcopy(run.settings)
        images = tree.get("data", {}).pop("images", "")
        tree["name"] = f"{run.name[:70]} again"
        target = self.create()
        self._store.set_settings(target, _checked(tree))
        if self._images.images(run_id):
            self._images.copy(run_id, target)
            if without:
                self._images.remove(target, Path(without).stem)
        elif images and Path(images).is_dir():
            # A run of the command line: its images lie wherever the user has them.
            self._add_folder(target, Path(images))
        left_out = self.image_titles(run_id).get(without, without)
        RunFolder(self._home.run(target)).write_origin(Origin(run=run_id, name=run.name, without=left_out))
        return target

    def image_titles(self, run_id: str) -> dict[str, str]:
        """File name of each of a run's images -> the name it was uploaded with."""
        return {self._images.path(run_id, image.id).name: image.name for image in self._images.images(run_id)}

    def update(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Set settings by dotted path, e.g. ``{"optim.learning_rate": 1e-4}``; None resets to *chosen for you*.

        Raises:
            ConfigError: names the field, the value and what is allowed; nothing is changed then.
        """
        with self._store.db.transaction():
            self._store.set_settings(run_id, _changed(self._store.get(run_id).settings, values))

    def add_images(
        self, run_id: str, files: Sequence[str | Path], folders: Mapping[Path, str] | None = None
    ) -> AddReport:
        """Take uploaded files into a draft: decoded and re-encoded in a child process with limits.

        ``.txt`` files among them become captions of the images of the same name, ``cat-mask.png`` the mask of ``cat``.
        Takes up to seconds.

        Args:
            folders: by file, the name of the folder that it came from, which may say how often its images come.
        """
        run = self._draft(run_id)
        background = str(run.settings.get("data", {}).get("background", "white"))
        added, refused = self._images.add(run_id, [Path(file) for file in files], background=background)
        if asked := _asked_by(folders or {}, added):
            before = repeat_counts(self._config(self._store.get(run_id)).data.repeats)
            self.update(run_id, {"data.repeats": self._repeats(run_id, {**before, **asked})})
        return AddReport(tuple(added), tuple(refused))

    def sets(self, run_id: str) -> list[ImageSet]:
        """The sets of images that other runs have and this one has not, each once, by the newest of their runs."""
        by_run = self._images.by_run()
        mine = set(by_run.get(run_id, ()))
        found: dict[tuple[str, ...], ImageSet] = {}
        for run in sorted(self._store.all(), key=lambda run: -run.created):
            ids = by_run.get(run.id, ())
            if not mine.issuperset(ids):
                found.setdefault(ids, ImageSet(run.id, run.name, len(ids)))
        return list(found.values())

    def add_set(self, run_id: str, source: str) -> None:
        """Add the images of another run, with their captions, masks and parts, and how often they come.

        Raises:
            StudioError: there is no such run, or they would be too many.
        """
        self._draft(run_id)
        other, own = (self._config(self._store.get(run)).data for run in (source, run_id))
        self._images.copy(source, run_id)
        repeats = {**repeat_counts(other.repeats), **repeat_counts(own.repeats)}
        focus = {**focus_points(other.focus), **focus_points(own.focus)}
        told = {"data.repeats": self._repeats(run_id, repeats), "data.focus": self._focus(run_id, focus)}
        self.update(run_id, told)

    def remove_image(self, run_id: str, image_id: str) -> None:
        """Take an image out of a draft; `restore_image` brings it back with its caption."""
        self._draft(run_id)
        self._images.remove(run_id, image_id)

    def restore_image(self, run_id: str, image_id: str) -> None:
        """Bring back an image that was taken out."""
        self._draft(run_id)
        self._images.restore(run_id, image_id)

    def crop_image(self, run_id: str, image_id: str, box: tuple[float, float, float, float] | None) -> None:
        """Use a part of an image; see `DraftImages.crop`."""
        self._draft(run_id)
        self._images.crop(run_id, image_id, box)

    def focus_image(self, run_id: str, image_id: str, point: tuple[float, float]) -> None:
        """Keep a point of an image in the middle where the image is cut, as far as the image goes.

        Args:
            point: shares of its width and height from the upper left corner; what is outside is moved to its edge.
        """
        run = self._draft(run_id)
        x, y = (min(1.0, max(0.0, share)) for share in point)
        asked = {**focus_points(self._config(run).data.focus), image_id: (x, y)}
        self.update(run_id, {"data.focus": self._focus(run_id, asked)})

    def repeat_image(self, run_id: str, image_id: str, times: int) -> None:
        """Have an image come so often beside the others; how long it trains is set by the steps.

        Raises:
            ConfigError: it is no number from 1 to `trainer.config.sections.MOST_REPEATS`.
        """
        run = self._draft(run_id)
        asked = {**repeat_counts(self._config(run).data.repeats), image_id: times}
        self.update(run_id, {"data.repeats": self._repeats(run_id, asked)})

    def _repeats(self, run_id: str, asked: Mapping[str, int]) -> list[str]:
        """Lines for ``data.repeats`` that name the images as they lie in the run's folder."""
        counts = told_by_id(self._images.images(run_id), asked)
        return [f"{name}={count}" for name, count in counts.items() if count != 1]

    def _focus(self, run_id: str, points: Mapping[str, tuple[float, float]]) -> list[str]:
        """Lines for ``data.focus``, as `_repeats` names the images."""
        found = told_by_id(self._images.images(run_id), points)
        return [f"{name}={x:g},{y:g}" for name, (x, y) in found.items()]

    # ---- captions

    def set_captions(self, run_id: str, captions: Mapping[str, str]) -> int:
        """Set captions by image id; images that are not named keep theirs. Returns how many changed."""
        self._draft(run_id)
        return self._images.set_captions(run_id, captions)

    def captions_add(self, run_id: str, words: str) -> int:
        """Put words (a trigger, say) behind every caption that lacks them; returns how many changed."""
        return self.set_captions(run_id, {key: compose(text, words) for key, text in self._captions(run_id).items()})

    def captions_replace(self, run_id: str, find: str, replacement: str) -> int:
        """Replace whole words in all captions; returns how many changed."""
        return self.set_captions(run_id, find_replace(self._captions(run_id), find, replacement))

    def captions_from_names(self, run_id: str) -> int:
        """Fill empty captions from meaningful file names; returns how many changed."""
        empty = {image.id: image.name for image in self._images.images(run_id) if not image.caption}
        named = from_names(empty.values())
        return self.set_captions(run_id, {key: named[name] for key, name in empty.items()})

    def token_counts(self, run_id: str) -> dict[str, tokens.TokenCount]:
        """Image id -> the tokens of its caption with the trigger, as the base's text encoder reads them."""
        config = self._config(self._store.get(run_id))
        info = self._bases.of(config)
        captions = self._captions(run_id)
        return {key: tokens.counted(compose(text, config.trigger), info) for key, text in captions.items()}

    # ---- looking

    def view(self, run_id: str) -> DraftView:
        """A draft (or the images and settings of any run) with findings for every image."""
        run = self._store.get(run_id)
        config = self._config(run)
        info = self._bases.of(config)
        limit = tokens.token_limit(info)
        multiple = side_multiple(info)
        shown = [
            self._images.view(
                run_id,
                removed=removed,
                resolution=max(multiple, config.data.resolution or info.resolution or 512),
                multiple=multiple,
                buckets=config.data.buckets,
                trigger=config.trigger,
                count_tokens=lambda text: tokens.token_count(text, info),
                token_limit=limit,
                focus=focus_points(config.data.focus),
                repeats=repeat_counts(config.data.repeats),
                masks=config.data.masks,
            )
            for removed in (False, True)
        ]
        findings = [finding for image in shown[0] for finding in image.findings]
        about = about_the_set([image.caption for image in shown[0]], config.trigger)
        origin = RunFolder(self._home.run(run_id)).origin()
        return DraftView(run_id, run.name, run.settings, tuple(shown[0]), tuple(shown[1]), (*about, *findings), origin)

    def plan(self, run_id: str) -> PlanView:
        """What the draft would do: steps, expected time, memory against the machine, disk space."""
        return self._plan(self._store.get(run_id).settings, len(self._images.images(run_id)))

    def _plan(self, asked: Mapping[str, Any], count: int) -> PlanView:
        config = configs.parse(asked)
        info = self._bases.of(config)
        device = self._device()
        problem = self._problem(info, count)
        full = resolved(config, info, count)
        expected = estimate(full, info, device, self._past)
        notes = list(info.notes)
        notes += foretold(full, info)
        if expected.memory_bytes > device.available:
            way = (
                "Before it starts, Patina looks for the fastest settings that fit, and says so if there are none."
                if device.kind == "cuda"
                else "Close other programs, or choose a smaller resolution or batch."
            )
            notes.append(
                f"At full speed it needs about {expected.memory_bytes / 2**30:.1f} GB, and "
                f"{device.available / 2**30:.1f} GB are free at the moment. {way}"
            )
        seconds = expected.seconds
        if full.optim.find_rate and config.optim.learning_rate is None and full.train.steps:
            more = cost_of(heats_of(len(FACTORS), full.train.steps)) / full.train.steps
            seconds *= 1 + more
            notes.append(
                f"Finding the learning rate takes {more:.1f} times the steps of the training again, and is done first."
            )
        if expected.busy:
            notes.append(
                "Other programs kept this machine busy during the last run like this one, which therefore took longer "
                "than is said here; this one may, too."
            )
        choices = {
            path: value
            for path, value in _leaves(full.model_dump())
            if value is not None and _lookup(asked, path) is None and _lookup(config.model_dump(), path) is None
        }
        return PlanView(
            images=count,
            steps=full.train.steps or 0,
            rank=full.adapter.rank or 0,
            learning_rate=full.optim.learning_rate or 0.0,
            batch_size=full.optim.batch_size or 0,
            resolution=full.data.resolution or 0,
            seconds=seconds,
            memory_bytes=expected.memory_bytes,
            memory_available_bytes=device.available,
            file_bytes=file_bytes(full, info),
            source="measured" if expected.measured else "estimated",
            problem=problem,
            notes=tuple(notes),
            choices=choices,
            cards=device.count,
        )

    def ready(self, run_id: str) -> RunConfig:
        """A draft's settings as its run folder should hold them.

        Raises:
            ConfigError, DatasetError, BaseError, StudioError: it cannot be trained, and why.
        """
        run = self._store.get(run_id)
        config = self._config(run)
        problem = self._problem(self._bases.of(config), len(self._images.images(run_id)))
        if problem:
            raise StudioError(problem)
        self._home.require_space(START_BYTES, "Training")
        config.data.images = str(self._home.images(run_id))
        config.data.repeats = self._repeats(run_id, repeat_counts(config.data.repeats))
        config.data.focus = self._focus(run_id, focus_points(config.data.focus))
        self._images.lay_masks(run_id, config.data.masks)
        return config

    def _problem(self, info: BaseInfo, images: int) -> str:
        if info.problem is not None:
            return info.problem
        return "" if images else "There are no images yet: add 8 to 50 pictures of one style."

    def _config(self, run: RunRow) -> RunConfig:
        return configs.parse(run.settings)

    def _captions(self, run_id: str) -> dict[str, str]:
        return {image.id: image.caption for image in self._images.images(run_id)}

    def _draft(self, run_id: str) -> RunRow:
        run = self._store.get(run_id)
        if run.state is not State.DRAFT:
            raise StudioError(f"{run.name} has started with its images. Duplicate it to train with others.")
        return run

    def _add_folder(self, run_id: str, folder: Path) -> None:
        images, _ = list_images(folder)
        inner = {image: image.parent.name for image in images if image.parent != folder}
        beside = [path for path in folder.rglob("*") if path.suffix == ".txt" or path.name == "metadata.jsonl"]
        self.add_images(run_id, [*images, *beside], inner)


def _asked_by(folders: Mapping[Path, str], added: Sequence[str]) -> dict[str, int]:
    """Image id -> how often the folder that it came from asks for it, of those that were added."""
    asked: dict[str, int] = {}
    for file, name in folders.items():
        times = folder_repeats(name) or 1
        if times > 1 and file.suffix.lower() in IMAGE_SUFFIXES:
            # What cannot be read was refused by name before.
            with suppress(ImageError, OSError):
                asked[image_id_of(Source.read(file))] = times
    return {image_id: times for image_id, times in asked.items() if image_id in added}


def sample_sets() -> list[SampleSet]:
    """The sample styles of a source checkout; an installed wheel has none."""
    root = Path(__file__).parents[2] / "sample_data"
    sets: list[SampleSet] = []
    for folder in sorted(root.glob("*")):
        try:
            images, _ = list_images(folder)
        except PatinaError:
            continue
        if not images or folder.name == "sheets":
            continue
        sheet = root / "sheets" / f"{folder.name}.png"
        title = folder.name.replace("_", " ").replace("-", " ").capitalize()
        sets.append(SampleSet(folder.name, title, folder, len(images), sheet if sheet.is_file() else None))
    return sets


def _sample_settings(sample: SampleSet) -> dict[str, Any]:
    return {"name": sample.title, "trigger": f"{sample.title.lower()} style", "train.preset": "quick"}


def _changed(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes by dotted path, checked as a whole."""
    changed = copy.deepcopy(dict(tree))
    for path in (path for path, value in values.items() if value is None):
        _drop(changed, path.split("."))
    return _checked(configs.overlay(changed, values))


def _checked(tree: Mapping[str, Any]) -> dict[str, Any]:
    config = configs.parse({"name": DEFAULT_NAME, **tree})
    return config.model_dump(exclude_unset=True, exclude_none=True)


def _drop(tree: dict[str, Any], path: Sequence[str]) -> None:
    node: Any = tree
    for branch in path[:-1]:
        node = node.get(branch, {})
    node.pop(path[-1], None)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        found += _leaves(value, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", value)]
    return found


def _lookup(tree: Mapping[str, Any], path: str) -> Any:
    node: Any = tree
    for branch in path.split("."):
        node = node.get(branch) if isinstance(node, Mapping) else None
    return node
