"""Which images make up which batch: pure arithmetic from the batch's index, nothing to resume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from trainer.randomness import permutation


class BatchPlan:
    """Batches of constant size, each from one bucket, in an order permuted anew every epoch.

    Args:
        bucket_of: for each image the number of its bucket (images of one bucket have one size).
        batch_size: images in a (micro-)batch.
        seed: the run's seed.

    Within an epoch every image is seen at least once. A bucket's last batch is filled up by
    starting its permutation again, so that shapes stay static: with 5 images and batches of 4,
    three images are seen twice, and other ones in the next epoch.

    Raises:
        ValueError: no images, or a batch size below 1.
    """

    def __init__(self, bucket_of: Sequence[int], batch_size: int, seed: int) -> None:
        if not bucket_of:
            raise ValueError("a batch plan needs at least one image")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.bucket_of = tuple(bucket_of)
        self.batch_size = batch_size
        self.seed = seed
        self._members = _members(self.bucket_of)
        self.batches_per_epoch = sum(-(-len(m) // batch_size) for m in self._members.values())
        # An epoch is asked for batch by batch; remembering two spares an epoch's worth of hashing.
        self._epoch = lru_cache(maxsize=2)(self._batches_of_epoch)

    def batch(self, index: int) -> list[int]:
        """The image numbers of the `index`-th batch of the run, counted from 0.

        Raises:
            IndexError: `index` is negative.
        """
        if index < 0:
            raise IndexError(f"batches are counted from 0, got {index}")
        epoch, position = divmod(index, self.batches_per_epoch)
        return list(self._epoch(epoch)[position])

    def _batches_of_epoch(self, epoch: int) -> list[tuple[int, ...]]:
        batches: list[tuple[int, ...]] = []
        for bucket, members in self._members.items():
            order = permutation(len(members), self.seed, "images", epoch, bucket)
            for start in range(0, len(members), self.batch_size):
                slots = range(start, start + self.batch_size)
                batches.append(tuple(members[order[slot % len(order)]] for slot in slots))
        return [batches[i] for i in permutation(len(batches), self.seed, "batches", epoch)]


def _members(bucket_of: tuple[int, ...]) -> dict[int, list[int]]:
    """Bucket number -> its images, buckets in ascending order."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for image, bucket in enumerate(bucket_of):
        members[bucket].append(image)
    return dict(sorted(members.items()))
