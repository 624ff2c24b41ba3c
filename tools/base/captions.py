"""From icon names to captions: which icons are worth learning, what they show, and how a person would write it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tools.base.icon_sets import Icon
from tools.base.subjects import PLAIN_NAMES

SKIN_TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone)?$")

# Signs to read rather than things to draw: a picture model this small only blurs them.
UNWANTED = re.compile(
    r"skin-tone|^flag-|^(keycap|letter|regional-indicator|tag|variation|digit|squared)-|^(zero-width|combining)"
    r"|^(red-hair|curly-hair|white-hair|bald|blond-hair)$|^[0-9a-z]$|-button(-blood-type)?$|-(thirty|oclock)$"
    r"|^(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)-(thirty|o-clock|oclock)"
)
UNWANTED_CATEGORIES = frozenset({"Flags", "Modifiers", "Component"})

# Categories in which every set varies the same few figures: people at work, arrows, signs.
SELDOM_CATEGORIES = frozenset({"People", "People & Body", "Symbols", "Smiley People"})
SELDOM_NAME = re.compile(r"^(man|woman|men|women|person|people|family|couple|kiss)-|arrow|-sign$|-mark$")
FAVOURITES = re.compile(
    r"face|heart|star|hand|thumb|fist|eye|ear|nose|mouth|baby|princess|santa|mermaid|fairy|ninja|zombie"
)

SPELLING = {
    "t shirt": "t-shirt",
    "jack o lantern": "jack-o'-lantern",
    "o clock": "o'clock",
    "x ray": "x-ray",
    "e mail": "e-mail",
    "mans shoe": "man's shoe",
    "womans": "woman's",
    "mens": "men's",
    "womens": "women's",
    "rescue workers helmet": "rescue worker's helmet",
    "mrs claus": "Mrs. Claus",
    "mother christmas": "Mrs. Claus",
}
_SPELLING = re.compile(r"\b(" + "|".join(sorted(map(re.escape, SPELLING), key=len, reverse=True)) + r")\b")


def caption(name: str) -> str:
    """An icon's name as a person would type it: ``cat-face`` gives ``cat face``."""
    words = re.sub(r"[-_]+", " ", name).strip()
    return _SPELLING.sub(lambda match: SPELLING[match[1]], words)


def names(icon: Icon, subject: str) -> tuple[str, ...]:
    """What an icon is called, without repetitions: its subject, what people say, its own name, its synonyms."""
    given = (subject, *PLAIN_NAMES.get(subject, ()), caption(icon.name), *map(caption, icon.synonyms))
    return tuple(dict.fromkeys(given))


def wanted(icons: Sequence[Icon]) -> list[Icon]:
    """One set's icons without skin-tone variants, flags, letters, digits and clock faces."""
    names = {icon.name for icon in icons}

    def is_variant(name: str) -> bool:
        plain = SKIN_TONE.sub("", name)
        return plain != name and plain in names

    return [
        icon
        for icon in icons
        if icon.category not in UNWANTED_CATEGORIES and not UNWANTED.search(icon.name) and not is_variant(icon.name)
    ]


def emphasis(icon: Icon) -> float:
    """How often an icon is drawn, against a plain thing or animal: figures and signs come at a quarter.

    Two fifths of all icons are people in a pose or a job and signs; at an even rate they would take two fifths
    of a small model's training, and hardly anybody asks for them.
    """
    plain = icon.category not in SELDOM_CATEGORIES and not SELDOM_NAME.search(icon.name)
    return 1.0 if plain or FAVOURITES.search(icon.name) else 0.25


def subjects(icons: Iterable[Icon]) -> dict[tuple[str, str], str]:
    """Which subject each icon shows, by (set key, icon name), across sets that name it differently.

    Names that one drawing goes by in any set are the same subject, unless that would put two drawings of
    one set together: those are different things to whoever drew them. A subject is called by the name
    most sets use, as a caption.
    """
    icons = list(icons)
    parent: dict[str, str] = {}
    owners: dict[str, set[str]] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for icon in icons:
        owners.setdefault(find(icon.name), set()).add(icon.set_key)
    for icon in icons:
        for synonym in icon.synonyms:
            ours, theirs = find(icon.name), find(synonym)
            if ours != theirs and not owners.get(ours, set()) & owners.get(theirs, set()):
                parent[theirs] = ours
                owners[ours] = owners.get(ours, set()) | owners.pop(theirs, set())

    votes: dict[str, Counter[str]] = {}
    for icon in icons:
        votes.setdefault(find(icon.name), Counter())[icon.name] += 1
    chosen = {root: min(names, key=lambda name: (-names[name], name)) for root, names in votes.items()}
    return {(icon.set_key, icon.name): caption(chosen[find(icon.name)]) for icon in icons}
