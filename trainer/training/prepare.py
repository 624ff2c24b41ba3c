"""From a folder of images to what the loop reads: examined, encoded once, split into training and held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trainer.atomic import write_file
from trainer.bases.base import Base, SizeFacts, TextFeatures
from trainer.config import RunConfig
from trainer.config.sections import ChangedImages, focus_points, repeat_counts
from trainer.data.cache import Latents, TextEmbedding, cache_latents, cache_texts
from trainer.data.captions import compose
from trainer.data.dataset import Dataset, Example
from trainer.data.decoder import Source
from trainer.data.doctor import examine
from trainer.data.masks import masks_of
from trainer.data.tags import kind_of, orders_for, plain, shuffled, without
from trainer.errors import ConfigError, DatasetError, DoesNotFit, ImageError, ImagesChanged
from trainer.training.batches import TrainingImage
from trainer.training.room import if_it_fits
from trainer.training.run_folder import RunFolder
from trainer.training.texts import LiveTexts
from trainer.training.validation import held_out

Counted = Callable[[int, int], None]
DEVICE_TEXTS = 256 * 2**20
"""Bytes of text features that lie on the device: about 850 captions of one window of SDXL in half precision."""
MOST_NAMED = 5
"""Images that one sentence names."""


@dataclass(frozen=True)
class Prepared:
    """What a run trains on: images with row numbers into ``features``, whose row 0 is the empty text.

    Attributes:
        texts: what the rows of ``features`` were made of.
        windows: most that were read of a text.
    """

    training: tuple[TrainingImage, ...]
    validation: tuple[TrainingImage, ...]
    features: TextFeatures
    texts: tuple[str, ...] = ("",)
    windows: int = 1

    def told(self, base: Base, *, anew: bool) -> TextFeatures | LiveTexts:
        """What batches read their texts' features from.

        Args:
            anew: for an adapter that changes what the text encoders say (`trainer.training.texts.learns_words`).
        """
        return LiveTexts(base, self.texts, self.windows) if anew else self.features


def read_dataset(
    folder: RunFolder,
    config: RunConfig,
    base: Base,
    progress: Counted | None = None,
    note: Callable[[str], object] = lambda sentence: None,
) -> Dataset:
    """The run's dataset.json, or what is found in its image folder, which is then written down.

    Args:
        note: told in a sentence of images that are gone or changed since it was written.

    Raises:
        DatasetError: no usable image, or a caption file that cannot be read.
        ImagesChanged: images are gone or changed, and ``data.changed_images`` refuses that.
        ConfigError: no image folder was named.
    """
    if folder.dataset_file.is_file():
        written = Dataset.from_json(folder.dataset_file.read_text(encoding="utf-8"))
        found = replace(written, examples=tuple(_where_it_is_now(example, folder) for example in written.examples))
        return _as_wished(found, folder, config.data.changed_images, note)
    if not config.data.images:
        raise ConfigError("data.images is empty: name the folder with the images of the style.")
    images = Path(config.data.images).expanduser()
    dataset = examine(
        images if images.exists() or not folder.images.is_dir() else folder.images,
        resolution=config.data.resolution or base.resolution,
        multiple=base.side_multiple,
        background=config.data.background,
        trigger=config.trigger,
        bucketing=config.data.buckets,
        count_tokens=base.count_tokens,
        token_limit=base.token_limit,
        masks=config.data.masks,
        focus=focus_points(config.data.focus),
        repeats=repeat_counts(config.data.repeats),
        progress=progress,
    )
    write_file(folder.dataset_file, dataset.to_json().encode())
    return dataset


def _where_it_is_now(example: Example, folder: RunFolder) -> Example:
    """An image that the run folder holds itself is found there, too, after the folder was moved."""
    own = folder.images / example.name
    return replace(example, path=own) if not example.path.is_file() and own.is_file() else example


def _as_wished(dataset: Dataset, folder: RunFolder, wish: ChangedImages, note: Callable[[str], object]) -> Dataset:
    """The dataset of a run that goes on, after a look at what became of its images meanwhile."""
    changes = {example.name: change for example in dataset.examples if (change := _change(example))}
    if not changes:
        return dataset
    named = ", ".join(f"{name} {change}" for name, change in list(changes.items())[:MOST_NAMED])
    more = len(changes) - MOST_NAMED
    said = f"Since the run began, {named}{f' and {more} more' if more > 0 else ''}."
    if wish == "refuse":
        raise ImagesChanged(
            f"{said} Put the files back, or go on in spite of it with --changed-images keep or leave_out."
        )
    if wish == "keep":
        note(f"{said} The training goes on with what it made of them then.")
        return dataset
    left = tuple(example for example in dataset.examples if example.name not in changes)
    if not left:
        raise ImagesChanged(f"{said} No image is left to go on with: put the files back, or start a new run.")
    findings = tuple(finding for finding in dataset.findings if finding.image not in changes)
    dataset = replace(dataset, examples=left, findings=findings)
    write_file(folder.dataset_file, dataset.to_json().encode())
    note(f"{said} The training goes on without, with {len(left)} image{'s' * (len(left) != 1)}.")
    return dataset


def _change(example: Example) -> str:
    """What became of an image, or empty when it is as it was."""
    try:
        return "" if Source.read(example.path).sha256 == example.sha256 else "was changed"
    except ImageError:
        return "can no longer be read" if example.path.exists() else "is gone"


def prepare(dataset: Dataset, config: RunConfig, base: Base, cache: Path, progress: Counted | None = None) -> Prepared:
    """Encode every image and caption that the cache does not hold, and split off the held-out images.

    When that runs out of memory the denoiser makes room on the device, and what is not encoded yet is tried again.

    Raises:
        DatasetError: an image is gone or has changed.
        DoesNotFit: not even then is there enough memory.
        BaseError: the base makes something of an image or caption that is no number.
        RunError: the cache cannot be written.
    """
    for attempt in (nullcontext(), base.placement.away("denoiser")):
        with attempt:
            prepared = if_it_fits(base, lambda: _prepared(dataset, config, base, cache, progress))
        if prepared is not None:
            return prepared
    raise DoesNotFit(
        "Encoding images and captions needs more memory than there is: close other programs, or set data.resolution "
        f"below {config.data.resolution or base.resolution}."
    )


def _prepared(dataset: Dataset, config: RunConfig, base: Base, cache: Path, progress: Counted | None) -> Prepared:
    latents = cache_latents(
        dataset.examples,
        base.encode_images,
        cache / "latents",
        vae=base.vae_identity,
        background=config.data.background,
        flip=config.data.flip,
        progress=progress,
    )

    windows = min(dataset.windows, base.windows)

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = base.encode_texts(texts, windows=windows)
        return found.hidden, found.pooled

    def windows_of(text: str) -> int:
        return windows if windows > 1 and base.count_tokens(text) > base.window_tokens else 1

    spoken = [captions_of(example, dataset, config) for example in dataset.examples]
    texts = ["", *dict.fromkeys(text for own in spoken for text in own.all)]
    embeddings = cache_texts(
        texts,
        encode,
        cache / "texts",
        encoder=base.text_identity,
        clip_skip=base.clip_skip,
        dtype=base.dtype,
        windows=windows_of,
    )
    row = {text: index for index, text in enumerate(embeddings)}
    masks = masks_of(dataset.examples, base.vae_factor, flip=config.data.flip)
    images = [
        replace(
            _image(example, found, row[example.caption]),
            orders=tuple(row[text] for text in own.orders),
            plain=tuple(row[text] for text in own.plain),
            mask=mask,
            repeats=example.repeats,
        )
        for example, found, own, mask in zip(dataset.examples, latents, spoken, masks, strict=True)
    ]
    kept_out = set(held_out(len(images), config.data.validation_share, config.train.seed))
    if config.data.validation_share and not kept_out:
        raise DatasetError("data.validation_share needs at least two images, so that one is left to train on.")
    return Prepared(
        training=tuple(image for index, image in enumerate(images) if index not in kept_out),
        validation=tuple(_upright(image) for index, image in enumerate(images) if index in kept_out),
        features=_at_home(_stacked(list(embeddings.values())), base.device),
        texts=tuple(embeddings),
        windows=windows,
    )


def _at_home(features: TextFeatures, device: torch.device) -> TextFeatures:
    """On the device unless there are very many, which are sent as they are drawn."""
    return features.to(device) if features.hidden.nbytes <= DEVICE_TEXTS else features


@dataclass(frozen=True)
class Spoken:
    """The texts that one image is trained with: its caption, other orders of it, and those without the trigger."""

    caption: str
    orders: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (self.caption, *self.orders, *self.plain)


def captions_of(example: Example, dataset: Dataset, config: RunConfig) -> Spoken:
    """What an image's caption becomes, by the run's settings; with the defaults it is just that."""
    data, trigger = config.data, config.trigger
    preserved = config.train.preserve > 0
    kind = data.caption_kind if data.caption_kind != "auto" else kind_of(e.content for e in dataset.examples)
    if kind != "tags" or not (data.shuffle_tags or data.tag_dropout):
        return Spoken(example.caption, plain=(plain(example.content, trigger),) if preserved else ())
    seen = (config.train.steps or 0) * (config.optim.batch_size or 1) * config.optim.gradient_accumulation
    made = shuffled(
        without(example.content, trigger),
        count=orders_for(len(dataset.examples), seen),
        seed=config.train.seed,
        image=example.sha256,
        shuffle=data.shuffle_tags,
        keep=data.keep_tags,
        dropout=data.tag_dropout,
    )
    orders = tuple(compose(text, trigger) for text in made)
    return Spoken(example.caption, orders, tuple(plain(text, trigger) for text in made) if preserved else ())


def _image(example: Example, variants: Sequence[Latents], text: int) -> TrainingImage:
    return TrainingImage(
        mean=torch.stack([latents.mean for latents in variants]),
        std=torch.stack([latents.std for latents in variants]),
        text=text,
        sizes=tuple(_sizes(example, mirrored) for mirrored in (False, True)[: len(variants)]),
    )


def _sizes(example: Example, mirrored: bool) -> SizeFacts:
    """Size conditioning as SDXL was trained: the crop's corner counts in pixels of the scaled, uncut picture."""
    left, top, right, bottom = example.crop
    scale_x, scale_y = example.bucket[0] / (right - left), example.bucket[1] / (bottom - top)
    from_left = example.width - right if mirrored else left
    return SizeFacts(
        original=(example.width, example.height),
        crop=(round(from_left * scale_x), round(top * scale_y)),
        target=example.bucket,
    )


def _upright(image: TrainingImage) -> TrainingImage:
    """Only the variant that is not mirrored: held-out images are always seen alike."""
    mask = None if image.mask is None else image.mask[:1]
    return TrainingImage(image.mean[:1], image.std[:1], image.text, image.sizes[:1], mask=mask)


def _stacked(embeddings: Sequence[TextEmbedding]) -> TextFeatures:
    pooled = [e.pooled for e in embeddings if e.pooled is not None]
    return TextFeatures.of([e.hidden for e in embeddings], pooled or None)
