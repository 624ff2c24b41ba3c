"""What the loop reads: cached latents and text features on the device, and the batch of each pass.

Every draw is a function of (seed, purpose, step, slot), so a resumed run sees what the uninterrupted one would have.
Shapes: B batch, V variants (1, or 2 with flip), C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures
from trainer.bases.placement import sent
from trainer.data.sampler import BatchPlan
from trainer.noise import gaussian, uniform
from trainer.randomness import stable_seed
from trainer.training.texts import LiveTexts

DEVICE_LATENTS = 256 * 2**20
"""Bytes of latents that lie on the device (about 2,000 images at 512 px); more are sent as they are drawn."""


@dataclass(frozen=True)
class TrainingImage:
    """One image as the loop sees it.

    Attributes:
        mean, std: its latents' mean and standard deviation, each (V, C, h, w), unscaled.
        text: row of its caption among the text features.
        orders: rows of its caption with the tags in other orders, which are trained on instead; empty where it is
            always the same.
        plain: row of the caption without the trigger, or of each order without it; empty where none is needed.
        mask: how much each latent cell counts, (V, 1, h, w), 0 to 1; None where all count.
        repeats: how often it comes in an epoch.
    """

    mean: Tensor
    std: Tensor
    text: int
    sizes: tuple[SizeFacts, ...]
    orders: tuple[int, ...] = ()
    plain: tuple[int, ...] = ()
    mask: Tensor | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        latents, noise: scaled, (B, C, h, w).
        timesteps: (B,).
        conditioning: what the denoiser is told of B + K rows.
        taught: the K rows that must give what the base gives; the rows from B on are they once more, without style.
        mask: how much each cell counts, (B, 1, h, w); None where all do.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    taught: tuple[int, ...] = ()
    mask: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Conditioning, tuple[int, ...], Tensor | None]:
        """What `trainer.bases.base.Base.errors` takes."""
        return self.latents, self.noise, self.timesteps, self.conditioning, self.taught, self.mask


class Batches:
    """Draws batches from images whose latents and text features lie on the device.

    Args:
        base: conditions its denoiser and scales latents.
        images: the training images; those of one latent shape form a bucket.
        features: text features, one row for each distinct text; row 0 is the empty text. Those of `LiveTexts` are of
            the strengths that are set while a batch is drawn.
        batch_size: images in a batch.
        accumulation: batches in an optimizer step.
        images_per_pass: images that go through the model at once, a divisor of ``batch_size``; None is a whole batch.
            It decides nothing but memory: the same images meet the same noise whatever it is.
        seed: the run's seed.
        caption_dropout: share of the draws that see the empty text.
        preserve: share of the draws that see the caption without the trigger and learn what the base answers to it.
        noise_offset: deviation of a shift that the noise of a whole channel has.
        noise_levels: whether all noise levels are drawn alike, or mostly high ones.
    """

    def __init__(
        self,
        base: Base,
        images: Sequence[TrainingImage],
        features: TextFeatures | LiveTexts,
        *,
        batch_size: int,
        accumulation: int = 1,
        images_per_pass: int | None = None,
        seed: int = 0,
        caption_dropout: float = 0.0,
        preserve: float = 0.0,
        noise_offset: float = 0.0,
        noise_levels: Literal["even", "high"] = "even",
    ) -> None:
        self.base = base
        self.images = list(images)
        self.features = features
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.images_per_pass = images_per_pass or batch_size
        self.seed = seed
        self.caption_dropout = caption_dropout
        self.preserve = preserve
        self.noise_offset = noise_offset
        self.timestep = base.process.timestep if noise_levels == "even" else base.process.noisy_timestep
        size = sum(image.mean.nbytes + image.std.nbytes for image in self.images)
        home = base.device if size <= DEVICE_LATENTS else torch.device("cpu")
        self._latents, self._place = _stack_by_shape(self.images, home)
        self._turns = [index for index, image in enumerate(self.images) for _ in range(image.repeats)]
        self.plan = BatchPlan([self._place[index][0] for index in self._turns], batch_size, seed)

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes whose gradients add up to one optimizer step."""
        return self.accumulation * (self.batch_size // self.images_per_pass)

    @property
    def buckets(self) -> int:
        """How many image shapes there are."""
        return len(self._latents)

    @property
    def largest(self) -> list[int]:
        """Images of one pass from the bucket with the most latent cells: what memory is measured on."""
        sizes = [mean.shape[-1] * mean.shape[-2] for mean, _ in self._latents]
        biggest = max(range(len(sizes)), key=sizes.__getitem__)
        epoch = (self._members(index) for index in range(self.plan.batches_per_epoch))
        return next(batch for batch in epoch if self._place[batch[0]][0] == biggest)[: self.images_per_pass]

    def draw(self, step: int, number: int = 0) -> Batch:
        """What a step's ``number``-th pass sees."""
        first = number * self.images_per_pass
        batch, start = divmod(first, self.batch_size)
        members = self._members(step * self.accumulation + batch)
        return self.compose(members[start : start + self.images_per_pass], step, first_slot=first)

    def _members(self, batch: int) -> list[int]:
        """The images of the run's ``batch``-th batch."""
        return [self._turns[turn] for turn in self.plan.batch(batch)]

    def heaviest(self) -> Batch:
        """As large a batch as any that will be drawn: of the `largest` images, all of them taught if any may be."""
        return self.compose(self.largest, 0, taught=range(self.images_per_pass) if self.preserve else None)

    def compose(
        self, members: Sequence[int], step: int, *, first_slot: int = 0, taught: Iterable[int] | None = None
    ) -> Batch:
        """A batch of the given images (all of one bucket) with the draws of ``step``'s slots from ``first_slot`` on.

        Args:
            taught: rows that must give what the base gives; None draws them.
        """
        slots = range(first_slot, first_slot + len(members))
        bucket = self._place[members[0]][0]
        mean, std = self._latents[bucket]
        variants = mean.shape[1]
        flips = [stable_seed(self.seed, "flip", step, slot) % variants for slot in slots]
        rows = torch.tensor([self._place[i][1] for i in members])
        place = (sent(rows, mean.device), sent(torch.tensor(flips), mean.device))
        latents = sent(mean[place], self.base.device)
        if self.base.family.draws_latents:
            jitter = self._gaussian(mean.shape[2:], "posterior", step, slots)
            latents = latents + sent(std[place], self.base.device) * jitter
        latents = self.base.scale_latents(latents)
        timesteps = [self.timestep(stable_seed(self.seed, "timestep", step, slot)) for slot in slots]
        if taught is None:
            drawn = enumerate(slots) if self.preserve else ()
            taught = [row for row, slot in drawn if uniform(self.seed, "preserve", step, slot) < self.preserve]
        kept = tuple(row for row in taught if row < len(members))
        seen = enumerate(zip(members, slots, strict=True))
        texts = [self._text(i, step, slot, plain=row in kept) for row, (i, slot) in seen]
        sizes = [self.images[i].sizes[flip] for i, flip in zip(members, flips, strict=True)]
        texts += [texts[row] for row in kept]
        sizes += [sizes[row] for row in kept]
        noise = self._gaussian(mean.shape[2:], "noise", step, slots)
        if self.noise_offset:
            # Guttenberg, "Diffusion with offset noise", 2023.
            noise = noise + self.noise_offset * self._gaussian((mean.shape[2], 1, 1), "offset", step, slots)
        return Batch(
            latents=latents,
            noise=noise,
            timesteps=sent(torch.tensor(timesteps), self.base.device),
            conditioning=self.base.conditioning(self.features.rows(texts).to(self.base.device), sizes),
            taught=kept,
            mask=self._mask(members, flips, kept),
        )

    def _mask(self, members: Sequence[int], flips: Sequence[int], taught: Sequence[int]) -> Tensor | None:
        """How much cells count; all of those do that the base itself answers for."""
        masks = [self.images[i].mask for i in members]
        if all(mask is None for mask in masks):
            return None
        whole = torch.ones(1, *self.images[members[0]].mean.shape[-2:])
        rows = [whole if mask is None or row in taught else mask[flips[row]] for row, mask in enumerate(masks)]
        return sent(torch.stack(rows), self.base.device)

    def _text(self, index: int, step: int, slot: int, *, plain: bool) -> int:
        """Row of the text that an image is seen with."""
        image = self.images[index]
        choice = stable_seed(self.seed, "tags", step, slot) if image.orders else 0
        if plain:
            return image.plain[choice % len(image.plain)]
        if uniform(self.seed, "caption", step, slot) < self.caption_dropout:
            return 0
        return image.orders[choice % len(image.orders)] if image.orders else image.text

    def _gaussian(self, shape: Sequence[int], purpose: str, step: int, slots: range) -> Tensor:
        noise = gaussian(shape, [stable_seed(self.seed, purpose, step, slot) for slot in slots])
        return sent(noise, self.base.device)


def _stack_by_shape(
    images: Sequence[TrainingImage], device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[int, int]]]:
    """Latents of one shape stacked to (N, V, C, h, w), and for each image its (bucket, row)."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        members.setdefault(tuple(image.mean.shape), []).append(index)
    stacks: list[tuple[Tensor, Tensor]] = []
    place: list[tuple[int, int]] = [(0, 0)] * len(images)
    for bucket, shape in enumerate(sorted(members)):
        for row, index in enumerate(members[shape]):
            place[index] = (bucket, row)
        mean = torch.stack([images[i].mean for i in members[shape]])
        std = torch.stack([images[i].std for i in members[shape]])
        stacks.append((mean.to(device), std.to(device)))
    return stacks, place


def join(base: Base, batches: Sequence[Batch]) -> Batch:
    """Batches of one latent shape as one, their rows in order."""
    if len(batches) == 1:
        return batches[0]
    assert not any(batch.taught for batch in batches), "rows of the base would stand between others' rows"
    return Batch(
        latents=torch.cat([batch.latents for batch in batches]),
        noise=torch.cat([batch.noise for batch in batches]),
        timesteps=torch.cat([batch.timesteps for batch in batches]),
        conditioning=base.joined([batch.conditioning for batch in batches]),
        mask=_joined_masks(batches),
    )


def _joined_masks(batches: Sequence[Batch]) -> Tensor | None:
    if all(batch.mask is None for batch in batches):
        return None
    return torch.cat([torch.ones_like(batch.latents[:, :1]) if batch.mask is None else batch.mask for batch in batches])
