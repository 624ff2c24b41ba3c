"""Which file names say what an image shows, and which were made by a camera or a program."""

from __future__ import annotations

import re
import unicodedata

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# DALL·E 2023-10-05 12.30.45 - A red apple
_DALL_E = re.compile(r"^DALL\W?E[ _-]*(\d{4}-\d\d-\d\d)?[ _-]*(\d\d[._:]\d\d[._:]\d\d)?[ _-]*", re.IGNORECASE)
# somebody_A_red_apple_--ar_1_9d0c...-..._0: Midjourney puts the account before the prompt
_MIDJOURNEY = re.compile(rf"^[^_\s]+_(.+?)_{_UUID}(_\d+)?$", re.IGNORECASE)
_PROMPT_FLAGS = re.compile(r"[ _]--[a-z].*$", re.IGNORECASE)
# Not \w+, which would cut the words of scripts with combining vowel signs.
_PART = re.compile(r"[^\s_\-.,;:+~#()\[\]{}=&!?@%\"/\\·]+")
_COPY = re.compile(r"(\s*\(\d+\)|[ _-]+(copy|kopie|copie)(?: \d+)?)+$", re.IGNORECASE)

_CAMERA = frozenset(
    {"cimg", "dcim", "dji", "dsc", "dscf", "dscn", "dscx", "gopr", "img", "imgp", "kimg", "mg"}
    | {"mvimg", "pict", "pxl", "sdc", "vid", "wp"}
)
"""Codes that cameras and phones put before a number."""

_EMPTY = frozenset(
    # what programs call any picture
    {"background", "burst", "capture", "comfyui", "cover", "default", "download", "edit", "edited"}
    | {"export", "exported", "fb", "file", "final", "frame", "full", "generated", "image", "images"}
    | {"img", "layer", "mmexport", "new", "output", "page", "photo", "photos", "pic", "picture"}
    | {"render", "resized", "sample", "scan", "scanned", "screen", "screencap", "screenshot"}
    | {"shot", "snap", "temp", "test", "thumb", "thumbnail", "tmp", "unknown", "unnamed"}
    | {"untitled", "upload", "wallpaper", "bild", "foto", "fotos", "bildschirmfoto", "unbenannt"}
    | {"captura", "d'écran", "ecran", "pantalla", "project", "sans", "schermata", "senza", "titolo"}
    | {"titre"}
    # who sent or made it
    | {"camscanner", "chatgpt", "dalle", "ezgif", "facebook", "firefly", "gemini", "giphy"}
    | {"instagram", "midjourney", "received", "signal", "snapchat", "telegram", "tumblr"}
    | {"twitter", "whatsapp"}
    # dates, and words that join others
    | {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
    | {"am", "pm", "at", "on", "um", "uhr", "a", "an", "and", "by", "de", "from", "in", "of", "the"}
    | {"to", "with", "my", "no"}
)
"""Words that alone say nothing; beside others they may stay ("photo of a cat")."""


def caption_from_name(stem: str) -> str | None:
    """The words of a file name without its suffix, or None when they say nothing of the content.

    `red-apple_03` gives "red apple"; `IMG_1234`, `Screenshot 2024-05-01 at 10.12.33`, `image(3)`
    and hashes give None. Prompts that DALL-E and Midjourney write into names lose what the service
    added to them.
    """
    text = unicodedata.normalize("NFC", stem).replace("’", "'").strip()
    text = _DALL_E.sub("", text)
    if match := _MIDJOURNEY.match(text):
        text = match[1]
    text = re.sub(_UUID, " ", text, flags=re.IGNORECASE)
    text = _COPY.sub("", _PROMPT_FLAGS.sub("", text))
    words = [word for part in _PART.findall(text) for word in _split(part)]
    while words and _is_code(words[0]):
        words.pop(0)
    while words and _is_code(words[-1]):
        words.pop()
    return " ".join(words) if any(_says_something(word) for word in words) else None


def _split(part: str) -> list[str]:
    """One part of a name as words: RedApple as two, apple03 without its counter."""
    if _is_code(part) or part.lower() in _EMPTY:
        return [part]
    if counted := re.fullmatch(r"([^\W\d_]{3,})(0\d*|\d{3,})", part):
        part = counted[1]
    pieces = re.findall(r"[A-Z]?[a-z]{2,}", part)
    if len(pieces) > 1 and "".join(pieces) == part:
        return pieces
    return [part]


def _is_code(part: str) -> bool:
    """A number, a camera's code or a hash: nothing that a person would have written."""
    lower = part.lower()
    letters = re.sub(r"\d", "", lower)
    if not letters or lower in _CAMERA:
        return True
    has_digit = letters != lower
    if not has_digit:
        return _is_random_letters(part)
    if letters in _CAMERA or len(letters) <= 2 < len(lower) - len(letters):
        return True  # IMG20240501, P1010001, 20240501T101233
    if len(lower) >= 6 and re.fullmatch(r"[0-9a-f]+", lower):
        return True
    changes = len(re.findall(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)", lower))
    return len(lower) >= 8 and changes >= 3


def _is_random_letters(part: str) -> bool:
    """Five or more Latin letters without a vowel, or a jumble of capitals and small ones."""
    if not part.isascii() or len(part) < 5:
        return False
    if not re.search(r"[aeiouy]", part, re.IGNORECASE):
        return True
    runs = re.findall(r"[A-Z]+[a-z]*|[a-z]+", part)
    return len(runs) >= 4 and len(part) / len(runs) < 2.5


def _says_something(word: str) -> bool:
    """Whether a word can name content: three letters, or two with a vowel ("ox")."""
    if word.lower() in _EMPTY or _is_code(word):
        return False
    letters = [c for c in word if c.isalpha()]
    if any(ord(c) >= 0x2E80 for c in letters):  # Chinese, Japanese, Korean
        return True
    if len(letters) == 2:
        return len(word) == 2 and bool(re.search(r"[aeiouy]", word, re.IGNORECASE))
    return len(letters) > 2
