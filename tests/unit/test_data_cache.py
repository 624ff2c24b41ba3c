"""Latents and embeddings are computed once, survive damage, and belong to exactly their inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer.data.cache import (
    LatentCache,
    Latents,
    TextCache,
    TextEmbedding,
    cache_latents,
    cache_texts,
    latent_key,
    load_pixels,
    text_key,
)
from trainer.data.dataset import Example
from trainer.data.decoder import Decoder
from trainer.data.doctor import examine
from trainer.errors import BaseError, DatasetError, RunError


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    folder = tmp_path / "images"
    folder.mkdir()
    gradient = Image.linear_gradient("L")
    for i, size in enumerate([(64, 64), (160, 96), (64, 64)]):
        picture = Image.merge("RGB", [gradient.rotate(90 * i), gradient, gradient.rotate(180)])
        picture.resize(size).save(folder / f"cat {i}.png")
    return list(examine(folder, resolution=64, multiple=16).examples)


def pixels_of(example: Example) -> torch.Tensor:
    with Decoder() as decoder:
        return load_pixels(example, decoder)


class Encoder:
    """Means and deviations that depend on the pixels, and a count of what was asked."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes.append(tuple(pixels.shape))
        small = torch.nn.functional.avg_pool2d(pixels, 4)
        return torch.cat([small, small[:, :1]], dim=1), torch.cat([small, small[:, :1]], 1).exp()


def same(a: Latents, b: Latents) -> bool:
    return torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)


def test_pixels_are_the_crop_scaled_to_the_bucket(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), (0, 0, 0))
    image.paste((255, 255, 255), (100, 0, 200, 100))
    image.paste((255, 0, 0), (100, 0, 200, 50))
    image.save(tmp_path / "a.png")
    (example,) = examine(tmp_path, resolution=64, multiple=16, bucketing=False).examples
    assert example.crop == (100, 0, 200, 100)
    pixels = pixels_of(example)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.float32
    # Nothing of the black beyond the crop bleeds in: red over white, edge to edge.
    assert torch.equal(pixels[0], torch.ones(64, 64))
    assert torch.equal(pixels[1, :28], -torch.ones(28, 64))
    assert torch.equal(pixels[1, 36:], torch.ones(28, 64))


def test_pixels_of_a_picture_of_the_buckets_size_are_exact(examples: list[Example]) -> None:
    with Image.open(examples[0].path) as image:
        expected = [v / 127.5 - 1 for v in image.getpixel((5, 9))]  # type: ignore[union-attr]
    pixels = pixels_of(examples[0])
    assert torch.allclose(pixels[:, 9, 5], torch.tensor(expected), atol=1e-6)
    assert pixels.min() >= -1
    assert pixels.max() <= 1


def test_shrinking_looks_at_every_pixel(tmp_path: Path) -> None:
    stripes = Image.new("L", (512, 512))
    stripes.putdata([255 * (x % 2) for _ in range(512) for x in range(512)])
    stripes.convert("RGB").save(tmp_path / "a.png")
    (example,) = examine(tmp_path, resolution=64, multiple=16).examples
    inner = pixels_of(example)[:, 8:-8, 8:-8]
    assert inner.abs().max() < 0.05


def test_latents_are_computed_once_and_come_back_bit_for_bit(tmp_path: Path, examples: list[Example]) -> None:
    encode = Encoder()
    progress: list[tuple[int, int]] = []
    first = cache_latents(examples, encode, tmp_path / "c", vae="v", progress=lambda *n: progress.append(n))
    assert encode.shapes == [(1, 3, 64, 64), (1, 3, 48, 80), (1, 3, 64, 64)]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert first[1][0].mean.shape == (4, 12, 20)
    mean, std = encode(pixels_of(examples[1]).unsqueeze(0))
    assert same(first[1][0], Latents(mean[0], std[0]))

    again = Encoder()
    second = cache_latents(examples, again, tmp_path / "c", vae="v")
    assert again.shapes == []
    assert all(same(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_flipped_variants_are_those_of_the_flipped_pixels(tmp_path: Path, examples: list[Example]) -> None:
    encode = Encoder()
    result = cache_latents(examples[1:2], encode, tmp_path / "c", vae="v", flip=True)
    ((plain, flipped),) = result
    mean, std = Encoder()(pixels_of(examples[1]).flip(-1).contiguous().unsqueeze(0))
    assert same(flipped, Latents(mean[0], std[0]))
    assert not same(plain, flipped)
    cache_latents(examples[1:2], encode, tmp_path / "c", vae="v")
    assert len(encode.shapes) == 2


def test_the_key_depends_on_all_that_the_latents_depend_on(examples: list[Example]) -> None:
    example = examples[0]

    def key(example: Example = example, **changes: object) -> str:
        settings = {"vae": "v", "background": "white", "dtype": torch.float32, "flip": False}
        return latent_key(example, **(settings | changes))  # type: ignore[arg-type]

    keys = [
        key(),
        key(vae="w"),
        key(background="black"),
        key(dtype=torch.bfloat16),
        key(flip=True),
        key(replace(example, sha256="0" * 64)),
        key(replace(example, crop=(0, 0, 63, 64))),
        key(replace(example, bucket=(48, 64))),
    ]
    assert len(set(keys)) == len(keys)
    # What does not change the picture does not cost an encoding either.
    moved = replace(example, path=Path("elsewhere.png"), name="x", caption="y", content="y")
    assert key(moved) == key(background=" White") == key()


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "not ours", "garbage"])
def test_a_damaged_file_is_made_again(tmp_path: Path, examples: list[Example], damage: str) -> None:
    first = cache_latents(examples[:1], Encoder(), tmp_path / "c", vae="v")
    (file,) = (tmp_path / "c").iterdir()
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-40])
    elif damage == "flipped bit":
        data[-100] ^= 1
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 5000)
    else:
        save_file({"mean": torch.zeros(4, 16, 16), "std": torch.zeros(4, 16, 16)}, file)
    encode = Encoder()
    second = cache_latents(examples[:1], encode, tmp_path / "c", vae="v")
    assert len(encode.shapes) == 1
    assert same(first[0][0], second[0][0])
    assert LatentCache(tmp_path / "c").load(file.stem) is not None


def test_the_files_are_plain_safetensors(tmp_path: Path, examples: list[Example]) -> None:
    ((latents,),) = cache_latents(examples[:1], Encoder(), tmp_path / "c", vae="v", dtype=torch.float16)
    (file,) = (tmp_path / "c").iterdir()
    tensors = load_file(file)
    assert tensors.keys() == {"mean", "std"}
    assert tensors["mean"].dtype == latents.mean.dtype == torch.float16
    assert torch.equal(tensors["std"], latents.std)


def test_a_file_that_changed_since_it_was_examined_is_refused(tmp_path: Path, examples: list[Example]) -> None:
    Image.new("RGB", (64, 64), "red").save(examples[0].path)
    with pytest.raises(DatasetError, match=r"^cat 0\.png has changed since"):
        cache_latents(examples, Encoder(), tmp_path / "c", vae="v")
    Image.new("RGB", (65, 64), "red").save(examples[0].path)
    with pytest.raises(DatasetError, match=r"^cat 0\.png has changed since"):
        pixels_of(examples[0])
    examples[0].path.unlink()
    with pytest.raises(DatasetError, match=r"^cat 0\.png is not there any more.*put it back"):
        cache_latents(examples, Encoder(), tmp_path / "c", vae="v")


def test_a_cached_image_is_not_needed_any_more(tmp_path: Path, examples: list[Example]) -> None:
    first = cache_latents(examples, Encoder(), tmp_path / "c", vae="v")
    for example in examples:
        example.path.unlink()
    second = cache_latents(examples, Encoder(), tmp_path / "c", vae="v")
    assert all(same(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_latents_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path, examples: list[Example]) -> None:
    def broken(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pixels * float("nan"), pixels

    with pytest.raises(BaseError, match=r"cat 0\.png.*float32"):
        cache_latents(examples, broken, tmp_path / "c", vae="v")
    assert list((tmp_path / "c").iterdir()) == []
    # Finite in float32, beyond what float16 holds.
    with pytest.raises(BaseError, match=r"cat 0\.png"):
        cache_latents(examples, lambda p: (p * 1e6, p), tmp_path / "c", vae="v", dtype=torch.float16)


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path: Path, examples: list[Example]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"The cache folder .* cannot be made"):
        cache_latents(examples, Encoder(), tmp_path / "file" / "c", vae="v")


class TextEncoder:
    """Embeddings that depend on the text's length, and a list of what was asked."""

    def __init__(self, pooled: bool = True) -> None:
        self.asked: list[list[str]] = []
        self.pooled = pooled

    def __call__(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.asked.append(texts)
        lengths = torch.tensor([float(len(t)) for t in texts])
        hidden = lengths[:, None, None].expand(-1, 7, 5).sin()
        return hidden, lengths[:, None].expand(-1, 3).cos() if self.pooled else None


@pytest.mark.parametrize("pooled", [True, False])
def test_every_different_text_is_encoded_once(tmp_path: Path, pooled: bool) -> None:
    encode = TextEncoder(pooled)
    first = cache_texts(["a cat", "", "a cat"], encode, tmp_path / "c", encoder="e")
    assert encode.asked == [["a cat"], [""]]
    assert list(first) == ["a cat", ""]
    assert first["a cat"].hidden.shape == (7, 5)
    # Expanded views are kept as what they show, not as the storage behind them.
    assert torch.equal(first["a cat"].hidden, torch.full((7, 5), 5.0).sin())
    again = TextEncoder(pooled)
    second = cache_texts(["", "a cat", "new"], again, tmp_path / "c", encoder="e")
    assert again.asked == [["new"]]
    for text in ("", "a cat"):
        assert torch.equal(first[text].hidden, second[text].hidden)
        if pooled:
            one, two = first[text].pooled, second[text].pooled
            assert one is not None
            assert two is not None
            assert torch.equal(one, two)
        else:
            assert second[text].pooled is None


def test_the_texts_key_depends_on_encoder_clip_skip_and_type() -> None:
    keys = {
        text_key("a", encoder="e", clip_skip=0, dtype=torch.float32),
        text_key("b", encoder="e", clip_skip=0, dtype=torch.float32),
        text_key("a", encoder="f", clip_skip=0, dtype=torch.float32),
        text_key("a", encoder="e", clip_skip=1, dtype=torch.float32),
        text_key("a", encoder="e", clip_skip=0, dtype=torch.float16),
    }
    assert len(keys) == 5


def test_a_damaged_embedding_is_absent(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.store("k", TextEmbedding(torch.ones(2, 3)))
    assert cache.load("other") is None
    data = bytearray(cache.path("k").read_bytes())
    data[-1] ^= 1
    cache.path("k").write_bytes(data)
    assert cache.load("k") is None


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def broken(texts: list[str]) -> tuple[torch.Tensor, None]:
        return torch.full((len(texts), 2, 2), float("inf")), None

    with pytest.raises(BaseError, match=r"text encoder.*'a cat'"):
        cache_texts(["a cat"], broken, tmp_path, encoder="e")


def test_loaded_tensors_can_be_written_to_without_harm(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.store("k", TextEmbedding(torch.ones(2, 3)))
    loaded = cache.load("k")
    assert loaded is not None
    loaded.hidden.zero_()
    fresh = cache.load("k")
    assert fresh is not None
    assert torch.equal(fresh.hidden, torch.ones(2, 3))
