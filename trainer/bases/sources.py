"""What a user typed as base: the bundled one, a hub id, a folder or a file; told apart without opening anything."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.errors import BaseError

SourceKind = Literal["bundled", "hub", "folder", "file"]

BUNDLED_FOLDER = Path(__file__).parent / "bundled"

_PICKLE_ENDINGS = {".ckpt", ".pt", ".pth", ".bin"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_WEB_PAGE = re.compile(r"https?://[^/]+/([\w.-]+/[\w.-]+)(/.*)?")
_LOOKS_LIKE_FILE = re.compile(r"\.(safetensors|ckpt|pt|pth|bin|gguf|onnx)$", re.IGNORECASE)
_LOOKS_LIKE_PATH = re.compile(r"^([.~/\\]|[A-Za-z]:[\\/])|\\|/.*/|/$")


@dataclass(frozen=True)
class Source:
    """A base's whereabouts; ``path`` is set for a folder or file, ``repo`` for a hub id."""

    kind: SourceKind
    path: Path | None = None
    repo: str = ""


def parse_source(text: str) -> Source:
    """Tell what kind of source a text names.

    A path that exists wins over a hub id of the same spelling.

    Raises:
        BaseError: the path does not exist or is of a kind that cannot be a base, or the text is none of the four.
    """
    text = text.strip()
    if text == "bundled":
        return Source("bundled")
    if page := _WEB_PAGE.fullmatch(text):
        raise BaseError(f"{text!r} is a web address; write the model's id alone, such as {page[1]!r}.")
    path = _expanded(text)
    if path is not None and path.is_dir():
        return Source("folder", path)
    if path is not None and path.is_file():
        _refuse_pickle(path)
        if path.suffix.lower() != ".safetensors":
            raise BaseError(f"{path} is no .safetensors file; Patina reads only those, and diffusers folders.")
        return Source("file", path)
    if _LOOKS_LIKE_PATH.search(text) or _LOOKS_LIKE_FILE.search(text):
        raise BaseError(f"{text!r} does not exist.{_near(path)}")
    if HUB_ID.fullmatch(text):
        return Source("hub", repo=text)
    if difflib.get_close_matches(text.lower(), ["bundled"], cutoff=0.6):
        raise BaseError(f"The base {text!r} is not known; did you mean 'bundled'?")
    raise BaseError(
        f"The base {text!r} is not known: write 'bundled', a Hugging Face id such as "
        "'stable-diffusion-v1-5/stable-diffusion-v1-5', a diffusers folder, or a .safetensors file."
    )


def public_name(text: str) -> str:
    """What others may read of a base: a hub id as it is, of a path its last part; the rest is its owner's business."""
    try:
        source = parse_source(text)
    except BaseError:
        # The file was moved or unplugged since.
        source = Source("hub", repo=text) if HUB_ID.fullmatch(text) else Source("file", Path(text.replace("\\", "/")))
    return text if source.kind == "bundled" else source.repo or (source.path.name if source.path else "")


def _refuse_pickle(path: Path) -> None:
    """Refuse file types that can run code when they are opened, as their names end."""
    if path.suffix.lower() in _PICKLE_ENDINGS:
        raise BaseError(
            f"{path} is a pickled checkpoint, which can run code when it is opened; Patina reads only .safetensors. "
            "Most models are offered in that format too; look for it where you found this one."
        )


def _expanded(text: str) -> Path | None:
    if "\0" in text:
        return None
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError):
        return None


def _near(path: Path | None) -> str:
    """A sentence with the file or folder whose name is nearest, if one is near."""
    if path is None:
        return ""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" Did you mean {str(path.with_name(found[0]))!r}?" if found else ""
