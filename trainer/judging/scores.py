"""The scores of one candidate (a checkpoint at a strength), each a pure function of what was measured.

Every score is a row of numbers, one for each picture (or prompt), so that their spread is known and candidates that
differ by chance alone can be told apart.

Shapes: P pictures of a candidate, N training images, K captions of a picture, L noise levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.judging.features import Features, layout_distances

SHRINK = 4.0
"""As if so many more training images had differed in every channel as much as channels do in the mean."""
LEAST_WAY = 0.1
"""Where the base draws the style already, a change by so much, as a logarithm, is the whole way."""


@dataclass(frozen=True)
class StyleScale:
    """What the style of a picture is measured by: how far it is from the middle of the training images.

    The distance is Mahalanobis' with independent channels: the squared difference to the mean of the training images,
    divided by how much those differ among themselves. A channel in which they all agree is what makes them one style; a
    channel that goes with the subject says little. With few images the variances are shrunk to their mean, as
    regularised discriminant analysis does (Friedman 1989, doi:10.1080/01621459.1989.10478752).

    Attributes:
        centre, spread: mean and variance of each channel's statistics over the training images, (2 F,).
        zero: the base's distance for each picture of the set, (P,).
        ceiling: the distance of a real picture of the style to the other ones.
    """

    centre: Tensor
    spread: Tensor
    zero: Tensor
    ceiling: float

    @classmethod
    def of(cls, base_pictures: Features, references: Features) -> StyleScale:
        """From the base's pictures of the same prompts and seeds, and the training images.

        Raises:
            ValueError: there is only one training image.
        """
        count = len(references)
        if count < 2:
            raise ValueError("one picture alone has no distance to its own style")
        seen = _statistics(references)
        shrunk = SHRINK / count * seen.var(dim=0, correction=0).mean()

        def middle(images: Tensor) -> tuple[Tensor, Tensor]:
            return images.mean(dim=0), (images.var(dim=0, correction=0) + shrunk).clamp(min=1e-12)

        # What a new picture of this style would have: each image is left out of the others in turn.
        own = [_distance(seen[[i]], *middle(torch.cat([seen[:i], seen[i + 1 :]]))) for i in range(count)]
        centre, spread = middle(seen)
        zero = _distance(_statistics(base_pictures), centre, spread)
        return cls(centre, spread, zero, float(torch.cat(own).mean()))

    def score(self, pictures: Features) -> Tensor:
        """How much of the way from the base to the training images each picture went, (P,), from -1 to 1.

        0 is drawn as the base draws, 1 as near as the training images are to each other. The way is one of ratios, each
        halving of the distance being as long as another: what is left at the end is plain to see and counts as much as
        the beginning. It is each picture's own, so that one that has far to go does not count for several.
        """
        way = self.zero.log() - math.log(max(self.ceiling, 1e-8))
        # Of a picture that the base happens to draw in the style a small change would else be a long way.
        least = max(float(way.mean()) / 2, LEAST_WAY)
        gone = (self.zero / _distance(_statistics(pictures), self.centre, self.spread)).log()
        return (gone / way.clamp(min=least)).clamp(-1, 1)


def _statistics(pictures: Features) -> Tensor:
    return torch.cat([pictures.mean, pictures.deviation], dim=1)


def _distance(statistics: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """Of each picture, (P,)."""
    return ((statistics - centre).square() / spread).mean(dim=1).clamp(min=1e-8)


def margins(errors: Tensor) -> Tensor:
    """How much better its own caption explains each picture than the best of the others, (P,), in errors' own size.

    The denoiser as a zero-shot classifier: of several captions the right one predicts a picture's noise best (Li et
    al., arXiv 2303.16203, algorithm 1). All captions see the same noise.

    Args:
        errors: squared error of each picture under each of its captions and noise levels, (P, K, L), its own first.
    """
    # Each level is weighed by its own size: easy levels would else decide nothing and hard ones everything.
    relative = (errors / errors.mean(dim=1, keepdim=True)).mean(dim=2)
    return relative[:, 1:].min(dim=1).values - relative[:, 0]


CERTAINTY = 7.0
"""How steeply a lead becomes certainty: half of the base's own lead leaves a doubt of 3%.

Fitted to what a network that was trained on real icons still named in fifteen runs (docs/judging.md).
"""


def subject_score(margin: Tensor, base_margin: Tensor) -> Tensor:
    """Does each picture still show its prompt? (P,), from 0 to 1.

    The chance that its prompt is the right one, a logistic function of how clearly it wins: almost 1 where it wins as
    it does for the base's own picture, 0.5 where another prompt explains it as well, almost 0 where another one wins by
    as much.

    Args:
        margin: `margins` of the pictures, (P,).
        base_margin: of the base's pictures of the same prompts, (P,).
    """
    # Where the base itself is in doubt, its doubt must not make every picture look certain.
    usual = base_margin.clamp(min=max(float(base_margin.median()) / 4, 1e-3))
    return torch.sigmoid(CERTAINTY * margin / usual)


def recall_score(recalled: Tensor, references: Tensor, mean: Tensor) -> Tensor:
    """Is an image known by heart? The share of what sets it apart from the others that its caption alone brings back.

    ``1 - |recalled - image|^2 / |mean - image|^2`` for each image, (N,): 0 for the mean of the images, which is what a
    style is without a subject, below 0 for another picture of its own, and 1 for the image itself. A caption that may
    stand for several pictures brings back their mean; it brings back one of them only when it stands for no other.

    Args:
        recalled: what `trainer.judging.eye.Eye.recalled` finds, (N, D).
        references: the images' latents on the same grid, (N, D).
        mean: of all training images, (D,).
    """
    apart = (references - mean).square().sum(dim=1)
    missed = (references - recalled).square().sum(dim=1)
    return 1 - missed / apart.clamp(min=1e-8)


@dataclass(frozen=True)
class Copy:
    """The nearest training image of one picture: ``nearness`` 1 is as near as training images are to each other."""

    image: int
    nearness: float


def copying(pictures: Features, references: Features) -> list[Copy]:
    """How near each picture is to its nearest training image, against how near those are to each other.

    ``nearness`` is the median distance of a training image to its nearest neighbour, divided by the picture's
    distance to its nearest one: well above 1 the picture repeats an image rather than its style.
    """
    among = layout_distances(references, references)
    among.fill_diagonal_(torch.inf)
    usual = float(among.min(dim=1).values.median())
    distances, index = layout_distances(pictures, references).min(dim=1)
    return [
        Copy(int(image), usual / max(float(distance), 1e-6)) for distance, image in zip(distances, index, strict=True)
    ]


def drift_score(with_style: Tensor, without: Tensor, other: Tensor) -> float:
    """How much prompts without the trigger change: 0 not at all, 1 as much as if another thing had been asked for.

    Args:
        with_style: predictions for each picture under its own prompt with the adapter open, (P, ...).
        without: the base's own for the same noise.
        other: the base's own for the same noise under another picture's prompt.
    """
    return float(_change(with_style, without) / _change(other, without).clamp(min=1e-6))


def _change(one: Tensor, usual: Tensor) -> Tensor:
    """Mean change of predictions relative to their size."""
    change = (one.float() - usual.float()).flatten(1).square().sum(dim=1)
    return (change / usual.float().flatten(1).square().sum(dim=1).clamp(min=1e-12)).sqrt().mean()


def variety_score(pictures: Features, base_pictures: Features) -> float:
    """Do pictures of other prompts and other noise stay different? Their mean distance from one another by the base's.

    It is a ratio of means: what the base draws alike, as a heart from any noise, would else make any change count.
    """
    ours, theirs = layout_distances(pictures, pictures), layout_distances(base_pictures, base_pictures)
    return float(ours.sum() / theirs.sum().clamp(min=1e-6))
