"""Masks, pseudo-Huber, debiased estimation, noise offset and high noise levels, each against its formula."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from PIL import Image

from trainer.bases.base import Base
from trainer.bases.process import Diffusion
from trainer.config import parse
from trainer.config.sections import focus_points
from trainer.data.buckets import center_crop_box
from trainer.data.dataset import Dataset
from trainer.errors import ConfigError, ImagesChanged
from trainer.randomness import stable_seed
from trainer.training.batches import Batches, TrainingImage, join
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One image with a mask of its left half, one whose right half is transparent, one with neither."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("cat", (200, 30, 30)), ("fox", (30, 90, 200)), ("sun", (220, 200, 40))):
        picture = Image.new("RGBA", (128, 128), (*colour, 255))
        picture.paste((colour[2], 60, 90, 255), (20, 20, 90, 100))
        if name == "fox":
            picture.paste((0, 0, 0, 0), (64, 0, 128, 128))
        picture.save(folder / f"{name}.png")
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 64, 128))
    mask.save(folder / "cat-mask.png")
    (tmp_path / "run").mkdir()
    return folder


def prepared(base: Base, images: Path, **data: object) -> tuple[Dataset, Prepared]:
    config = parse({"data": {"images": str(images), **data}})
    folder = RunFolder(images.parent / "run")
    folder.dataset_file.unlink(missing_ok=True)
    dataset = read_dataset(folder, config, base)
    assert Dataset.from_json(dataset.to_json()) == dataset
    return dataset, prepare(dataset, config, base, folder.cache)


def test_a_mask_beside_an_image_is_no_image_and_says_which_cells_count(base: Base, images: Path) -> None:
    dataset, found = prepared(base, images, flip=True)
    assert [example.name for example in dataset.examples] == ["cat.png", "fox.png", "sun.png"]
    assert [finding.message for finding in dataset.findings if finding.kind == "mask"] == ["has a mask, cat-mask.png"]
    cat, fox, sun = found.training
    assert fox.mask is None
    assert sun.mask is None
    left = torch.zeros(1, 16, 16)
    left[:, :, :8] = 1
    assert cat.mask is not None
    torch.testing.assert_close(cat.mask, torch.stack([left, left.flip(-1)]), atol=0.02, rtol=0)
    fox = prepared(base, images, masks="alpha")[1].training[1]
    assert fox.mask is not None
    torch.testing.assert_close(fox.mask[0], left, atol=0.02, rtol=0)
    assert len(prepared(base, images, masks="off")[0].examples) == 4


def test_a_mask_that_does_not_fit_is_said_and_one_that_changed_stops_the_run(base: Base, images: Path) -> None:
    config = parse({"data": {"images": str(images)}})
    folder = RunFolder(images.parent / "run")
    dataset = read_dataset(folder, config, base)
    Image.new("L", (128, 128), 9).save(images / "cat-mask.png")
    with pytest.raises(ImagesChanged, match=r"cat-mask\.png has changed"):
        prepare(dataset, config, base, folder.cache)
    Image.new("L", (64, 64), 9).save(images / "cat-mask.png")
    dataset, _ = prepared(base, images)
    (said,) = [finding for finding in dataset.findings if finding.kind == "mask"]
    assert (said.severity, said.message) == ("warning", "its mask cat-mask.png is 64 x 64 pixels, not 128 x 128")


def test_what_the_mask_leaves_out_changes_neither_loss_nor_gradient(trainer: Trainer, base: Base) -> None:
    shape = (1, 4, 16, 16)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    mask[..., 8] = 0.25
    image = TrainingImage(torch.randn(shape), torch.zeros(shape), 1, trainer.batches.images[0].sizes[:1], mask=mask)
    plain = replace(image, mask=None)
    drawn = Batches(base, [image, plain], trainer.batches.features, batch_size=2, seed=1)
    batch = drawn.compose([0, 1], 0)
    trainer.bank.set_strengths({"style": 1.0})
    noisy = base.process.noised(batch.latents, batch.noise, batch.timesteps)
    with torch.no_grad():
        wrong = base.predict(noisy, batch.timesteps, batch.conditioning)
    squares = (wrong - base.process.target(batch.latents, batch.noise, batch.timesteps)).square()
    expected = torch.stack([(squares[0] * mask[0]).sum() / (4 * mask.sum()), squares[1].mean()])
    torch.testing.assert_close(base.errors(*batch.inputs).detach(), expected)
    assert drawn.compose([1, 1], 0).mask is None
    both = join(base, [drawn.compose([0], 0), drawn.compose([1], 1)])
    assert both.mask is not None
    assert both.mask[1].eq(1).all()
    # A taught row is the base's everywhere.
    image = replace(image, plain=(1,))
    taught = Batches(base, [image], trainer.batches.features, batch_size=1, seed=1, preserve=0.5)
    assert taught.compose([0], 0, taught=[0]).mask is not None
    assert taught.compose([0], 0, taught=[0]).mask.eq(1).all()  # type: ignore[union-attr]


def test_huber_and_debiased_losses_are_their_formulas(trainer: Trainer, base: Base) -> None:
    batch = trainer.batches.draw(0)
    trainer.bank.set_strengths({"style": 1.0})
    noisy = base.process.noised(batch.latents, batch.noise, batch.timesteps)
    with torch.no_grad():
        difference = base.predict(noisy, batch.timesteps, batch.conditioning) - base.process.target(
            batch.latents, batch.noise, batch.timesteps
        )
    c = 0.1
    huber = (2 * c * ((difference**2 + c**2) ** 0.5 - c)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(base.errors(*batch.inputs, huber=c).detach(), huber)
    mixed = base.errors(*batch.inputs, huber=torch.tensor([0.0, c])).detach()
    torch.testing.assert_close(mixed, torch.stack([base.errors(*batch.inputs)[0].detach(), huber[1]]))
    for prediction in ("epsilon", "v_prediction"):
        process = Diffusion({**base.process.config, "rescale_betas_zero_snr": False}, prediction, base.device)  # type: ignore[attr-defined,arg-type]
        alphas = process.alphas_cumprod[batch.timesteps]
        snr = torch.minimum(alphas / (1 - alphas), torch.tensor(1000.0))
        expected = snr**-0.5 if prediction == "epsilon" else 1 / (snr + 1)
        torch.testing.assert_close(process.debiased(batch.timesteps), expected)
    trainer.settings = replace(trainer.settings, huber=c, debiased=True)
    weights = base.process.debiased(batch.timesteps)
    torch.testing.assert_close(trainer.loss(batch).detach(), (weights * huber).mean())


def test_noise_offset_shifts_whole_channels_and_leaves_the_rest(base: Base, materials: Prepared) -> None:
    def drawn(offset: float) -> torch.Tensor:
        batches = Batches(base, materials.training, materials.features, batch_size=2, seed=1, noise_offset=offset)
        return torch.cat([batches.draw(step).noise for step in range(60)])

    shift = drawn(0.5) - drawn(0.0)
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift), atol=1e-5, rtol=1e-4)
    assert 0.42 < float(shift[..., 0, 0].std()) < 0.58


def test_high_noise_levels_follow_the_cut_normal_distribution(base: Base, materials: Prepared) -> None:
    process = base.process
    assert isinstance(process, Diffusion)
    alphas = process.alphas_cumprod.double()
    snrs = [log(float(a) / (1 - float(a))) if a > 0 else -float("inf") for a in alphas]
    drawn = [process.noisy_timestep(stable_seed(1, "t", n)) for n in range(4000)]
    assert all(0 <= t < len(snrs) for t in drawn)
    normal = NormalDist(-6, 2)
    floor, ceiling = normal.cdf(snrs[-1]), normal.cdf(snrs[0])
    for at in (-5.0, -4.0, -2.0):
        expected = (normal.cdf(at) - floor) / (ceiling - floor)
        assert sum(snrs[int(t)] <= at for t in drawn) / len(drawn) == pytest.approx(expected, abs=0.03)
    high = Batches(base, materials.training, materials.features, batch_size=2, seed=1, noise_levels="high")
    even = Batches(base, materials.training, materials.features, batch_size=2, seed=1)
    mean = [torch.cat([b.draw(step).timesteps for step in range(30)]).float().mean() for b in (high, even)]
    assert mean[0] > mean[1] + 200


def test_a_crop_keeps_its_focus_in_the_middle_as_far_as_the_image_goes(base: Base, images: Path) -> None:
    assert center_crop_box(200, 100, (64, 64)) == (50, 0, 150, 100)
    assert center_crop_box(200, 100, (64, 64), (0.4, 0.9)) == (30, 0, 130, 100)
    assert center_crop_box(200, 100, (64, 64), (1.0, 0.5)) == (100, 0, 200, 100)
    assert center_crop_box(100, 300, (64, 64), (0.5, 0.0)) == (0, 0, 100, 100)
    Image.new("RGB", (256, 128)).save(images / "wide.png")
    dataset, _ = prepared(base, images, buckets=False, focus=["wide=0.25,0.5", "cat.png=1,1"])
    crops = {example.name: example.crop for example in dataset.examples}
    assert crops["wide.png"] == (0, 0, 128, 128)
    assert crops["cat.png"] == (0, 0, 128, 128)
    assert focus_points(["a=b.png=0,1"]) == {"a=b.png": (0.0, 1.0)}
    for wrong in ("cat.png", "cat.png=2,0", "=0,0", "cat.png=0.5"):
        with pytest.raises(ConfigError, match=r"data\.focus"):
            parse({"data": {"focus": [wrong]}})
