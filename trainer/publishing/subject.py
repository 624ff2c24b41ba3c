"""What is published: a style's file with its pictures and the facts that go around it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.bases.sources import parse_source
from trainer.config import RunConfig
from trainer.errors import AdapterFileError, BaseError, RunError
from trainer.events import Finished, Sampled
from trainer.judging.judgement import from_json
from trainer.safetensors_file import Header, read_header
from trainer.styles.metadata import TITLE_KEYS, family_of
from trainer.training.run_folder import RunFolder

MOST_PICTURES = 8


@dataclass(frozen=True)
class Picture:
    """A sample: a PNG that carries its parameters, and its prompt."""

    path: Path
    prompt: str


@dataclass(frozen=True)
class Subject:
    """A style with what is known of it.

    Attributes:
        header: of its file, as it lies here.
        family: key of its base's family, or another tool's name for one; empty where nobody says.
        base: hub id of its base; empty where it was no model of the hub.
        strength: at which it was judged best, or None.
        pictures: samples of the weights in the file, or of the nearest step there are any of.
        sheet: base beside style.
        config: the run's settings, of a style that was trained here.
    """

    header: Header
    name: str
    trigger: str = ""
    family: str = ""
    base: str = ""
    strength: float | None = None
    author: str = ""
    license: str = ""
    hint: str = ""
    pictures: tuple[Picture, ...] = ()
    sheet: Path | None = None
    config: RunConfig | None = None

    @property
    def stem(self) -> str:
        """The name of its file, without ending."""
        return RunConfig.model_construct(name=self.name).file_stem


def of_run(folder: RunFolder, file: Path | None = None) -> Subject:
    """A finished run's style.

    Args:
        file: the style in another layout; None is the run's own file.

    Raises:
        RunError: it is no run folder, or the run has no style yet.
        AdapterFileError: its file cannot be read.
    """
    config = folder.config()
    if not folder.adapter_file.is_file():
        raise RunError(f"{folder.path} has no style yet: let its training finish first.")
    events = list(folder.events())
    end = next((event for event in reversed(events) if isinstance(event, Finished)), None)
    samples = [event for event in events if isinstance(event, Sampled)]
    return _subject(
        read_header(file or folder.adapter_file, AdapterFileError),
        name=config.name,
        pictures=_pictures(folder, samples, None if end is None else end.picked_step),
        sheet=folder.sheet_file if folder.sheet_file.is_file() else None,
        strength=_judged(folder),
        config=config,
    )


def of_file(file: Path, name: str = "", pictures: Iterable[Path] = ()) -> Subject:
    """A style file, whoever made it.

    Args:
        name: empty is what the file says, or else the file's own.
        pictures: PNG files that show it.

    Raises:
        AdapterFileError: it cannot be read.
    """
    header = read_header(file, AdapterFileError)
    if not any("lora" in key for key in header.entries):
        raise AdapterFileError(f"{file} holds no LoRA weights, so it is no style that can be published.")
    title = next((header.metadata[key] for key in TITLE_KEYS if header.metadata.get(key)), file.stem)
    return _subject(header, name=name or title, pictures=tuple(Picture(path, "") for path in pictures))


def _subject(
    header: Header,
    *,
    name: str,
    pictures: tuple[Picture, ...] = (),
    sheet: Path | None = None,
    strength: float | None = None,
    config: RunConfig | None = None,
) -> Subject:
    said = header.metadata
    if strength is None:
        try:
            strength = float(said.get("patina.recommended_strength", ""))
        except ValueError:
            strength = None
    return Subject(
        header=header,
        name=name,
        trigger=said.get("modelspec.trigger_phrase", "") or (config.trigger if config else ""),
        family=family_of(said) or "",
        base=_hub_id(config.base.source if config else said.get("ss_sd_model_name", "")),
        strength=strength if strength is not None and 0 < strength <= 4 else None,
        author=said.get("modelspec.author", ""),
        license=said.get("modelspec.license", ""),
        hint=said.get("modelspec.usage_hint", ""),
        pictures=pictures,
        sheet=sheet,
        config=config,
    )


def _pictures(folder: RunFolder, samples: Iterable[Sampled], picked: int | None) -> tuple[Picture, ...]:
    """The samples of the step whose weights the file holds, or of the nearest later or else earlier one."""
    there: dict[int, dict[int, Picture]] = {}
    for each in samples:
        path = folder.path / each.path
        if path.is_file() and each.step:
            there.setdefault(each.step, {})[each.index] = Picture(path, each.prompt)
    if not there:
        return ()
    wanted = max(there) if picked is None else picked
    step = min(there, key=lambda step: (abs(step - wanted), -step))
    return tuple(picture for _, picture in sorted(there[step].items()))[:MOST_PICTURES]


def _judged(folder: RunFolder) -> float | None:
    """The strength that was kept of the judged ones."""
    if not folder.judgement_file.is_file():
        return None
    return from_json(folder.judgement_file.read_bytes()).kept[1]


def _hub_id(source: str) -> str:
    """A base's id on the hub; empty for whatever else it is, a path above all."""
    try:
        return parse_source(source).repo if source else ""
    except BaseError:
        return ""
