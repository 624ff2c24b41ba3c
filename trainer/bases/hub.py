"""Models on the Hugging Face hub: what a repository holds, and bringing just the needed files into the hub's own cache.

Cache folder, token and offline switch are the hub client's (``HF_HOME``, ``HF_TOKEN`` or ``hf auth login``,
``HF_HUB_OFFLINE``). Nothing from a repository is ever run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.bases.detect import Detected, detect_folder, read_json
from trainer.bases.weight_files import SETTINGS_FILES, Weights, choose_weights, components_of, files_to_fetch
from trainer.errors import BaseError

_TIMEOUT = 20.0  # seconds for the first answer


@dataclass(frozen=True)
class Repository:
    """A model on the hub: every file's size in bytes, and a local folder that holds at least its settings files."""

    repo: str
    sizes: dict[str, int]
    folder: Path
    detected: Detected

    def chosen(self, variant: str | None) -> list[Weights]:
        """The weight files that loading takes; errors as in `choose_weights`."""
        index = read_json(self.folder / "model_index.json")
        return [choose_weights(self.sizes, part, variant, repr(self.repo)) for part in components_of(index)]

    def download_bytes(self, variant: str | None) -> int:
        """Size of all files that loading takes."""
        return sum(self.sizes[name] for name in files_to_fetch(self.sizes, self.chosen(variant)))


@dataclass(frozen=True)
class Fetched:
    """A complete model in the hub's cache."""

    folder: Path
    notes: list[str] = field(default_factory=list)


class _Unreachable(BaseError):
    """The hub did not answer; a complete copy on this machine may still do."""


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> Fetched:
    """The model's folder, downloaded if it is not here yet.

    Raises:
        BaseError: no such model or revision, no permission, no network, not enough disk, half a download, or no
            model that can be trained on; told before its weights are downloaded.
    """
    if offline or told_to_stay_offline():
        return Fetched(_complete_copy(repo, revision, variant))
    try:
        found = look_up(repo, revision=revision)
        _download(found, revision, variant, report)
        return Fetched(found.folder)
    except _Unreachable:
        if _copy_of(repo, revision) is None:
            raise
        folder = _complete_copy(repo, revision, variant)
        return Fetched(folder, [f"The Hugging Face hub did not answer; the copy of {repo!r} on this machine is used."])


def look_up(repo: str, *, revision: str | None = None) -> Repository:
    """What the hub has under a name, with its settings files (a few kilobytes) fetched; errors as in `fetch`."""
    sizes = sizes_of(repo, revision)
    if "model_index.json" not in sizes:
        raise BaseError(_no_diffusers_model(repo, sizes))
    folder = snapshot(repo, revision, [name for name in sizes if SETTINGS_FILES.fullmatch(name)])
    return Repository(repo, sizes, folder, detect_folder(folder))


def sizes_of(repo: str, revision: str | None = None) -> dict[str, int]:
    """Every file of a repository with its bytes, as the hub lists them; errors as in `fetch`."""
    from huggingface_hub import HfApi

    with as_sentences(repo, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT)
    return {file.rfilename: int(file.size or 0) for file in info.siblings or []}


def cached_copy(repo: str, revision: str | None, variant: str | None) -> Path | None:
    """The folder of a model that is completely on this machine, else None; never goes to the network."""
    folder = _copy_of(repo, revision)
    return folder if folder is not None and _lacking(folder, variant) is None else None


def require_room(repo: str, folder: Path, missing: int) -> None:
    """Refuse a download of so many bytes into the hub's cache, of which ``folder`` is a part, where there is no room.

    Raises:
        BaseError: how much there is, and what to do.
    """
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise BaseError(
            f"Downloading {repo!r} takes {missing / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in "
            "the hub's cache; make room, or move the cache with HF_HOME."
        )


def _download(
    found: Repository, revision: str | None, variant: str | None, report: Callable[[str], None] | None
) -> None:
    names = files_to_fetch(found.sizes, found.chosen(variant))
    missing = sum(found.sizes[name] for name in names if not (found.folder / name).exists())
    require_room(found.repo, found.folder, missing)
    if missing and report is not None:
        report(f"Downloading {found.repo!r}: {missing / 1e9:.1f} GB, once.")
    snapshot(found.repo, revision, names)


def snapshot(repo: str, revision: str | None, names: list[str]) -> Path:
    """The folder in the hub's cache with these files of a repository, fetched if need be; errors as in `fetch`."""
    from huggingface_hub import snapshot_download

    with as_sentences(repo, revision):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=names))


def _copy_of(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repo, "model_index.json", revision=revision)
    return Path(index).parent if isinstance(index, str) else None


def _complete_copy(repo: str, revision: str | None, variant: str | None) -> Path:
    folder = _copy_of(repo, revision)
    if folder is None:
        at = f" at revision {revision!r}" if revision else ""
        raise BaseError(
            f"The model {repo!r}{at} is not on this machine, and Patina "
            "is told to stay offline (train.offline or HF_HUB_OFFLINE)."
        )
    if lacking := _lacking(folder, variant):
        raise BaseError(
            f"Only a part of {repo!r} is on this machine ({lacking}). Go online and start again; what is here is kept."
        )
    return folder


def _lacking(folder: Path, variant: str | None) -> str | None:
    """What a local copy lacks, or None; broken links (a download that was deleted) count as missing."""
    names = [path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file()]
    try:
        detect_folder(folder)
        for part in components_of(read_json(folder / "model_index.json")):
            choose_weights(names, part, variant, "the copy")
            if f"{part}/config.json" not in names:
                return f"{part}/config.json is missing"
    except BaseError as error:
        return str(error).rstrip(".")
    return None


def told_to_stay_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _no_diffusers_model(repo: str, sizes: dict[str, int]) -> str:
    single = sorted(name for name in sizes if name.endswith(".safetensors") and "/" not in name)
    way = f"Download {single[0]!r} from it and name that file instead." if single else "Choose a diffusers model."
    return f"{repo!r} on the hub is no diffusers model (it has no model_index.json). {way}"


@contextmanager
def as_sentences(repo: str, revision: str | None) -> Iterator[None]:
    """The hub client's errors as sentences; anything that is not about hub or network passes through."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise BaseError(
            f"{repo!r} is gated: open its page on the Hugging Face hub, accept its terms, then log in on this machine "
            "with 'hf auth login' or set HF_TOKEN."
        ) from None
    except errors.RepositoryNotFoundError:
        raise BaseError(
            f"There is no model {repo!r} on the Hugging Face hub that you may see: check the spelling, or log in with "
            "'hf auth login' if it is private."
        ) from None
    except errors.RevisionNotFoundError:
        raise BaseError(
            f"The model {repo!r} has no revision {revision!r}; leave base.revision empty for main."
        ) from None
    except errors.HfHubHTTPError as error:
        status: Any = getattr(error.response, "status_code", "?")
        raise _Unreachable(
            f"The Hugging Face hub answered with error {status} for {repo!r}; try again later."
        ) from None
    except BaseError:
        raise
    except Exception as error:
        if not is_about_network(error):
            raise
        raise _Unreachable(
            f"The Hugging Face hub cannot be reached for {repo!r}, and no complete copy is on this machine: check the "
            "network, or use a folder or file."
        ) from None


def is_about_network(error: BaseException) -> bool:
    """Whether an error of the hub's client says that the hub was not reached."""
    # The hub client changed its HTTP library twice; every one of them is recognised by its module's name.
    return (
        isinstance(error, (ConnectionError, TimeoutError))
        or type(error).__module__.split(".")[0]
        in {
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
            "hf_xet",
            "requests",
            "urllib3",
        }
        or type(error).__name__ in {"LocalEntryNotFoundError", "IncompleteSnapshotError"}
    )
