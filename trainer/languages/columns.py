"""Help texts of commands in other languages, wrapped by wrappers that know only blanks and count letters."""

from __future__ import annotations

import re
import unicodedata

from trainer.languages import ENGLISH

_JOINER = "\u2060"
"""Takes no room; behind a wide letter it makes a wrapper count two columns for it."""
_MAY_END = "\u2063"
_BREAK = _MAY_END + " "
"""Where a line may end between two wide letters; where it does not, nothing stays of it."""
_STOPS = "，。；：、？！）”"
_HEADS = {
    "Usage: ": "用法：", "usage: ": "用法：", "Arguments:": "参数：", "Options:": "选项：", "options:": "选项：",
    "Commands:": "命令：", "[default: ": "[默认：", "[required]": "[必填]",
}  # fmt: skip
"""What the parsers themselves write, which have no Chinese of their own."""


def wrappable(text: str, language: str) -> str:
    """A help text in this language, for a wrapper; what comes out of that goes through `unwrapped`."""
    if language == ENGLISH:
        return text
    marked = []
    for letter in text:
        marked.append(letter)
        if unicodedata.east_asian_width(letter) in "WF":
            marked.append(_BREAK if letter in _STOPS else _JOINER)
    return "".join(marked)


def unwrapped(text: str, language: str) -> str:
    """A wrapped help page as it is printed."""
    if language == ENGLISH:
        return text
    text = text.replace(_BREAK, "").replace(_MAY_END, "").replace(_JOINER, "")
    heads = "|".join(re.escape(head) for head in _HEADS)
    return re.sub(rf"^(?:{heads})|(?<=  )\[required\]|\[default: ", lambda found: _HEADS[found[0]], text, flags=re.M)
