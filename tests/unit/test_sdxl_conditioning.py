"""SDXL's conditioning, value by value against the installed diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import SIDE, TinyModel, build, save_folder

from trainer.bases.base import Base, SizeFacts, TextFeatures
from trainer.bases.open import load_base
from trainer.config import BaseConfig

PROMPTS = ["a red fox in the snow, ink style", "a house!", ""]


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return build("sdxl")


@pytest.fixture(scope="module")
def folder(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(model, tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)


def open_base(folder: Path) -> Base:
    return load_base(BaseConfig(source=str(folder)), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return open_base(folder)


def test_prompts_are_encoded_as_encode_prompt_does(base: Base, pipeline: Any) -> None:
    hidden, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
    features = base.encode_texts(PROMPTS)
    assert torch.equal(features.hidden, hidden)
    assert features.pooled is not None
    assert torch.equal(features.pooled, pooled)


@pytest.mark.parametrize("negative", [None, "blurry, dark"])
def test_negative_prompts_are_encoded_as_encode_prompt_does(base: Base, pipeline: Any, negative: str | None) -> None:
    _, hidden, _, pooled = pipeline.encode_prompt("a house", negative_prompt=negative, device="cpu")
    features = base.encode_negatives([negative or ""])
    assert torch.equal(features.hidden, hidden)
    assert features.pooled is not None
    assert torch.equal(features.pooled, pooled)
    assert bool(hidden.any()) == (negative is not None)


def test_an_empty_negative_prompt_is_encoded_where_the_model_does_not_ask_for_zeros(
    model: TinyModel, tmp_path: Path
) -> None:
    folder = save_folder(model, tmp_path / "model")
    index = folder / "model_index.json"
    index.write_text(
        index.read_text(encoding="utf-8").replace('empty_prompt": true', 'empty_prompt": false'), encoding="utf-8"
    )
    base = open_base(folder)
    assert torch.equal(base.encode_negatives([""]).hidden, base.encode_texts([""]).hidden)


def test_time_ids_are_those_of_the_pipeline(base: Base, pipeline: Any) -> None:
    size = SizeFacts(original=(1200, 800), crop=(16, 5), target=(1152, 768))
    theirs = pipeline._get_add_time_ids(
        original_size=(800, 1200),
        crops_coords_top_left=(5, 16),
        target_size=(768, 1152),
        dtype=torch.float32,
        text_encoder_projection_dim=pipeline.text_encoder_2.config.projection_dim,
    )
    features = base.encode_texts(PROMPTS[:1])
    arguments = base.conditioning(features, [size])
    assert torch.equal(arguments["added_cond_kwargs"]["time_ids"], theirs)
    assert arguments["added_cond_kwargs"]["text_embeds"] is features.pooled


def test_the_unet_hears_size_and_crop(base: Base) -> None:
    features = base.encode_texts(PROMPTS[:1])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def answer(crop: tuple[int, int]) -> torch.Tensor:
        sizes = [SizeFacts((SIDE, SIDE), crop, (SIDE, SIDE))]
        with torch.no_grad():
            result: torch.Tensor = base.denoiser(latents, 10, **base.conditioning(features, sizes)).sample
        return result

    assert torch.equal(answer((0, 0)), answer((0, 0)))
    assert not torch.equal(answer((0, 0)), answer((40, 0)))


def test_rows_of_features_keep_their_pooled_vectors(base: Base) -> None:
    features = base.encode_texts(PROMPTS)
    picked = TextFeatures.cat([features.rows([2]), features.rows([0])])
    assert features.pooled is not None
    assert picked.pooled is not None
    assert torch.equal(picked.pooled, features.pooled[[2, 0]])
    assert torch.equal(picked.hidden, features.hidden[[2, 0]])
