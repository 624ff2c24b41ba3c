"""Captions that are lists of tags: telling them from sentences, and giving the tags in another order each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from trainer.data.captions import find_replace
from trainer.randomness import permutation, stable_seed

CaptionKind = Literal["tags", "sentences"]
ORDERS = 16
"""Most orders that a caption is given in: each is encoded once, before the training."""

_WORDS_OF_A_TAG = 2.5
_FEWEST_TAGS = 3


def kind_of(captions: Iterable[str]) -> CaptionKind:
    """What a set of captions is by most of them; those that are empty or a single word say nothing.

    A list has at least three entries between commas, of at most 2.5 words in the mean and none longer than five, and
    no full stop at its end.
    """
    telling = [caption for caption in captions if len(caption.split()) > 1]
    lists = sum(_is_list(caption) for caption in telling)
    return "tags" if telling and 2 * lists > len(telling) else "sentences"


def _is_list(caption: str) -> bool:
    tags = tags_of(caption)
    words = [len(tag.split()) for tag in tags]
    return (
        len(tags) >= _FEWEST_TAGS
        and sum(words) <= _WORDS_OF_A_TAG * len(tags)
        and max(words) <= 5
        and not caption.rstrip().endswith(".")
    )


def tags_of(caption: str) -> list[str]:
    """The entries between commas, without the empty ones."""
    return [tag for part in caption.split(",") if (tag := part.strip())]


def orders_for(images: int, seen: int) -> int:
    """How many orders of each caption are worth encoding when ``seen`` images go by in a training."""
    return max(1, min(ORDERS, -(-seen // max(1, images))))


def shuffled(
    content: str, *, count: int, seed: int, image: str, shuffle: bool, keep: int = 0, dropout: float = 0.0
) -> list[str]:
    """``count`` captions made of the tags of one, each a function of the seed, the image and its number alone.

    Args:
        content: the caption without its trigger.
        image: tells images apart, such as the hash of a file.
        shuffle: whether the tags that are not kept change places.
        keep: tags at the front that stay where they are, in every caption.
        dropout: chance of every other tag to be left out.
    """
    tags = tags_of(content)
    front, rest = tags[:keep], tags[keep:]
    made = []
    for number in range(count):
        places = permutation(len(rest), seed, "tags", image, number) if shuffle else range(len(rest))
        left = [rest[place] for place in places if stable_seed(seed, "tag", image, number, place) >= dropout * 2**32]
        made.append(", ".join([*front, *left]))
    return made


def without(content: str, trigger: str) -> str:
    """A caption of tags without the tag that is the trigger, which `compose` puts behind the others."""
    style = trigger.strip(" ,").casefold()
    return ", ".join(tag for tag in tags_of(content) if tag.casefold() != style)


def plain(content: str, trigger: str) -> str:
    """A caption that does not ask for the style: without the trigger, wherever it stands as whole words."""
    style = trigger.strip(" ,")
    return find_replace({"": content}, style, "")[""] if style else content
