"""Each family, as a folder, a single file and an fp16 variant: told, loaded, and the same model in every form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_families import FAMILIES, SIDE, TinyModel, build, save_folder, save_settings, save_single_file

from trainer.bases.base import Base, SizeFacts
from trainer.bases.describe import describe
from trainer.bases.open import load_base
from trainer.config import BaseConfig
from trainer.errors import BaseError

CPU = torch.device("cpu")
KEY_OF = {"sd1": "sd1", "sd2": "sd2", "sd2_v": "sd2", "sdxl": "sdxl"}
PREDICTION_OF = {"sd1": "epsilon", "sd2": "epsilon", "sd2_v": "v_prediction", "sdxl": "epsilon"}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TinyModel:
    return build(request.param)


@pytest.fixture(scope="module")
def folder(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(model, tmp_path_factory.mktemp("folder") / model.key)


@pytest.fixture(scope="module")
def file_base(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Base:
    place = tmp_path_factory.mktemp("file")
    path = save_single_file(model, place / f"{model.key}.safetensors")
    settings = save_settings(model, place / "settings")
    return load(str(path), config_folder=str(settings), prediction=PREDICTION_OF[model.key])


@pytest.fixture(scope="module")
def folder_base(folder: Path) -> Base:
    return load(str(folder))


def load(source: str, **settings: object) -> Base:
    return load_base(BaseConfig(source=source, **settings), device=CPU, dtype=torch.float32)


def test_a_folder_is_told_by_its_settings(model: TinyModel, folder: Path, folder_base: Base) -> None:
    info = describe(str(folder))
    assert (info.problem, info.kind, info.family) == (None, "folder", KEY_OF[model.key])
    assert (info.prediction, info.prediction_sure, info.resolution) == (PREDICTION_OF[model.key], True, SIDE)
    assert folder_base.family.key == info.family
    assert (folder_base.prediction, folder_base.resolution) == (info.prediction, info.resolution)
    assert info.parameters["denoiser"] == sum(p.numel() for p in model.unet.parameters())


def test_a_single_file_is_told_by_its_names(model: TinyModel, file_base: Base) -> None:
    info = describe(file_base.source)
    assert (info.problem, info.kind, info.family) == (None, "file", KEY_OF[model.key])
    assert info.prediction_sure == (not model.key.startswith("sd2"))
    assert file_base.family.key == info.family
    assert info.parameters["denoiser"] == sum(p.numel() for p in model.unet.parameters())


def test_folder_and_single_file_are_one_model(folder_base: Base, file_base: Base) -> None:
    assert file_base.identity == folder_base.identity
    assert file_base.vae_identity == folder_base.vae_identity
    assert file_base.text_identity == folder_base.text_identity
    for attribute in ("denoiser", "vae"):
        ours, theirs = getattr(file_base, attribute).state_dict(), getattr(folder_base, attribute).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_folder_and_single_file_see_texts_and_images_alike(folder_base: Base, file_base: Base) -> None:
    texts = ["a red fox, ink style!", ""]
    ours, theirs = file_base.encode_texts(texts), folder_base.encode_texts(texts)
    assert torch.equal(ours.hidden, theirs.hidden)
    assert (ours.pooled is None) == (theirs.pooled is None)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = [SizeFacts((SIDE, SIDE), (0, 0), (SIDE, SIDE))] * 2
    with torch.no_grad():
        one = file_base.denoiser(latents, 500, **file_base.conditioning(ours, sizes)).sample
        two = folder_base.denoiser(latents, 500, **folder_base.conditioning(theirs, sizes)).sample
    assert torch.equal(one, two)
    assert torch.equal(file_base.decode(latents), folder_base.decode(latents))


def test_the_fp16_variant_is_the_same_base_and_is_preferred(
    model: TinyModel, folder: Path, folder_base: Base, tmp_path: Path
) -> None:
    both = save_folder(model, tmp_path / "both")
    save_folder(model, both, variant="fp16")
    half = load(str(both))
    assert half.identity == folder_base.identity
    assert torch.equal(half.denoiser.conv_in.weight, model.unet.conv_in.weight.half().float())
    plain_size = describe(str(folder)).size_bytes
    assert describe(str(both)).size_bytes < 0.55 * plain_size
    only_half = save_folder(model, tmp_path / "half", variant="fp16")
    assert load(str(only_half)).identity == folder_base.identity


def test_the_identity_does_not_depend_on_the_number_format_it_runs_in(folder: Path, folder_base: Base) -> None:
    narrow = load_base(BaseConfig(source=str(folder)), device=CPU, dtype=torch.bfloat16)
    assert narrow.denoiser.dtype == torch.bfloat16
    assert narrow.identity == folder_base.identity


def test_another_model_of_the_family_has_another_identity(model: TinyModel, folder_base: Base, tmp_path: Path) -> None:
    other = save_folder(build(model.key, seed=1), tmp_path / "other")
    assert load(str(other)).identity != folder_base.identity


def test_a_single_file_in_half_precision_is_the_same_base(model: TinyModel, folder_base: Base, tmp_path: Path) -> None:
    path = save_single_file(model, tmp_path / "half.safetensors", dtype=torch.float16)
    settings = save_settings(model, tmp_path / "settings")
    assert load(str(path), config_folder=str(settings)).identity == folder_base.identity


def test_diffusers_itself_reads_the_single_file_the_same_way(model: TinyModel, file_base: Base, tmp_path: Path) -> None:
    """The files of these tests are what the field calls a checkpoint: diffusers' own reader agrees on every tensor."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    settings = str(save_settings(model, tmp_path / "settings"))
    for cls, component in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        read = cls.from_single_file(file_base.source, config=settings, subfolder=component, local_files_only=True)
        ours = (file_base.denoiser if component == "unet" else file_base.vae).state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in read.state_dict().items())


def test_wrong_layers_are_named_and_the_way_out_is_given(model: TinyModel, tmp_path: Path) -> None:
    path = save_single_file(model, tmp_path / "odd.safetensors")
    with pytest.raises(BaseError, match=r"odd\.safetensors: its unet differs .*base\.config_folder"):
        load(str(path))


@pytest.mark.parametrize("key", ["sd1", "sd2"])
@pytest.mark.parametrize("skip", [0, 1])
def test_clip_skip_is_that_of_diffusers_pipeline(tmp_path: Path, key: str, skip: int) -> None:
    from diffusers import StableDiffusionPipeline

    base = load(str(save_folder(build(key), tmp_path / "model")), clip_skip=skip)
    modules = {"text_encoder": base.text_encoders["te"], "tokenizer": base.tokenizers["te"]}
    parts = {**modules, "unet": base.denoiser, "vae": base.vae, "scheduler": base.process.sampler("ddim", 2)}
    # Where transformers had the final norm when this diffusers was written; by itself its clip_skip fails today.
    encoder = modules["text_encoder"]
    if not hasattr(encoder, "text_model"):
        object.__setattr__(encoder, "text_model", encoder)
    pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None)
    prompts = ["a house", "two cats on a red roof"]
    expected, _ = pipeline.encode_prompt(prompts, CPU, 1, False, clip_skip=skip or None)
    torch.testing.assert_close(base.encode_texts(prompts).hidden, expected)


def test_clip_skip_beyond_the_encoder_is_refused(tmp_path: Path) -> None:
    source = save_folder(build("sd1"), tmp_path / "model")
    with pytest.raises(BaseError, match=r"clip_skip is 9, but the text encoder of .* leave out \d+ at most"):
        load(str(source), clip_skip=9)


def test_clip_skip_is_what_an_encoder_without_its_last_layers_says(tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    source = save_folder(build("sd1"), tmp_path / "model")
    skipping = load(str(source), clip_skip=1)
    encoder = skipping.text_encoders["te"]
    layers = encoder.config.num_hidden_layers
    shorter = CLIPTextModel.from_pretrained(source / "text_encoder", num_hidden_layers=layers - 1)
    tokens = skipping.tokenizers["te"](["a house"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = shorter(tokens).last_hidden_state
        whole = encoder(tokens).last_hidden_state
    found = skipping.encode_texts(["a house"]).hidden
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, whole)
