"""Build the base's data set: icons drawn over white, with captions, in one folder.

    python -m tools.base.dataset fetch --icons ICONS
    python -m tools.base.dataset build --icons ICONS --out DATA --pixels 128

``fetch`` needs npm and a network; ``build`` needs neither, only the fetched packages and resvg-py, and takes
a quarter of a minute on one core. It draws the subjects that a base knows; with ``--breadth`` every other icon worth
learning as well, seldom. The folder holds ``images.safetensors`` (``images``: N, H, W, 3, uint8) and
``icons.jsonl``, one line for each image in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.base import captions, colours, icon_sets
from tools.base.icon_sets import TRAINING_SETS, Icon
from tools.base.subjects import (
    COMMON_SUBJECTS,
    HARD_SUBJECTS,
    KNOWN_SUBJECTS,
    ODD_DRAWINGS,
    PLAIN_NAMES,
    RECOLOURED_SUBJECTS,
    SHEET_PROMPTS,
)

IMAGES = "images.safetensors"
ICONS = "icons.jsonl"
HELD_OUT_SHARE = 0.04
"""Of the icons whose subject is drawn in at least three training sets."""
SELDOM_WEIGHT = 0.4
"""Of the known subjects that are neither common nor on the contact sheet."""
HARD_WEIGHT = 3.0
"""Of the subjects that take longest to learn."""
RECOLOURED_WEIGHT = 0.15
"""Of a drawing in one of the colours that it does not have: together about as often as the drawing itself."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one image."""

    set_key: str
    name: str
    subject: str
    """The same for all sets that draw this thing."""
    captions: tuple[str, ...]
    """What the drawing is called, the most usual first; without the style word."""
    split: str
    """``train``, or ``held-out`` (its subject is learnt from other sets' drawings)."""
    weight: float
    """How often it is drawn in training, against 1."""
    look: str = ""
    """The look of `looks.LOOKS` that it was given; it is always called by it. Empty: as the set drew it."""

    @property
    def named(self) -> bool:
        """Whether it is always called by its style: drawn in a look, or of a set that is."""
        return bool(self.look) or any(each.named for each in TRAINING_SETS if each.key == self.set_key)

    @property
    def styled_captions(self) -> tuple[str, ...]:
        """The captions with the look's words, or else the set's."""
        called = f"{self.look or self.set_key} style"
        return tuple(f"{text}, {called}" for text in self.captions)


@dataclass(frozen=True)
class IconData:
    """A built data set. ``images``: (N, H, W, 3), uint8; ``entries``: N."""

    images: NDArray[np.uint8]
    entries: tuple[Entry, ...]

    def select(self, *splits: str) -> IconData:
        """The images of some splits."""
        return self._only([index for index, entry in enumerate(self.entries) if entry.split in splits])

    def of_sets(self, *keys: str) -> IconData:
        """The images of some icon sets.

        Raises:
            ValueError: a set of that key has no image here.
        """
        missing = set(keys) - {entry.set_key for entry in self.entries}
        if missing:
            raise ValueError(f"no images of {', '.join(sorted(missing))}")
        return self._only([index for index, entry in enumerate(self.entries) if entry.set_key in keys])

    def about(self, subjects: Collection[str]) -> IconData:
        """The images of some subjects."""
        return self._only([index for index, entry in enumerate(self.entries) if entry.subject in subjects])

    def every(self, most: int) -> IconData:
        """At most ``most`` of the images, evenly spaced."""
        return self._only(np.linspace(0, len(self.entries) - 1, min(most, len(self.entries))).round().astype(int))

    def _only(self, kept: Sequence[int] | NDArray[np.int_]) -> IconData:
        return IconData(self.images[kept], tuple(self.entries[index] for index in kept))


def draw(svg: str, pixels: int) -> NDArray[np.uint8]:
    """One icon over white, in the middle of a square: (pixels, pixels, 3), uint8."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=pixels, height=pixels, background="#ffffff"))
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.size != (pixels, pixels):
        square = Image.new("RGB", (pixels, pixels), "white")
        square.paste(image, ((pixels - image.width) // 2, (pixels - image.height) // 2))
        image = square
    return np.asarray(image, dtype=np.uint8)


def describe(icons: Sequence[Icon]) -> tuple[Entry, ...]:
    """Captions, splits and weights for icons, in the given order."""
    subject_of = captions.subjects(icons)
    drawn_by = Counter(subject_of[icon.set_key, icon.name] for icon in icons)
    set_weight = {icon_set.key: icon_set.weight for icon_set in TRAINING_SETS}

    def entry(icon: Icon, split: str) -> Entry:
        subject = subject_of[icon.set_key, icon.name]
        return Entry(
            set_key=icon.set_key,
            name=icon.name,
            subject=subject,
            captions=captions.names(icon, subject),
            split=split,
            weight=captions.emphasis(icon) * set_weight.get(icon.set_key, 1.0),
        )

    def split(icon: Icon) -> str:
        learnt_elsewhere = drawn_by[subject_of[icon.set_key, icon.name]] >= 3
        return "held-out" if learnt_elsewhere and _share(f"{icon.set_key}/{icon.name}") < HELD_OUT_SHARE else "train"

    return tuple(entry(icon, split(icon)) for icon in icons)


def chosen_only(
    icons: Sequence[Icon], entries: Sequence[Entry], *, breadth: float = 0.0
) -> tuple[list[Icon], list[Entry]]:
    """The drawings to learn, without the odd ones: the common known subjects at full weight, the hard ones oftener.

    Args:
        breadth: the share of all looks that goes to subjects besides the known ones; with 0 these are left out.
    """
    weights = dict.fromkeys(KNOWN_SUBJECTS, SELDOM_WEIGHT)
    weights |= dict.fromkeys((*COMMON_SUBJECTS, *SHEET_PROMPTS), 1.0) | dict.fromkeys(HARD_SUBJECTS, HARD_WEIGHT)
    set_weight = {icon_set.key: icon_set.weight for icon_set in TRAINING_SETS}
    rows = [i for i, entry in enumerate(entries) if f"{entry.set_key}/{entry.subject}" not in ODD_DRAWINGS]
    known = {
        i: set_weight[entries[i].set_key] * weights[entries[i].subject] for i in rows if entries[i].subject in weights
    }
    others = {i: entries[i].weight for i in rows if i not in known} if breadth else {}
    if others:
        scale = breadth / (1 - breadth) * sum(known.values()) / sum(others.values())
        others = {i: scale * weight for i, weight in others.items()}
    weight_of = known | others
    kept = [i for i in rows if i in weight_of]
    return [icons[i] for i in kept], [replace(entries[i], weight=weight_of[i]) for i in kept]


def coloured(data: IconData) -> IconData:
    """The same data, with captions that name a drawing's colour and some drawings in colours that they do not have.

    A drawing of one plain colour is also called by it, as in ``yellow lemon``; a name with a colour that it does not
    plainly have is not used, and a drawing whose subject has such a name (a red heart that is crimson) is left out.
    Drawings of `RECOLOURED_SUBJECTS` come in every other colour too, and those are always called by it, so that a
    colour's name is learnt apart from things.
    """
    entries, images, turned, more = [], [], [], []
    for image, entry in zip(data.images, data.entries, strict=True):
        colour = colours.plain(image)
        true = tuple(text for text in entry.captions if set(colours.HUES) & set(text.split()) <= {colour})
        if entry.subject not in true:
            continue
        if colour is not None and colour not in entry.subject.split():
            true = (*true, f"{colour} {entry.subject}")
        entry = replace(entry, captions=tuple(dict.fromkeys(true)))
        entries.append(entry)
        images.append(image)
        was = colours.dominant(image)
        if entry.subject in RECOLOURED_SUBJECTS and entry.split == "train" and was is not None:
            for other in sorted(set(colours.HUES) - {was}):
                turned.append(colours.recoloured(image, other))
                plain_names = (entry.subject, *PLAIN_NAMES.get(entry.subject, ()))
                titles = tuple(f"{other} {name}" for name in plain_names if not set(colours.HUES) & set(name.split()))
                weight = RECOLOURED_WEIGHT * entry.weight
                more.append(replace(entry, name=f"{entry.name}-{other}", captions=titles, weight=weight))
    return IconData(np.stack([*images, *turned]), (*entries, *more))


def build(
    icons_folder: Path, out: Path, *, pixels: int, processes: int | None = None, breadth: float = 0.0
) -> IconData:
    """Draw icons of the sets and write the data set to ``out``; ``breadth`` as in `chosen_only`."""
    wanted = [icon for s in TRAINING_SETS for icon in captions.wanted(icon_sets.read(s, icons_folder))]
    wanted, entries = chosen_only(wanted, describe(wanted), breadth=breadth)
    # Not fork: the parent may hold threads of numpy or torch.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        svgs = [icon.svg for icon in wanted]
        images = pool.map(partial(draw, pixels=pixels), svgs, chunksize=64)
    data = coloured(IconData(np.stack(images), tuple(entries)))
    write(data, out)
    return data


def write(data: IconData, folder: Path) -> None:
    """Write a data set into a folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"images": np.ascontiguousarray(data.images)}, folder / IMAGES)
    lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in data.entries)
    (folder / ICONS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(folder: Path) -> IconData:
    """Read a data set that `build` has written.

    Raises:
        FileNotFoundError: ``folder`` holds none.
    """
    from safetensors.numpy import load_file

    lines = (folder / ICONS).read_text(encoding="utf-8").splitlines()
    entries = (json.loads(line) for line in lines)
    return IconData(
        load_file(folder / IMAGES)["images"],
        tuple(
            Entry(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
            for fields in entries
        ),
    )


def _share(key: str) -> float:
    """A fixed number in [0, 1) for a key, so that the split is the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fetch", "build"):
        command = commands.add_parser(name)
        command.add_argument("--icons", type=Path, required=True, help="folder of the npm packages")
        if name == "build":
            command.add_argument("--out", type=Path, required=True, help="folder for the data set")
            command.add_argument("--pixels", type=int, default=128, help="side of an image (128)")
            command.add_argument(
                "--breadth", type=float, default=0.0, help="share of the looks at subjects besides the known ones (0)"
            )
            command.add_argument("--processes", type=int, help="one per core unless told otherwise")
    chosen = parser.parse_args(arguments)
    if chosen.command == "fetch":
        icon_sets.fetch(TRAINING_SETS, chosen.icons)
        return
    data = build(chosen.icons, chosen.out, pixels=chosen.pixels, processes=chosen.processes, breadth=chosen.breadth)
    for split, count in Counter((entry.split, entry.set_key) for entry in data.entries).items():
        print(*split, count)
    print("subjects", len({entry.subject for entry in data.select("train").entries}))


if __name__ == "__main__":
    main()
