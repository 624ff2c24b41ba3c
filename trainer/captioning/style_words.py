"""What a caption says about how a picture is made, and the caption without it: for a style it must say what is shown.

What captions name, the style does not learn: with "a watercolor of a cat" the base is told *watercolor* in every step,
and little of the look is left for the trigger. The list of phrases is the user's; `STYLE_WORDS` is where it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from trainer.errors import ConfigError

_MEDIA = (
    "art print", "artwork", "black and white photo", "cartoon", "clip art", "close up", "close-up", "depiction",
    "digital art", "digital painting", "drawing", "engraving", "etching", "graphic", "icon", "illustration", "image",
    "line art", "line drawing", "mural", "oil painting", "painting", "pencil drawing", "photo", "photograph",
    "picture", "poster", "print", "render", "rendering", "scan", "screenshot", "sketch", "stock photo", "vector",
    "vector art", "vector illustration", "view", "watercolor", "watercolor painting", "watercolour", "woodcut",
)  # fmt: skip
_ADJECTIVES = (
    "abstract", "animated", "anime", "arafed", "araffe", "araffed", "artistic", "cartoon", "cartoonish", "cel-shaded",
    "flat design", "hand drawn", "hand-drawn", "hyperrealistic", "low poly", "minimalist", "monochrome", "oil-painted",
    "photorealistic", "pixel art", "pixelated", "realistic", "sepia", "stylised", "stylized", "surreal", "vintage",
    "watercolor", "watercolour",
)  # fmt: skip

STYLE_WORDS: tuple[str, ...] = (
    "the image shows", "the image features", "the image depicts", "the image is", "in this image we can see",
    "there is", "this is",
    "the overall style *", "the image is in *", "the style of the image *", "the image is done in *",
    "the image has a *",
    *(f"* {medium} of" for medium in _MEDIA),
    *(f"* {medium} with" for medium in ("drawing", "illustration", "painting", "photo", "picture", "sketch")),
    "in the style of *", "in * style", "in a cartoon", "in black and white", "in monochrome", "in sepia tones",
    "in watercolor", "in watercolour", "drawn in *", "drawn by *", "painted by *", "drawn with *", "illustrated by *",
    "rendered in *", "sketched in *",
    *_ADJECTIVES,
)  # fmt: skip
"""A phrase a line. It counts wherever it stands as whole words, in whatever case. ``*`` at its front stands for the
beginning of a sentence up to there, at most five words and no second article ("* drawing of" takes "a quick pencil
drawing of"); in its middle for at most three words, and at its end for all up to the next comma or full stop.
"arafed" and its like are words that BLIP makes up."""

MOST_WORDS = 1000
LONGEST = 100
_ARTICLE = r"(?:an?|the)"
_ARTICLE_AT_END = re.compile(rf"\b{_ARTICLE}\s*$", re.IGNORECASE)
_DANGLING = re.compile(
    r"(?:^|\s)(?:an?|the|in|on|with|of|by|and|or|at|is|are|that|which)(?=\s*(?:[,.;]|$))", re.IGNORECASE
)


def content_of(caption: str, words: Iterable[str] = STYLE_WORDS) -> str:
    """A caption without what it says about how the picture is made; empty where it says nothing else."""
    # Longer ones first: "* oil painting of" before "* painting of", and single words last.
    patterns = [_pattern(phrase) for phrase in sorted(words, key=lambda each: (-len(each.split()), -len(each), each))]
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+", " ".join(caption.split()))]
    kept = [_plain(sentence, patterns) for sentence in sentences]
    return " ".join(sentence for sentence in kept if re.search(r"\w", sentence))


def parse_words(text: str) -> tuple[str, ...]:
    """A list as a person wrote it: a phrase a line or between commas, lines with ``#`` in front left out.

    Raises:
        ConfigError: a phrase is only a ``*`` or too long, or there are too many.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    phrases = [" ".join(part.split()) for line in lines for part in line.split(",")]
    found = tuple(dict.fromkeys(phrase for phrase in phrases if phrase))
    for phrase in found:
        if len(phrase) > LONGEST or not re.search(r"\w", phrase):
            raise ConfigError(
                f"{phrase[:60]!r} is no phrase to leave out of captions: write words, at most {LONGEST} characters."
            )
    if len(found) > MOST_WORDS:
        raise ConfigError(f"The list of style words has {len(found)} entries, but should have {MOST_WORDS} at most.")
    return found


def read_words(path: Path) -> tuple[str, ...]:
    """`parse_words` of a text file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return parse_words(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigError(f"The list of style words {path} cannot be read ({why}).") from None


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    parts = phrase.split()
    leads, trails = parts[0] == "*", len(parts) > 1 and parts[-1] == "*"
    inner = parts[leads : len(parts) - trails]
    middle = r"\s+".join(r"(?:[\w'-]+,?\s+){0,2}[\w'-]+" if part == "*" else re.escape(part) for part in inner)
    if leads:
        word = rf"(?!(?:{_ARTICLE}|of|with|in|on)\b)[\w'-]+,?\s+"
        front = rf"^(?:{_ARTICLE}\s+|(?:two|three|four|some)\s+)?(?:{word}){{0,4}}"
    else:
        front = r"(?<![\w-])"
    return re.compile(front + middle + (r"\b[^,.;!?]*" if trails else r"(?![\w-])"), re.IGNORECASE)


def _plain(sentence: str, patterns: list[re.Pattern[str]]) -> str:
    text = sentence
    while match := next(filter(None, (pattern.search(text) for pattern in patterns)), None):
        before, rest = text[: match.start()], text[match.end() :]
        if _ARTICLE_AT_END.search(before):
            # "a black and white dog" without "black".
            rest = re.sub(r"^\s*(?:and|or)\s+", "", rest, flags=re.IGNORECASE)
        text = _tidy(_with_article_for(rest, before) + " " + rest)
    return text


def _with_article_for(rest: str, before: str) -> str:
    """The article at the end of a text as what now follows it wants it: "an abstract cat" leaves "a cat"."""
    following = rest.strip().lower()
    if not re.search(r"\ban?\s*$", before, re.IGNORECASE) or not following[:1].isalpha():
        return before
    vowel = following[0] in "aeiou" and not following.startswith(("eu", "one", "uni", "use"))
    return re.sub(r"\b(a)n?\s*$", r"\1n" if vowel else r"\1", before, flags=re.IGNORECASE)


def _tidy(text: str) -> str:
    """Without blanks, commas and small words that lost what they stood for, and with the right article."""
    before = ""
    while text != before:
        before = text
        text = re.sub(r"\s+([,.;!?])", r"\1", " ".join(text.split()))
        text = re.sub(r",(?:\s*,)+", ",", text)
        text = re.sub(r"^[\s,.;:!?-]+", "", text)
        text = re.sub(r"\b(an?|the),\s+", r"\1 ", text, flags=re.IGNORECASE)
        text = re.sub(r",+([.!?]|$)", r"\1", text)
        text = _DANGLING.sub("", text)
        text = re.sub(r"^(?:and|or|is|are|that)\s+", "", text, flags=re.IGNORECASE)
    return text
