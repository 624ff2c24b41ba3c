"""Latents and text embeddings, computed once and kept on disk under a hash of what they depend on.

Shapes: B batch, C latent channels, H W image pixels, h w latent pixels, L tokens, D width of a text
encoder's hidden state, P width of its pooled one.

Every image and text is encoded alone: in a batch the last bits of the result depend on its
neighbours, and a run that was interrupted while it filled the cache would end up with other bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.data.dataset import Example
from trainer.data.decoder import Decoder, Source
from trainer.errors import BaseError, ImageError, ImagesChanged, RunError
from trainer.safetensors_file import HASH_KEY, hash_of_tensors, read_header, read_tensors, write

PIXELS_VERSION = 1
"""Part of every latent's key: raise it when `load_pixels` makes other pixels of the same image."""

_HASH_KEY_OF_0_1 = "sha256"

Progress = Callable[[int, int], None]
"""Told (items done, items in all)."""

EncodeImages = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Pixels (B, 3, H, W), float32 in [-1, 1] -> posterior mean and standard deviation, each (B, C, h, w)."""

EncodeTexts = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor | None]]
"""B texts -> hidden states (B, L, D) and, where the base has them, pooled ones (B, P)."""


@dataclass(frozen=True)
class Latents:
    """The VAE's posterior of one image: `mean` and `std`, each (C, h, w)."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class TextEmbedding:
    """What the text encoders make of one text: `hidden` (L, D) and perhaps `pooled` (P,)."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None


class _TensorFiles:
    """A folder of safetensors files named by their keys; a file that fails its checksum is absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The cache folder {folder} cannot be made ({error.strerror}).") from error

    def path(self, key: str) -> Path:
        """The file of a key, whether it exists or not."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors under a key; None when there are none or the file is torn or altered."""
        try:
            header = read_header(self.path(key), RunError)
            stored = header.metadata.get(HASH_KEY) or header.metadata.get(_HASH_KEY_OF_0_1)
            return read_tensors(header, raises=RunError) if stored == hash_of_tensors(header) else None
        except (OSError, RunError):
            return None

    def write(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors under a key.

        Raises:
            RunError: the disk is full or the folder may not be written.
        """
        try:
            write(self.path(key), tensors, {})
        except OSError as error:
            raise RunError(
                f"The cache folder {self.folder} cannot be written ({error.strerror or error}): free some space, "
                "or look at its rights."
            ) from error


class LatentCache:
    """Latents on disk, one file per image and variant."""

    def __init__(self, folder: Path) -> None:
        self._files = _TensorFiles(folder)

    def path(self, key: str) -> Path:
        """The file of a key, whether it exists or not."""
        return self._files.path(key)

    def load(self, key: str) -> Latents | None:
        """The latents under a key from `latent_key`; None when they must be computed."""
        tensors = self._files.read(key)
        if tensors is None or tensors.keys() != {"mean", "std"}:
            return None
        return Latents(tensors["mean"], tensors["std"])

    def store(self, key: str, latents: Latents) -> None:
        """Keep latents under a key.

        Raises:
            RunError: the disk is full or the folder may not be written.
        """
        self._files.write(key, {"mean": latents.mean, "std": latents.std})


class TextCache:
    """Text embeddings on disk, one file per text."""

    def __init__(self, folder: Path) -> None:
        self._files = _TensorFiles(folder)

    def path(self, key: str) -> Path:
        """The file of a key, whether it exists or not."""
        return self._files.path(key)

    def load(self, key: str) -> TextEmbedding | None:
        """The embedding under a key from `text_key`; None when it must be computed."""
        tensors = self._files.read(key)
        if tensors is None or "hidden" not in tensors:
            return None
        return TextEmbedding(tensors["hidden"], tensors.get("pooled"))

    def store(self, key: str, embedding: TextEmbedding) -> None:
        """Keep an embedding under a key.

        Raises:
            RunError: the disk is full or the folder may not be written.
        """
        tensors = {"hidden": embedding.hidden}
        if embedding.pooled is not None:
            tensors["pooled"] = embedding.pooled
        self._files.write(key, tensors)


def latent_key(example: Example, *, vae: str, background: str, dtype: torch.dtype, flip: bool) -> str:
    """Hash of everything that an image's latents depend on; `vae` identifies the encoder's weights."""
    return _key(
        "latents",
        PIXELS_VERSION,
        example.sha256,
        example.crop,
        example.bucket,
        flip,
        background.strip().lower(),
        vae,
        str(dtype),
    )


def text_key(text: str, *, encoder: str, clip_skip: int, dtype: torch.dtype, windows: int = 1) -> str:
    """Hash of everything that a text's embedding depends on.

    Args:
        encoder: identifies its weights.
        windows: how many windows of a text are read that does not fit into one; 1 for any that does.
    """
    return _key("text", text, encoder, clip_skip, str(dtype), *([windows] if windows > 1 else []))


def load_pixels(example: Example, decoder: Decoder) -> torch.Tensor:
    """The training picture of an example: (3, H, W), float32 in [-1, 1], H and W its bucket's.

    Raises:
        ImageError: the file cannot be read any more.
        ImagesChanged: it is another file than the one that was examined.
    """
    source = Source.read(example.path)
    if source.sha256 != example.sha256:
        raise ImagesChanged(_changed(example))
    picture, facts = decoder.picture(source, crop=example.crop, size=example.bucket)
    if (facts.width, facts.height) != (example.width, example.height):
        raise ImagesChanged(_changed(example))
    width, height = example.bucket
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return (pixels.view(height, width, 3).permute(2, 0, 1).float() / 127.5 - 1.0).contiguous()


def cache_latents(
    examples: Sequence[Example],
    encode: EncodeImages,
    folder: Path,
    *,
    vae: str,
    dtype: torch.dtype = torch.float32,
    background: str = "white",
    flip: bool = False,
    progress: Progress | None = None,
) -> list[tuple[Latents, ...]]:
    """The latents of every example: as it is and, with `flip`, mirrored as the second variant.

    Args:
        encode: called for one picture at a time, and only for what the cache does not hold.
        vae: identity of the encoder's weights and settings.
        dtype: what the latents are kept in.

    Raises:
        DatasetError: an image is gone, unreadable or another one than was examined.
        BaseError: the encoder made something that is not finite.
        RunError: the cache cannot be written.
        ConfigError: `background` is no colour.
    """
    cache = LatentCache(folder)
    variants = (False, True) if flip else (False,)
    result: list[tuple[Latents, ...]] = []
    with Decoder(background=background) as decoder:
        for done, example in enumerate(examples, start=1):
            pixels: torch.Tensor | None = None
            found: list[Latents] = []
            for flipped in variants:
                key = latent_key(example, vae=vae, background=background, dtype=dtype, flip=flipped)
                latents = cache.load(key)
                if latents is None:
                    pixels = _pixels(example, decoder) if pixels is None else pixels
                    latents = _encode_image(example, encode, pixels.flip(-1) if flipped else pixels, dtype)
                    cache.store(key, latents)
                found.append(latents)
            result.append(tuple(found))
            if progress is not None:
                progress(done, len(examples))
    return result


def cache_texts(
    texts: Iterable[str],
    encode: EncodeTexts,
    folder: Path,
    *,
    encoder: str,
    clip_skip: int = 0,
    dtype: torch.dtype = torch.float32,
    windows: Callable[[str], int] = lambda text: 1,
    progress: Progress | None = None,
) -> dict[str, TextEmbedding]:
    """The embedding of every different text; `encode` is called for one missing text at a time.

    Args:
        windows: of a text, as `text_key` wants it.

    Raises:
        BaseError: the encoder made something that is not finite.
        RunError: the cache cannot be written.
    """
    cache = TextCache(folder)
    unique = list(dict.fromkeys(texts))
    result: dict[str, TextEmbedding] = {}
    for done, text in enumerate(unique, start=1):
        key = text_key(text, encoder=encoder, clip_skip=clip_skip, dtype=dtype, windows=windows(text))
        embedding = cache.load(key)
        if embedding is None:
            embedding = _encode_text(text, encode, dtype)
            cache.store(key, embedding)
        result[text] = embedding
        if progress is not None:
            progress(done, len(unique))
    return result


def _pixels(example: Example, decoder: Decoder) -> torch.Tensor:
    try:
        return load_pixels(example, decoder)
    except ImageError as error:
        raise ImagesChanged(
            f"{error} The run needs it: put it back, or go on without it (--changed-images leave_out)."
        ) from error


def _encode_image(example: Example, encode: EncodeImages, pixels: torch.Tensor, dtype: torch.dtype) -> Latents:
    with torch.no_grad():
        mean, std = encode(pixels.contiguous().unsqueeze(0))
    latents = Latents(_kept(mean[0], dtype), _kept(std[0], dtype))
    if not (_finite(latents.mean) and _finite(latents.std)):
        raise BaseError(f"The base's VAE makes no finite latents of {example.name}: it needs float32, or is damaged.")
    return latents


def _encode_text(text: str, encode: EncodeTexts, dtype: torch.dtype) -> TextEmbedding:
    with torch.no_grad():
        hidden, pooled = encode([text])
    embedding = TextEmbedding(_kept(hidden[0], dtype), None if pooled is None else _kept(pooled[0], dtype))
    if not _finite(embedding.hidden) or not (pooled is None or _finite(pooled)):
        raise BaseError(
            f"The base's text encoder makes no finite embedding of {text!r}: it needs float32, or is damaged."
        )
    return embedding


def _kept(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy in main memory that holds on to nothing larger than itself."""
    return tensor.detach().to(device="cpu", dtype=dtype, copy=True).contiguous()


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _changed(example: Example) -> str:
    return (
        f"{example.name} has changed since it was examined, and what was made of it then is gone: put the old file "
        "back, or go on without it (--changed-images leave_out)."
    )


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode("ascii")).hexdigest()
