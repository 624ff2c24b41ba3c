"""Which parts of a draft's images count: masks that were uploaded beside them, and what was transparent in them.

Both wait in a folder of their own, as large as our copies of the images; a run is given those that its settings ask
for, as ``images/<id>-mask.png``, where the engine looks for them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image, ImageChops

from trainer.atomic import replace_file
from trainer.data.decoder import Decoder, Source
from trainer.data.doctor import Masks
from trainer.data.folder import MASK_ENDING
from trainer.findings import Finding
from trainer.studio.folder import StudioFolder

Kind = Literal["mask", "alpha"]
KINDS: tuple[Kind, ...] = ("mask", "alpha")
_ASKED: dict[Masks, tuple[Kind, ...]] = {"files": ("mask",), "alpha": ("mask", "alpha"), "off": ()}
"""By ``data.masks``, what counts; where an image has several, the first."""


class DraftMasks:
    """The masks of runs' images, in grey: black is not learned."""

    def __init__(self, home: StudioFolder) -> None:
        self._home = home

    def keep(self, run_id: str, image_id: str, kind: Kind, mask: Image.Image) -> None:
        """Keep a mask of the size of our copy of its image, in place of an earlier one."""
        file = self._file(run_id, image_id, kind)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, partial(mask.convert("L").save, format="PNG"))

    def layers(self, run_id: str, image_id: str) -> Iterator[tuple[Path, Path]]:
        """Each mask that the image has, and where it waits whole while a part of the image is used."""
        for kind in KINDS:
            file = self._file(run_id, image_id, kind)
            if file.is_file():
                yield file, self._home.whole_images(run_id) / file.name

    def copy(self, source: str, target: str, image_id: str) -> None:
        """Give another run's image the masks of this one's."""
        for file, whole in self.layers(source, image_id):
            to = self._home.masks(target) / file.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
            if whole.is_file():
                self._home.whole_images(target).mkdir(exist_ok=True)
                shutil.copyfile(whole, self._home.whole_images(target) / file.name)

    def finding(self, run_id: str, image_id: str, name: str, asked: Masks) -> Finding | None:
        """What is worth knowing of the mask that counts, by ``data.masks``; None where none does.

        Args:
            name: of the image.
        """
        kind = self._counting(run_id, image_id, asked)
        if kind is None:
            return None
        if kind == "alpha":
            return Finding(name, "mask", "note", "has a mask, its transparency", "what is transparent is not learned")
        file = f"{Path(name).stem}{MASK_ENDING}.png"
        return Finding(name, "mask", "note", f"has a mask, {file}", "what is black there is not learned")

    def lay_out(self, run_id: str, image_ids: Sequence[str], asked: Masks) -> None:
        """Put the masks that count where a run looks for them, and no others."""
        folder = self._home.images(run_id)
        for earlier in folder.glob(f"*{MASK_ENDING}.png"):
            earlier.unlink()
        for image_id in image_ids:
            if kind := self._counting(run_id, image_id, asked):
                shutil.copyfile(self._file(run_id, image_id, kind), folder / f"{image_id}{MASK_ENDING}.png")

    def _counting(self, run_id: str, image_id: str, asked: Masks) -> Kind | None:
        return next((kind for kind in _ASKED[asked] if self._file(run_id, image_id, kind).is_file()), None)

    def _file(self, run_id: str, image_id: str, kind: Kind) -> Path:
        return self._home.masks(run_id) / f"{image_id}-{kind}.png"


def transparency(source: Source, over_white: Decoder, over_black: Decoder, *, max_side: int) -> Image.Image:
    """How opaque each pixel of an image is, in grey, as large as `Decoder.copy` makes it.

    Raises:
        ImageError: as `Decoder.copy`.
    """
    white, black = (decoder.copy(source, max_side=max_side)[0].convert("L") for decoder in (over_white, over_black))
    # What the background shines through differs by the background; the rest is the image's own.
    return ImageChops.invert(ImageChops.difference(white, black))
