"""Models that write captions: which are offered, where one lies, and what fetching it takes. No torch.

BLIP: Li et al., arXiv 2201.12086. Florence-2: Xiao et al., arXiv 2311.06242.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from trainer.bases.hub import require_room, sizes_of, snapshot, told_to_stay_offline
from trainer.bases.sources import HUB_ID
from trainer.errors import BaseError, ConfigError

Length = Literal["short", "long"]
LENGTHS: tuple[Length, ...] = get_args(Length)

WRITERS = {
    "florence-2": "florence-community/Florence-2-base",
    # The repository's own safetensors are offered beside its main branch, which has a pickle only.
    "blip": "Salesforce/blip-image-captioning-base@refs/pr/38",
}
"""Name -> repository of the offered ones, the first by default."""

_KINDS: dict[str, tuple[Length, ...]] = {"blip": ("short",), "florence2": ("short", "long")}
"""``model_type`` of a ``config.json`` -> the lengths that such a model writes."""
_TITLES = {"blip": "BLIP", "florence2": "Florence-2"}

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PART = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
_SETTINGS = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|"
    r"added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Writer:
    """A model that writes captions.

    Attributes:
        name: what it is called for people: a repository, or a folder.
        folder: where it lies; None while it has to be fetched.
        repo, revision: where it comes from; empty and None for a folder of the user's own.
        files: what is to be fetched, with bytes; empty when it is here.
        identity: tells its captions from those of other models, and of other states of the same one.
    """

    name: str
    folder: Path | None
    repo: str = ""
    revision: str | None = None
    files: tuple[tuple[str, int], ...] = ()
    identity: str = ""

    def lying_in(self, folder: Path) -> Writer:
        """This one, of the hub, in its folder of the hub's cache."""
        return Writer(self.name, folder, self.repo, self.revision, identity=f"{self.repo}@{folder.name}")

    @property
    def download_bytes(self) -> int:
        """Bytes to be fetched first."""
        return sum(size for _, size in self.files)


def locate(text: str, *, offline: bool = False) -> Writer:
    """The model that a text names: one of `WRITERS`, a folder, or a hub id, with ``@revision`` behind it if need be.

    One that is not on this machine is looked up on the hub, which takes seconds; nothing large is fetched.

    Raises:
        BaseError: no such folder or model, no writer of captions, only a pickle, or no network.
    """
    named = WRITERS.get(text.strip(), text.strip())
    path = Path(named).expanduser()
    if path.is_dir():
        kind_of(path)
        return Writer(str(path), path, identity=_identity(path.resolve()))
    repo, _, revision = named.partition("@")
    if not HUB_ID.fullmatch(repo):
        offered = ", ".join(WRITERS)
        raise BaseError(
            f"{text!r} writes no captions: use one of {offered}, a folder with a BLIP or Florence-2 model, or its id "
            "on the Hugging Face hub."
        )
    if folder := _copy_of(repo, revision or None):
        return Writer(named, None, repo, revision or None).lying_in(folder)
    if offline or told_to_stay_offline():
        raise BaseError(f"The model {repo!r} is not on this machine, and Patina is told to stay offline.")
    sizes = sizes_of(repo, revision or None)
    wanted = [*(name for name in sizes if _SETTINGS.fullmatch(name)), *_weights(sizes, repo)]
    return Writer(named, None, repo, revision or None, files=tuple((name, sizes[name]) for name in sorted(wanted)))


def fetch(writer: Writer, length: str = "short") -> Writer:
    """The model on this machine, downloaded into the hub's cache if it is not here yet.

    Args:
        length: that its captions should have.

    Raises:
        BaseError: no permission, no network, not enough room, or no model that writes captions.
        ConfigError: it does not write captions of that length. Both are told before its weights are fetched.
    """
    if writer.folder is not None:
        require_length(kind_of(writer.folder), length)
        return writer
    settings = [name for name, _ in writer.files if _SETTINGS.fullmatch(name)]
    folder = snapshot(writer.repo, writer.revision, settings)
    require_length(kind_of(folder, weights=False), length)
    require_room(writer.repo, folder, sum(size for name, size in writer.files if not (folder / name).exists()))
    return writer.lying_in(snapshot(writer.repo, writer.revision, [name for name, _ in writer.files]))


def fetched_bytes(writer: Writer) -> int:
    """About how many bytes of a download that is under way have arrived; it may have been begun earlier."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{writer.repo.replace('/', '--')}" / "blobs"
    try:
        return min(writer.download_bytes, sum(file.stat().st_size for file in blobs.iterdir()))
    except OSError:
        return 0


def kind_of(folder: Path, *, weights: bool = True) -> str:
    """The ``model_type`` of a model that writes captions.

    Args:
        weights: also see that it is complete.

    Raises:
        BaseError: it is another kind of model, is incomplete, or has only pickled weights.
    """
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(stated["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        kind = ""
    if kind not in _KINDS:
        raise BaseError(
            f"{folder} holds no model that writes captions: its config.json should say blip or florence2 as model_type."
        )
    if weights:
        names = {path.name: 0 for path in folder.iterdir() if path.is_file()}
        _weights(names, str(folder))
    return kind


def require_length(kind: str, length: str) -> Length:
    """A length as it was written, checked against what a kind of model can do.

    Raises:
        ConfigError: there is no such length, or this kind does not write it.
    """
    known = next((each for each in LENGTHS if each == length), None)
    if known is None:
        raise ConfigError(f"The length of captions is {length!r}, but should be one of {', '.join(LENGTHS)}.")
    if known not in _KINDS[kind]:
        raise ConfigError(f"{_TITLES[kind]} writes short captions only: choose Florence-2 for long ones.")
    return known


def _copy_of(repo: str, revision: str | None) -> Path | None:
    """A complete copy in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        kind_of(folder)
    except BaseError:
        return None
    return folder


def _weights(names: dict[str, int], where: str) -> list[str]:
    """The weight files of a model among its files' names.

    Raises:
        BaseError: there are none that may be read.
    """
    if _WHOLE in names:
        return [_WHOLE]
    parts = sorted(name for name in names if _PART.fullmatch(name))
    if _INDEX in names and parts and len(parts) == int(parts[0].split("-of-")[1][:5]):
        return [_INDEX, *parts]
    if any(name.endswith(_PICKLES) for name in names):
        raise BaseError(
            f"{where} offers its weights only as a pickle (.bin), which can run code when it is opened; choose a model "
            "with .safetensors files."
        )
    raise BaseError(f"{where} has no weights (model.safetensors), so it is no complete model.")


def _identity(folder: Path) -> str:
    """A folder's place, and when its weights were written."""
    stamps = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in folder.glob("*.safetensors")]
    return "|".join([str(folder), *sorted(stamps)])
