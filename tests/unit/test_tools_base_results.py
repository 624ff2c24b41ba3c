"""What is measured of a base and how it is packed: tiny models, and answers known in advance."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tools.base import card, classifier, make, measure, model_folder, pack
from tools.base.card import Record
from tools.base.classifier import Judge, choose_classes, distorted, new_network
from tools.base.dataset import Entry, IconData
from tools.base.learner import LOG_EVERY
from tools.base.model_folder import Model
from tools.base.sizes import SIZES, Size
from trainer.bases.folder import check_manifest, read_folder
from trainer.errors import BaseError

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
SUBJECTS = ("red heart", "star", "ghost", "key")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """An untrained base."""
    torch.manual_seed(0)
    return model_folder.new(TINY, SUBJECTS, tmp_path / "new")


def icons(split: str = "held-out", *, pixels: int = 16) -> IconData:
    images = np.random.default_rng(0).integers(0, 256, (len(SUBJECTS), pixels, pixels, 3), dtype=np.uint8)
    return IconData(
        images,
        tuple(
            Entry(set_key="noto", name=name, subject=name, captions=(name,), split=split, weight=1.0)
            for name in SUBJECTS
        ),
    )


class Exact(torch.nn.Module):
    """An autoencoder that keeps everything, but for a constant error of so many grey levels."""

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = levels

    def encode(self, pixels: torch.Tensor) -> Any:
        distribution = type("Distribution", (), {"mean": pixels * 0.5})
        return type("Encoded", (), {"latent_dist": distribution})

    def decode(self, latents: torch.Tensor) -> Any:
        return type("Decoded", (), {"sample": latents * 2 + self.levels / 127.5})


@pytest.mark.parametrize(("levels", "expected"), [(1, 48.13), (16, 24.05)])
def test_psnr_of_a_known_error_is_the_textbook_value(model: Model, levels: int, expected: float) -> None:
    grey = IconData(np.full((3, 8, 8, 3), 100, dtype=np.uint8), icons().entries[:3])
    assert measure.psnr(dataclasses.replace(model, vae=Exact(levels)), grey) == pytest.approx(expected, abs=0.02)


def test_captions_that_are_ignored_cost_the_same_right_and_wrong(model: Model) -> None:
    for name, parameter in model.unet.named_parameters():
        if "attn2.to_out" in name:
            torch.nn.init.zeros_(parameter)
    right, wrong = measure.caption_losses(model, icons())
    assert right == pytest.approx(wrong)
    assert right > 0


def test_captions_that_are_read_cost_differently(model: Model) -> None:
    right, wrong = measure.caption_losses(model, icons())
    assert right != pytest.approx(wrong, rel=1e-6)
    assert (right, wrong) == measure.caption_losses(model, icons())


def test_a_wrong_caption_needs_a_second_subject(model: Model) -> None:
    same = dataclasses.replace(icons(), entries=(icons().entries[0],) * 4)
    with pytest.raises(ValueError, match="all icons show the same subject"):
        measure.caption_losses(model, same)


def test_an_image_depends_on_its_place_and_prompt_only(model: Model) -> None:
    both = measure.generate(model, ["star", "ghost"], steps=2, batch=2)
    alone = measure.generate(model, ["star", "ghost"], steps=2, batch=1)
    assert both.shape == (2, 16, 16, 3)
    assert np.abs(both.astype(int) - alone).max() <= 1
    assert not np.array_equal(both[0], both[1])


def test_the_judge_counts_a_subject_only_when_it_names_it(model: Model) -> None:
    deciding = torch.nn.Linear(3 * 64 * 64, 7)
    torch.nn.init.zeros_(deciding.weight)
    with torch.no_grad():
        deciding.bias.copy_(torch.arange(7.0))
    judge = Judge(
        torch.nn.Sequential(torch.nn.Flatten(), deciding), ("red heart", "a", "b", "c", "d", "e", "star"), 0.5
    )
    named = measure.recognised(model, judge, ("red heart", "star"))
    assert named == {"red heart": 0, "star": 1}
    assert judge.accuracy(icons()) == pytest.approx(0.5)


def test_a_picture_counts_when_it_has_the_colour_that_its_prompt_names(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint = {"red heart": (220, 30, 30), "blue heart": (220, 30, 30), "green frog": (30, 160, 60)}
    monkeypatch.setattr(
        measure,
        "generate",
        lambda _, prompts: np.stack([np.full((8, 8, 3), paint[prompt], dtype=np.uint8) for prompt in prompts]),
    )
    assert measure.colours_named(model, tuple(paint), seeds=3) == {"red heart": 3, "blue heart": 0, "green frog": 3}
    with pytest.raises(ValueError, match="'ghost' names no colour"):
        measure.colours_named(model, ("ghost",))


def test_the_judge_knows_the_common_subjects_before_any_other() -> None:
    odd = [dataclasses.replace(icons().entries[0], subject="zebra crossing")] * 9
    data = IconData(np.zeros((13, 16, 16, 3), np.uint8), (*odd, *icons().entries))
    assert choose_classes(data, 2) == ("star", "red heart")
    assert choose_classes(data, 9) == ("star", "red heart", "ghost", "key", "zebra crossing")


def test_distorted_pictures_keep_white_ground_and_change_every_time() -> None:
    pixels = torch.ones(8, 3, 64, 64)
    pixels[:, :, 24:40, 24:40] = -1.0
    generator = torch.Generator().manual_seed(0)
    first, second = distorted(pixels, generator), distorted(pixels, generator)
    assert first.shape == pixels.shape
    assert first[..., 0].mean() > 0.9
    assert (first - second).abs().mean() > 0.02
    assert first.max() <= 1
    assert first.min() >= -1


@pytest.mark.model
def test_a_judge_learns_to_tell_colours_apart_and_comes_back_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("tools.base.learner.time.monotonic", lambda: next(clock))
    images = np.full((4, 64, 64, 3), 255, dtype=np.uint8)
    for image, colour in zip(images, [(255, 0, 0), (0, 200, 0), (0, 0, 255), (0, 0, 0)], strict=True):
        image[16:48, 16:48] = colour
    learnt, held_out = (dataclasses.replace(icons(split, pixels=64), images=images) for split in ("train", "held-out"))
    data = IconData(np.concatenate([images, images]), (*learnt.entries, *held_out.entries))
    monkeypatch.setitem(LOG_EVERY, "cpu", 5)
    monkeypatch.setattr(classifier, "CHANNELS", (8, 16))
    judge = classifier.train_judge(data, tmp_path, minutes=16 / 60, batch=16)
    assert [row[0] for row in judge.guesses(images, first=1)] == list(SUBJECTS)
    back = Judge.load(tmp_path)
    assert back.held_out_accuracy == judge.held_out_accuracy == 1.0
    assert back.guesses(images, first=2) == judge.guesses(images, first=2)


def test_the_judges_network_takes_pictures_of_64_pixels() -> None:
    assert new_network(10)(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


@pytest.fixture
def run_folder(model: Model, tmp_path: Path) -> Path:
    """A run as training leaves it."""
    model_folder.save(model, tmp_path / "run" / "base")
    log = tmp_path / "run" / "text-to-image" / "log.jsonl"
    log.parent.mkdir()
    lines = [
        {
            "step": 0,
            "samples": 0,
            "seconds": 0,
            "event": "started",
            "batch": 4,
            "images": 9,
            "sets": ["noto", "twemoji"],
            "start": "bundled",
            "device": "1 threads",
        },
        {"step": 200, "seconds": 60.0, "event": "resumed", "remark": "animals only"},
        {"step": 500, "samples": 2000, "seconds": 90.0, "loss": 0.25},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path / "run"


def test_a_packed_base_is_what_the_product_opens(run_folder: Path, tmp_path: Path) -> None:
    folder = pack.pack(run_folder, tmp_path / "packed", measurements={"psnr_held_out_db": 27.5}, sheet=False)
    check_manifest(folder)
    parts = read_folder(folder)
    assert {p.dtype for module in (parts.denoiser, parts.vae) for p in module.parameters()} == {torch.float16}
    trained = model_folder.load(run_folder / "base").unet.conv_in.weight
    assert torch.equal(parts.denoiser.conv_in.weight, trained.half())
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "1.5 minutes on 1 threads, 2,000 samples of 9 images in batches of 4, beginning from" in text
    assert "from minute 1 on animals only; last loss 0.25." in text
    assert "| 27.5 |" in text
    assert "Twemoji, Twitter and contributors (`@iconify-json/twemoji` 1.2.5) | twemoji style | CC-BY-4.0" in text
    assert "Fluent" not in text, "a set that was not trained on is not credited"
    configurations = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.json"))
    assert str(tmp_path) not in configurations, "no file names the machine it was made on"


def test_diffusers_draws_with_a_packed_base_in_full_precision(run_folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = pack.pack(run_folder, tmp_path / "packed", measurements={}, sheet=False)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("red heart", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (16, 16, 3)
    assert np.isfinite(image).all()
    assert pipeline.text_encoder.dtype == pipeline.unet.dtype == torch.float32


def test_a_change_after_packing_is_noticed(run_folder: Path, tmp_path: Path) -> None:
    folder = pack.pack(run_folder, tmp_path / "packed", measurements={}, sheet=False)
    (folder / "unet" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BaseError, match="unet"):
        check_manifest(folder)


def test_packing_never_writes_over_something_and_never_ships_what_does_not_fit(
    run_folder: Path, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        pack.pack(run_folder, run_folder, measurements={})
    with torch.no_grad():
        model.unet.conv_in.bias[0] = 1e5
    with pytest.raises(ValueError, match=r"unet conv_in\.bias does not fit into fp16: its largest value is 1e\+05"):
        pack.check_fits_half(model)
    monkeypatch.setattr(pack, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 may ship"):
        pack.check_sizes(run_folder)


def test_the_sheets_pictures_change_by_less_than_an_eye_sees_and_their_ground_is_white() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    images[0] = 252
    coarse = pack.rounded(images)
    assert np.abs(coarse.astype(int) - images).max() <= 5
    assert (coarse[0] == 255).all()
    assert len(np.unique(coarse)) < 50


def test_the_sheet_puts_pictures_in_rows() -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    images[2] = 200
    sheet = np.asarray(pack.contact_sheet(images, columns=2))
    assert sheet.shape == (8, 8, 3)
    assert (sheet[4:, :4] == 200).all()
    assert (sheet[4:, 4:] == 255).all()


def test_the_card_names_what_was_not_recognised(model: Model) -> None:
    text = card.card(
        model, Record(("trained.",), ()), measurements={"not_recognised": ["ghost", "key"]}, sheet="sheet.png"
    )
    assert "Not recognised: ghost, key." in text
    assert "![sheet.png](sheet.png)" in text


@pytest.mark.model
def test_one_command_makes_the_base_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.base import dataset

    learnt, held_out = (icons(split).images for split in ("train", "held-out"))
    entries = (*icons("train").entries, *icons("held-out").entries)
    dataset.write(IconData(np.concatenate([learnt, held_out]), entries), tmp_path / "work" / "data")
    # Every look at a clock takes a second, so that a stretch of 6 seconds ends inside the second training.
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setitem(SIZES, "small", TINY)
    monkeypatch.setitem(LOG_EVERY, "cpu", 1)
    monkeypatch.setattr(classifier, "CHANNELS", (8,))
    monkeypatch.setattr("tools.base.measure.COMMON_SUBJECTS", SUBJECTS)
    monkeypatch.setattr("tools.base.measure.COLOUR_PROMPTS", ("red heart",))
    monkeypatch.setattr("tools.base.pack.SHEET_PROMPTS", SUBJECTS)
    monkeypatch.setattr("tools.base.make.KNOWN_SUBJECTS", SUBJECTS)
    monkeypatch.setitem(cast(Any, measure.generate).__kwdefaults__, "steps", 1)

    def stretch() -> bool:
        return make.make(
            tmp_path / "icons",
            tmp_path / "work",
            tmp_path / "out",
            size="small",
            autoencoder_minutes=1 / 60,
            decoder_minutes=1 / 60,
            text_to_image_minutes=4 / 60,
            judge_minutes=1 / 60,
            stretch=6 / 60,
        )

    finished = [stretch()]
    while not finished[-1] and len(finished) < 6:
        finished.append(stretch())
    assert len(finished) > 1
    assert finished[-1]
    check_manifest(tmp_path / "out")
    assert (tmp_path / "out" / "sheet.png").is_file()
    assert "recognised by the judge" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    log = (tmp_path / "out" / "text-to-image.log.jsonl").read_text(encoding="utf-8")
    assert '"event": "resumed"' in log
