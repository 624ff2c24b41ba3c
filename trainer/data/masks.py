"""How much each part of an image counts in training: a mask beside it, or its own transparency."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainer.data.dataset import Example
from trainer.data.decoder import Decoder, Source
from trainer.errors import ImageError, ImagesChanged


def masks_of(examples: Sequence[Example], factor: int, *, flip: bool = False) -> list[Tensor | None]:
    """Each image's mask in latent cells, (V, 1, h, w) from 0 to 1, mirrored too with ``flip``; None where it has none.

    Args:
        factor: pixels of a latent cell along a side; a cell counts as the mean of its pixels does.

    Raises:
        ImagesChanged: a mask is gone, or is another file than was examined.
    """
    if not any(example.mask or example.alpha for example in examples):
        return [None] * len(examples)
    with Decoder(background="white") as over_white, Decoder(background="black") as over_black:
        return [_mask(example, factor, over_white, over_black, flip=flip) for example in examples]


def _mask(example: Example, factor: int, over_white: Decoder, over_black: Decoder, *, flip: bool) -> Tensor | None:
    if example.mask is None and not example.alpha:
        return None
    file = example.mask or example.path
    try:
        source = Source.read(file)
        if source.sha256 != (example.mask_sha256 if example.mask else example.sha256):
            raise ImagesChanged(f"{file.name} has changed since it was examined: put the old file back.")
        light = _grey(over_white, source, example)
        # What the background shines through differs by the background; the rest is the image's own.
        shown = light if example.mask else 1 - (light - _grey(over_black, source, example))
    except ImageError as error:
        raise ImagesChanged(f"{error} The run needs it: put it back, or start a new run without it.") from error
    cells = avg_pool2d(shown.clamp(0, 1)[None], factor)
    return torch.stack([cells, cells.flip(-1)]) if flip else cells[None]


def _grey(decoder: Decoder, source: Source, example: Example) -> Tensor:
    """The image's cut as it is trained on, in grey from 0 to 1, (H, W)."""
    picture, _ = decoder.picture(source, crop=example.crop, size=example.bucket)
    grey = picture.convert("L")
    return torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8).view(grey.height, grey.width).float() / 255
