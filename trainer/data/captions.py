"""What is in each image, in words: from a text file beside it, from metadata.jsonl, or its name.

A caption describes the content; the trigger, which stands for the style, is added to each.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trainer.data.names import caption_from_name
from trainer.errors import DatasetError
from trainer.findings import Finding

CaptionSource = Literal["sidecar", "metadata", "name", "none"]

SIDECAR_SUFFIXES = (".txt", ".caption")
METADATA = "metadata.jsonl"
MAX_CAPTION_BYTES = 64 * 1024
"""A larger text file is no caption: a hundred times what a text encoder reads."""


@dataclass(frozen=True)
class Caption:
    """What describes an image and where it was found; `text` is None when nothing does."""

    text: str | None
    source: CaptionSource


def read_captions(folder: Path, files: Sequence[Path]) -> tuple[dict[str, Caption], list[Finding]]:
    """A caption per file, by its name relative to `folder` (with `/` on every system), and what was noticed.

    A sidecar (`cat.txt` or `cat.caption` beside `cat.png`) wins over the `metadata.jsonl` of the
    image's folder, that one over the one of `folder`, and all over the file's name. An empty
    sidecar says that the image has no caption.

    Raises:
        DatasetError: a caption file cannot be read, is in an encoding that cannot be told, or is malformed.
    """
    homes = sorted({file.parent for file in files} | {folder}, key=lambda home: len(home.parts))
    metadata: dict[Path, str] = {}
    for home in homes:
        metadata |= read_metadata(home / METADATA)
    captions: dict[str, Caption] = {}
    findings: list[Finding] = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        captions[name] = _caption_of(file, name, metadata.get(file), findings)
    sidecars = [
        entry for home in homes if home.is_dir() for entry in home.iterdir() if entry.suffix in SIDECAR_SUFFIXES
    ]
    owners = {file.with_suffix("") for file in files}
    findings += [
        unmatched(entry.relative_to(folder).as_posix())
        for entry in sorted(sidecars)
        if entry.with_suffix("") not in owners and entry.name[0] != "."
    ]
    return captions, findings


def read_sidecar(path: Path) -> tuple[str, Finding | None]:
    """The caption in a text file, empty where it says that there is none, and what is worth knowing about it.

    Raises:
        DatasetError: it cannot be read, or is in an encoding that cannot be told.
    """
    text, encoding = _read_text(path)
    caption = _one_line(text)
    if encoding != "gb18030":
        return caption, None
    message = f"its caption file {path.name} is no UTF-8"
    return caption, Finding(path.name, "caption_encoding", "note", message, f"read as Chinese (GB 18030): {caption}")


def unmatched(name: str) -> Finding:
    """A caption file that lies beside no image of its name."""
    stem = Path(name).stem
    advice = f"left out: no image is called {stem}; give it its image's name"
    return Finding(name, "caption_unmatched", "warning", "is a caption without an image", advice)


def read_metadata(path: Path) -> dict[Path, str]:
    """Captions by image path from a Hugging Face `metadata.jsonl`; empty when there is no such file.

    Each line is an object with `file_name` and `text` (or `caption`).

    Raises:
        DatasetError: the file cannot be read, is not UTF-8, or a line is malformed.
    """
    if not path.is_file():
        return {}
    captions: dict[Path, str] = {}
    for number, line in enumerate(_read_text(path)[0].splitlines(), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path.name}"
        row = _row(line, where)
        text = row.get("text", row.get("caption"))
        if text is None:
            continue
        if not isinstance(text, str):
            raise DatasetError(f"{where} has a caption that is not text: put it in quotes.")
        name = str(row["file_name"]).replace("\\", "/")
        captions[path.parent / name] = _one_line(text)
    return captions


def compose(caption: str | None, trigger: str) -> str:
    """The caption with the trigger after it: content, then style ("red apple, ink style").

    The trigger is not repeated when the caption already has it as whole words, in whatever case.
    Without a caption the trigger stands alone; without either the result is empty.
    """
    content = _one_line(caption or "")
    style = _one_line(trigger).strip(" ,")
    if not content or not style:
        return content or style
    if re.search(rf"(?<!\w){re.escape(style)}(?!\w)", content, re.IGNORECASE):
        return content
    return f"{content.rstrip(' ,.;:')}, {style}"


def without_trigger(prompt: str, trigger: str) -> str:
    """A prompt without the words that call the style, as `compose` would have added them; in whatever case."""
    style = _one_line(trigger).strip(" ,")
    if not style:
        return prompt
    return _tidy(re.sub(rf"(?<!\w){re.escape(style)}(?!\w)", "", prompt, flags=re.IGNORECASE))


def find_replace(captions: Mapping[str, str], find: str, replace: str, *, whole_words: bool = True) -> dict[str, str]:
    """Every caption with `find` replaced, in whatever case it is written; both are plain text.

    With `whole_words`, "cat" leaves "category" alone. An empty `find` changes nothing.
    """
    if not find:
        return dict(captions)
    pattern = re.escape(find)
    if whole_words:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    wanted = re.compile(pattern, re.IGNORECASE)
    return {
        name: _tidy(wanted.sub(lambda _: replace, text)) if wanted.search(text) else text
        for name, text in captions.items()
    }


def from_names(names: Iterable[str]) -> dict[str, str]:
    """Captions made of file names; empty where the name says nothing."""
    return {name: caption_from_name(Path(name).stem) or "" for name in names}


class UploadedCaptions:
    """Captions among uploaded files, and complaints about caption files that cannot be read.

    A browser's upload puts every file into a folder of its own, so what belongs together is told by its name.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.complaints: list[tuple[str, str]] = []
        self._beside: dict[str, tuple[str, str, Finding | None]] = {}
        self._listed: dict[str, str] = {}
        for file in files:
            if not is_caption(file):
                continue
            try:
                if file.name == METADATA:
                    self._listed |= {path.name: text for path, text in read_metadata(file).items()}
                else:
                    self._beside[file.stem] = (file.name, *read_sidecar(file))
            except DatasetError as error:
                self.complaints.append((file.name, str(error)))

    def of(self, image: Path) -> tuple[str, list[Finding]]:
        """An image's caption, empty where nothing says it, and what is worth knowing about it."""
        if image.stem in self._beside:
            _, caption, finding = self._beside[image.stem]
            return caption, [] if finding is None else [replace(finding, image=image.name)]
        if image.name in self._listed:
            return self._listed[image.name], []
        return caption_from_name(image.stem) or "", []

    def left_over(self, images: Iterable[Path]) -> dict[str, str]:
        """Captions by the name of their file that lie beside none of some images."""
        stems = {image.stem for image in images}
        return {name: caption for stem, (name, caption, _) in self._beside.items() if stem not in stems}


def is_caption(file: Path) -> bool:
    """Whether a file is one that holds captions, by its name."""
    return file.suffix.lower() in SIDECAR_SUFFIXES or file.name == METADATA


def _caption_of(file: Path, name: str, from_metadata: str | None, findings: list[Finding]) -> Caption:
    for suffix in SIDECAR_SUFFIXES:
        sidecar = file.with_suffix(suffix)
        if sidecar.is_file():
            text, finding = read_sidecar(sidecar)
            if finding is not None:
                findings.append(replace(finding, image=name))
            return Caption(text or None, "sidecar")
    if from_metadata is not None:
        return Caption(from_metadata or None, "metadata")
    said = caption_from_name(file.stem)
    return Caption(said, "name" if said else "none")


def _read_text(path: Path) -> tuple[str, str]:
    """A small text file and its encoding: UTF-8, UTF-16 when its byte order mark says so, or GB 18030."""
    limit = MAX_CAPTION_BYTES if path.name != METADATA else MAX_CAPTION_BYTES * 1024
    try:
        if path.stat().st_size > limit:
            raise DatasetError(f"{path.name} is too large for captions: check what it is.")
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror or error}).") from error
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf_16 else ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "gb18030" or _is_chinese(text):
            return text, encoding
    raise DatasetError(
        f"{path.name} is not saved as UTF-8 text: open it in a text editor and save it with the encoding UTF-8."
    )


def _is_chinese(text: str) -> bool:
    """Whether what GB 18030 makes of some bytes is Chinese: accented Latin letters come out as rare characters."""
    foreign = [character for character in text if not character.isascii()]
    common = 0
    for character in foreign:
        # GB 2312 holds the 6,763 characters in daily use, and punctuation; GB 18030 holds everything.
        try:
            common += bool(character.encode("gb2312"))
        except UnicodeEncodeError:
            continue
    return 2 * common > len(foreign)


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise DatasetError(f"{where} is not a JSON object: correct or remove it.") from None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise DatasetError(f'{where} needs a "file_name", as in {{"file_name": "cat.png", "text": "a cat"}}.')
    return row


def _one_line(text: str) -> str:
    """Line breaks and runs of blanks become single blanks."""
    return " ".join(text.split())


def _tidy(text: str) -> str:
    """Without the doubled commas and blanks that taking a word out leaves behind."""
    text = re.sub(r"\s+,", ",", re.sub(r"(?:\s*,){2,}", ",", text))
    return _one_line(text).strip(" ,")
