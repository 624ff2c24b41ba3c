"""The base's training on tiny models: its mathematics, its schedule, and that a stretch continues the last."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tools.base import model_folder, train
from tools.base.autoencoder import reconstruction_loss, set_scaling, varied
from tools.base.dataset import Entry, IconData
from tools.base.device import to_images, to_pixels
from tools.base.diffusion import (
    CaptionTable,
    alphas_cumprod,
    draw_indices,
    min_snr_weights,
    noised,
    target,
    with_article,
)
from tools.base.grow import NOISE, grown, latents_of
from tools.base.learner import LOG_EVERY, Average, Learner, learning_rate, run
from tools.base.measure import psnr
from tools.base.sizes import (
    SIZES,
    WHOLE_WORDS,
    Size,
    new_autoencoder,
    new_text_encoder,
    new_unet,
    scheduler_config,
    write_tokenizer,
)
from tools.base.text_to_image import TextToImage, encode

pytestmark = pytest.mark.model

TINY = Size(
    pixels=16,
    autoencoder_channels=(8, 16),
    autoencoder_layers=1,
    unet_channels=(16, 32, 32),
    unet_layers=1,
    head_channels=8,
    text_width=32,
    text_layers=1,
    vocabulary=700,
    batch=4,
    autoencoder_batch=4,
)
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200), "black": (0, 0, 0)}


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a second passes on at every look, so that a second is one round of training on any machine."""
    monkeypatch.setattr("tools.base.learner.time.monotonic", itertools.count().__next__)
    monkeypatch.setitem(LOG_EVERY, "cpu", 4)


def squares() -> IconData:
    """A square of each colour on white, 16 px."""
    images = np.full((len(COLOURS), 16, 16, 3), 255, dtype=np.uint8)
    images[:, 4:12, 4:12] = np.array(list(COLOURS.values()), dtype=np.uint8)[:, None, None]
    entries = tuple(
        Entry(
            set_key="noto",
            name=f"{colour}-square",
            subject=f"{colour} square",
            captions=(f"{colour} square", f"{colour} box"),
            split="train",
            weight=1.0,
        )
        for colour in COLOURS
    )
    return IconData(images, entries)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_noise_schedule_is_the_one_diffusers_samples_with(prediction: str) -> None:
    from diffusers import DDIMScheduler

    config = scheduler_config(prediction)
    torch.testing.assert_close(alphas_cumprod(config), DDIMScheduler(**config).alphas_cumprod, atol=1e-6, rtol=1e-5)


def test_with_v_prediction_a_picture_begins_from_noise_that_holds_nothing_of_it() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**scheduler_config("v_prediction"))
    scheduler.set_timesteps(20)
    assert alphas_cumprod(scheduler_config("v_prediction"))[scheduler.timesteps[0]] == 0
    assert alphas_cumprod(scheduler_config("epsilon"))[-1] > 0.004


def test_targets_are_the_noise_or_the_velocity_that_diffusers_means() -> None:
    from diffusers import DDPMScheduler

    config = scheduler_config("v_prediction")
    kept = {key: config[key] for key in ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")}
    scheduler = DDPMScheduler(**kept)
    x0, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 998])
    alpha = scheduler.alphas_cumprod[t]
    torch.testing.assert_close(target(x0, noise, alpha, "v_prediction"), scheduler.get_velocity(x0, noise, t))
    assert target(x0, noise, alpha, "epsilon") is noise


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_noisy_steps_fully_and_clean_ones_little(prediction: str) -> None:
    alphas = alphas_cumprod(scheduler_config(prediction))
    weights = min_snr_weights(alphas, prediction)
    snr = alphas / (1 - alphas)
    assert torch.equal(weights[snr < 5], torch.ones_like(weights[snr < 5]))
    torch.testing.assert_close(weights[0] * snr[0], torch.tensor(5.0), rtol=0.21, atol=0)


def test_timesteps_are_drawn_as_often_as_they_count(tmp_path: Path) -> None:
    data = squares()
    model = model_folder.new(TINY, ["red square"], tmp_path)
    training = TextToImage.of(model, data, batch=4)
    drawn = draw_indices(training.timesteps, 40_000, torch.Generator().manual_seed(0))
    weights = min_snr_weights(training.alphas, model.prediction)
    counts = drawn.bincount(minlength=1000).float()
    expected = weights / weights.sum() * 40_000
    torch.testing.assert_close(counts.view(10, 100).sum(1), expected.view(10, 100).sum(1), rtol=0.1, atol=60)


def test_noise_is_mixed_in_with_unit_variance() -> None:
    x0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    mixed = noised(x0, noise, torch.tensor([1.0, 0.36]))
    assert torch.equal(mixed[0], x0[0])
    torch.testing.assert_close(mixed[1], 0.6 * x0[1] + 0.8 * noise[1])


def test_the_learning_rate_warms_up_and_falls_to_almost_nothing() -> None:
    rates = [learning_rate(step / 100, peak=1.0) for step in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))


def test_the_average_follows_closely_at_first_and_swaps_there_and_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    average = Average([weight], decay=0.999)
    for step in range(20):
        with torch.no_grad():
            weight.fill_(1.0)
        average.update(step)
    assert average.shadow[0].item() > 0.8
    average.swap()
    assert 0.8 < weight.item() < 1.0
    average.swap()
    assert weight.item() == 1.0


def test_images_are_drawn_by_weight() -> None:
    weights = torch.tensor([1.0, 0.0, 3.0])
    drawn = draw_indices(weights.cumsum(0) / 4, 4000, torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=3)
    assert counts[1] == 0
    assert counts[2] / counts[0] == pytest.approx(3, rel=0.15)


def test_captions_belong_to_their_image_and_are_sometimes_empty(tmp_path: Path) -> None:
    data = squares()
    texts = [text for entry in data.entries for text in (*entry.captions, *entry.styled_captions)]
    tokenizer = write_tokenizer(texts, TINY, tmp_path)
    table = CaptionTable.of(data.entries, tokenizer, torch.device("cpu"))
    tokens = table.draw(torch.full((400,), 2), torch.Generator().manual_seed(0), dropout=0.25)
    seen = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
    allowed = {"blue square", "blue box", "a blue square", "blue square, noto style", "blue box, noto style", ""}
    assert {text.replace(" ,", ",") for text in seen} == allowed
    assert seen.count("") == pytest.approx(100, abs=35)
    assert sum("style" in text for text in seen) == pytest.approx(90, abs=35)


def test_a_made_up_style_stands_where_a_style_would_and_leaves_the_subject_alone(tmp_path: Path) -> None:
    data = squares()
    texts = [text for entry in data.entries for text in (*entry.captions, *entry.styled_captions)]
    tokenizer = write_tokenizer(texts, TINY, tmp_path)
    table = CaptionTable.of(data.entries, tokenizer, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    tokens = table.draw(torch.full((400,), 2), generator, dropout=0.25, made_up=1.0)
    seen = [tokenizer.decode(row, skip_special_tokens=True).strip().replace(" ,", ",") for row in tokens]
    subjects = {text.partition(",")[0].strip() for text in seen if text}
    assert subjects == {"blue square", "blue box", "a blue square"}
    assert all(text.endswith("style") for text in seen if text)
    assert seen.count("") == pytest.approx(100, abs=35)
    assert len(set(seen)) > 200


def test_an_article_suits_the_word_after_it() -> None:
    assert (with_article("owl"), with_article("fox")) == ("an owl", "a fox")


def test_the_vocabulary_starts_and_ends_captions_as_clip_does_and_keeps_style_words_whole(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer([f"{colour} square" for colour in COLOURS], TINY, tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("red square").input_ids
    assert (ids[0], ids[-1]) == (0, 1)
    assert len(tokenizer) <= TINY.vocabulary
    for word in WHOLE_WORDS:
        assert len(tokenizer(word).input_ids) == 3
    # What no caption held is spelled out, never lost.
    assert 1 not in tokenizer("zyx quay").input_ids[1:-1]


def test_a_blurred_edge_costs_more_than_a_slight_change_of_colour() -> None:
    sharp = torch.ones(1, 3, 16, 16)
    sharp[..., 8:] = -1.0
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(sharp, (2, 2, 2, 2), "replicate"), 5, stride=1)
    shifted = sharp + (blurred - sharp).abs().mean()
    assert reconstruction_loss(sharp, sharp) == 0
    assert reconstruction_loss(blurred, sharp) > 1.5 * reconstruction_loss(shifted, sharp)


def test_varying_keeps_the_white_ground() -> None:
    pixels = to_pixels(squares().images.repeat(16, axis=0), torch.device("cpu"))
    out = varied(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(out[..., 0, :], torch.ones_like(out[..., 0, :]))
    assert not torch.equal(out, pixels)


def test_pictures_survive_the_way_to_tensors_and_back() -> None:
    images = squares().images
    np.testing.assert_array_equal(to_images(to_pixels(images, torch.device("cpu"))), images)


@pytest.mark.parametrize("name", SIZES)
def test_each_size_fits_what_the_product_carries(name: str) -> None:
    size = SIZES[name]
    with torch.device("meta"):
        parts = (new_autoencoder(size), new_unet(size), new_text_encoder(size, size.vocabulary))
    assert 2 * sum(p.numel() for part in parts for p in part.parameters()) < 60e6
    attn2 = [module for module, _ in parts[1].named_modules() if module.endswith("attn2")]
    assert len(attn2) == 7
    assert size.latent_side == 16


@pytest.mark.usefixtures("ticking")
def test_the_autoencoder_learns_and_scales_its_latents(tmp_path: Path) -> None:
    data = squares()
    learner = train.train("autoencoder", data, tmp_path, size=TINY, minutes=8 / 60, rate=5e-3)
    log = (tmp_path / "autoencoder" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in log]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert learner.progress == 1
    assert losses[-1] < 0.7 * losses[0]
    model = model_folder.load(tmp_path / "base")
    assert encode(model, data).std().item() == pytest.approx(1.0, abs=0.01)
    assert set_scaling(model, data) == pytest.approx(model.vae.config.scaling_factor)


def test_a_grown_autoencoder_keeps_every_weight_it_can_and_draws_narrowly() -> None:
    torch.manual_seed(0)
    small = new_autoencoder(TINY)
    big = grown(small, dataclasses.replace(TINY, pixels=32, autoencoder_channels=(8, 8, 16)))
    old, new = small.state_dict(), big.state_dict()
    torch.testing.assert_close(
        new["encoder.down_blocks.2.resnets.0.conv1.weight"], old["encoder.down_blocks.1.resnets.0.conv1.weight"]
    )
    torch.testing.assert_close(
        new["decoder.up_blocks.0.resnets.0.conv1.weight"], old["decoder.up_blocks.0.resnets.0.conv1.weight"]
    )
    drawn = big.encode(torch.rand(2, 3, 32, 32)).latent_dist
    assert drawn.mean.shape == (2, 4, 8, 8)
    torch.testing.assert_close(drawn.std * big.config.scaling_factor, torch.full_like(drawn.std, NOISE))
    with pytest.raises(ValueError, match="does not grow"):
        grown(small, TINY)


@pytest.mark.usefixtures("ticking")
def test_an_autoencoder_learns_twice_the_side_and_keeps_the_latents_where_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tmp_path / "start"
    train.train("autoencoder", squares(), tmp_path / "small", size=TINY, minutes=8 / 60, rate=5e-3)
    (tmp_path / "small" / "base").rename(start)
    data = squares()
    twice = IconData(data.images.repeat(2, axis=1).repeat(2, axis=2), data.entries)
    size = dataclasses.replace(TINY, pixels=32, autoencoder_channels=(8, 8, 16))
    small = model_folder.load(start)
    pixels = to_pixels(twice.images, small.device)
    wanted = latents_of(small.vae, pixels, side=8)
    torch.testing.assert_close(wanted, encode(small, data))

    def distance(vae: Any) -> float:
        return (latents_of(vae, pixels, side=8) - wanted).square().mean().item()

    untrained = distance(grown(small.vae, size))
    train.train("autoencoder", twice, tmp_path / "run", size=size, minutes=20 / 60, rate=5e-3, start=start)
    made = model_folder.load(tmp_path / "run" / "base")
    assert made.vae.config.sample_size == 32
    assert made.vae.config.scaling_factor == small.vae.config.scaling_factor
    assert distance(made.vae) < 0.5 * untrained
    assert torch.equal(made.unet.conv_in.weight, small.unet.conv_in.weight)


def test_a_training_on_some_sets_sees_no_other() -> None:
    data = squares()
    other = dataclasses.replace(data.entries[0], set_key="twemoji")
    mixed = IconData(np.concatenate([data.images, data.images[:1]]), (*data.entries, other))
    assert mixed.of_sets("twemoji").entries == (other,)
    assert len(mixed.of_sets("noto").images) == len(data.images)
    with pytest.raises(ValueError, match="glossy"):
        mixed.of_sets("noto", "glossy")


@pytest.mark.usefixtures("ticking")
def test_the_decoder_learns_and_the_latents_stay(tmp_path: Path) -> None:
    start = tmp_path / "start"
    train.train("autoencoder", squares(), tmp_path / "small", size=TINY, minutes=8 / 60, rate=5e-3)
    (tmp_path / "small" / "base").rename(start)
    train.train("decoder", squares(), tmp_path / "run", size=TINY, minutes=8 / 60, rate=5e-3, start=start)
    before, after = model_folder.load(start), model_folder.load(tmp_path / "run" / "base")
    assert torch.equal(encode(after, squares()), encode(before, squares()))
    assert psnr(after, squares()) > psnr(before, squares()) + 1


@pytest.mark.usefixtures("ticking")
def test_a_base_may_learn_to_predict_v_instead_and_says_so(tmp_path: Path) -> None:
    other = model_folder.new(TINY, ["red square"], tmp_path / "other")
    other.scheduler = scheduler_config("epsilon")
    model_folder.save(other, tmp_path / "other")
    start = tmp_path / "other"
    train.train("text-to-image", squares(), tmp_path / "same", size=TINY, minutes=1 / 60, start=start)
    learner = train.train(
        "text-to-image", squares(), tmp_path / "v", size=TINY, minutes=1 / 60, start=start, prediction="v_prediction"
    )
    assert model_folder.load(tmp_path / "same" / "base").prediction == "epsilon"
    changed = model_folder.load(tmp_path / "v" / "base")
    assert changed.scheduler["rescale_betas_zero_snr"]
    assert changed.scheduler["timestep_spacing"] == "trailing"
    assert '"prediction": "v_prediction"' in (learner.folder / "log.jsonl").read_text(encoding="utf-8")


@pytest.mark.usefixtures("ticking")
def test_a_second_stretch_continues_the_first_and_a_third_has_nothing_to_do(tmp_path: Path) -> None:
    def stretch() -> Learner:
        return train.train("text-to-image", squares(), tmp_path, size=TINY, minutes=3 / 60, stretch=2 / 60)

    first = stretch()
    assert first.progress == pytest.approx(2 / 3)
    base = model_folder.load(tmp_path / "base")
    averaged = {tensor.shape: tensor for tensor in first.average.shadow}
    shipped = base.unet.conv_in.weight
    assert torch.equal(averaged[shipped.shape], shipped)
    second = stretch()
    assert second.step > first.step
    assert second.progress == 1
    third = stretch()
    assert third.step == second.step
    log = (tmp_path / "text-to-image" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line).get("event") for line in log]
    assert [event for event in events if event] == ["started", "resumed"]


def test_training_may_begin_from_another_base(tmp_path: Path) -> None:
    data = squares()
    model = model_folder.new(TINY, ["red square"], tmp_path / "other")
    model_folder.save(model, tmp_path / "other")
    opened = train.open_model(tmp_path / "run", start=tmp_path / "other", size=TINY, data=data)
    for ours, theirs in zip(opened.unet.parameters(), model.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_base_is_written_whatever_the_layout_of_its_weights_in_memory(tmp_path: Path) -> None:
    model = model_folder.new(TINY, ["red square"], tmp_path / "base")
    model.unet.to(memory_format=torch.channels_last)
    model_folder.save(model, tmp_path / "base")
    back = model_folder.load(tmp_path / "base")
    assert not model.unet.conv_in.weight.is_contiguous()
    assert torch.equal(back.unet.conv_in.weight, model.unet.conv_in.weight)


@pytest.mark.gpu
def test_on_cuda_both_trainings_run_compiled_and_their_losses_fall(tmp_path: Path) -> None:
    for training, minutes in (("autoencoder", 0.8), ("text-to-image", 0.8)):
        train.train(training, squares(), tmp_path, size=TINY, minutes=minutes, batch=64)
        log = (tmp_path / training / "log.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [line["loss"] for line in map(json.loads, log) if "loss" in line]
        assert losses[-1] < 0.7 * losses[0]


@pytest.mark.usefixtures("ticking")
def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    learner = Learner(tmp_path, {"m": module}, 10.0, 1e-3, 0.9, 0, 1)
    with pytest.raises(RuntimeError, match="the loss became nan at step 4"):
        run(
            learner,
            lambda _: module(torch.full((1,), float("nan"))).sum(),
            stretch_seconds=10,
            save_seconds=10,
            on_save=lambda: None,
        )
    assert not (tmp_path / "state.pt").exists()
