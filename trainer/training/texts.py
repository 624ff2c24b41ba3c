"""Texts that are encoded anew in every pass, because an adapter in training changes what text encoders say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.adapters.methods import METHODS
from trainer.bases.base import Base, TextFeatures


@dataclass(frozen=True)
class LiveTexts:
    """Stands for the text features of a run's texts, row by row, under the strengths that are set when it is asked.

    Gradients pass through it to adapters on the text encoders, whose strengths must be one row, or one for each text.

    Attributes:
        texts: by row number, as in `trainer.training.prepare.Prepared.features`.
        windows: most that are read of a text.
    """

    base: Base
    texts: tuple[str, ...]
    windows: int

    def rows(self, index: Tensor | Sequence[int]) -> TextFeatures:
        """The features of the texts at ``index``, in that order."""
        placement = self.base.placement
        if "text" in placement.parked:
            # What a backward pass needs must not be parked before it.
            placement.park(placement.parked - {"text"})
        asked = [self.texts[row] for row in torch.as_tensor(index).tolist()]
        return self.base.encode_texts(asked, windows=self.windows).to(self.base.device, self.base.dtype)


def learns_words(bank: Bank, style: str) -> bool:
    """Whether an adapter changes what text encoders say, so that nothing they said before can be kept for it."""
    return METHODS[bank[style].spec.method].site == "words"
