from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image, ImageOps

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.families.family import Prediction
from trainer.bases.process import Diffusion
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.errors import ConfigError
from trainer.preview.generate import Cancelled, generate
from trainer.preview.order import PreviewRow, PreviewSettings

FEW = PreviewSettings(steps=3)


def row(*strengths: float, prompt: str = "red apple", seed: int = 1) -> PreviewRow:
    return PreviewRow(prompt=prompt, seed=seed, strengths=strengths)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def process(prediction: Prediction, *, zero_snr: bool) -> Diffusion:
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    return Diffusion({**config, "rescale_betas_zero_snr": zero_snr}, prediction, torch.device("cpu"))


PROCESSES = {
    "epsilon": process("epsilon", zero_snr=False),
    "v": process("v_prediction", zero_snr=False),
    "v to pure noise": process("v_prediction", zero_snr=True),
}
CASES = [
    (kind, name)
    for kind in PROCESSES
    for name in SCHEDULERS
    if not (PROCESSES[kind].zero_terminal_snr and SCHEDULERS[name].needs_signal)
]


@pytest.mark.parametrize(("kind", "scheduler"), CASES)
def test_the_base_draws_what_the_diffusers_pipeline_draws(
    base: Base, bundled_dir: str, kind: str, scheduler: Scheduler
) -> None:
    base = replace(base, process=PROCESSES[kind], family=replace(base.family, guidance_rescale=1.0))
    pipeline = StableDiffusionPipeline.from_pretrained(bundled_dir, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = base.process.scheduler(scheduler)
    bank = Bank(base.roots)
    ours = generate(base, bank, [row(seed=5)], PreviewSettings(steps=4, scheduler=scheduler, guidance=3.0))[0]
    theirs = pipeline(
        "red apple",
        negative_prompt="",
        num_inference_steps=4,
        guidance_scale=3.0,
        guidance_rescale=0.7 if kind == "v to pure noise" else 0.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert difference(ours, theirs) <= 1


@pytest.mark.parametrize("scheduler", [name for name, row in SCHEDULERS.items() if row.needs_signal])
def test_a_scheduler_that_cannot_start_from_pure_noise_is_refused_with_a_reason(
    base: Base, scheduler: Scheduler
) -> None:
    base = replace(base, process=PROCESSES["v to pure noise"])
    with pytest.raises(ConfigError, match=rf"'{re.escape(scheduler)}' .*choose one of ddim"):
        generate(base, Bank(base.roots), [row()], PreviewSettings(steps=2, scheduler=scheduler))


def test_strength_zero_is_the_base_to_the_last_bit(base: Base, bank: Bank) -> None:
    closed = generate(base, bank, [row(0, 0)], FEW)[0]
    with bank.detached():
        alone = generate(base, Bank(base.roots), [row()], FEW)[0]
    assert difference(closed, alone) == 0


def test_rows_of_one_batch_are_the_pictures_drawn_alone(base: Base, bank: Bank) -> None:
    rows = [row(0, 0), row(1, 0), row(0, 1), row(0.5, 0.5), row(1, 0, prompt="cat face", seed=9)]
    together = generate(base, bank, rows, FEW)
    alone = [generate(base, bank, [one], FEW)[0] for one in rows]
    assert all(difference(a, b) <= 1 for a, b in zip(together, alone, strict=True))
    assert all(difference(a, b) > 8 for i, a in enumerate(together) for b in together[:i])


def test_a_split_into_smaller_batches_changes_nothing_to_see(base: Base, bank: Bank) -> None:
    rows = [row(s / 4, 0) for s in range(5)]
    whole, split = generate(base, bank, rows, FEW), generate(base, bank, rows, FEW, max_batch=2)
    assert all(difference(a, b) <= 1 for a, b in zip(whole, split, strict=True))


def test_a_row_with_settings_of_its_own_is_drawn_with_them_and_keeps_its_place(base: Base, bank: Bank) -> None:
    other = PreviewSettings(steps=2, scheduler="euler", guidance=1)
    rows = [row(1, 0), row(1, 0).model_copy(update={"settings": other}), row(0, 1)]
    told: list[tuple[int, int]] = []
    together = generate(base, bank, rows, FEW, on_step=lambda *step: told.append(step) or True)
    alone = [generate(base, bank, [one], settings)[0] for one, settings in zip(rows, (FEW, other, FEW), strict=True)]
    assert all(difference(a, b) <= 1 for a, b in zip(together, alone, strict=True))
    assert told[-1] == (5, 5), "three steps for the two that share their settings, two for the other"


def test_without_guidance_one_pass_is_enough(base: Base, bank: Bank) -> None:
    calls: list[int] = []
    hook = base.denoiser.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].shape[0]))
    try:
        generate(base, bank, [row(1, 0)], PreviewSettings(steps=2, guidance=1.0))
        generate(base, bank, [row(1, 0)], PreviewSettings(steps=1, guidance=2.0))
    finally:
        hook.remove()
    assert calls == [1, 1, 2]


def test_sides_may_differ_but_must_fit_the_base(base: Base, bank: Bank) -> None:
    side = base.side_multiple
    wide = generate(base, bank, [row(1, 0)], PreviewSettings(steps=1, width=3 * side, height=2 * side))[0]
    assert wide.size == (3 * side, 2 * side)
    with pytest.raises(ConfigError, match=rf"width is {2 * side + 6}.*multiple of {side}.*such as {2 * side}"):
        generate(base, bank, [row(1, 0)], PreviewSettings(steps=1, width=2 * side + 6))


def test_the_number_of_strengths_must_be_that_of_the_adapters(base: Base, bank: Bank) -> None:
    with pytest.raises(ConfigError, match="3 strengths, but 2 adapters"):
        generate(base, bank, [row(1, 1, 1)], FEW)


def test_progress_is_told_after_every_step_and_can_cancel(base: Base, bank: Bank) -> None:
    told: list[tuple[int, int]] = []

    def three(done: int, total: int) -> bool:
        told.append((done, total))
        return done < 3

    with pytest.raises(Cancelled):
        generate(base, bank, [row(1, 0)] * 4, PreviewSettings(steps=2), max_batch=2, on_step=three)
    assert told == [(1, 4), (2, 4), (3, 4)]


def test_gates_mode_and_random_state_are_as_before_even_after_a_cancel(base: Base, bank: Bank) -> None:
    bank.set_strengths({"one": 0.3})
    base.denoiser.train()
    random, gates = torch.get_rng_state(), bank.strengths
    try:
        generate(base, bank, [row(1, 1)] * 2, PreviewSettings(steps=1, scheduler="euler_a"))
        with pytest.raises(Cancelled):
            generate(base, bank, [row(1, 1)], FEW, on_step=lambda *_: False)
        assert base.denoiser.training
    finally:
        base.denoiser.eval()
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(gates, bank.strengths)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that is wider than high."""
    gradient = np.linspace(0, 255, 160 * 80 * 3).reshape(80, 160, 3).astype(np.uint8)
    Image.fromarray(gradient).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("scheduler", ["ddim", "euler_a", "dpm++_2m", "unipc"])
def test_a_picture_to_begin_with_is_drawn_over_as_diffusers_does(
    base: Base, bundled_dir: str, photo: Path, scheduler: Scheduler
) -> None:
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(bundled_dir, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = base.process.scheduler(scheduler)
    settings = PreviewSettings(
        steps=5, scheduler=scheduler, guidance=3.0, image=str(photo), change=0.6, width=64, height=64
    )
    told: list[tuple[int, int]] = []
    rows = [row(seed=5), row(seed=6)]
    ours = generate(base, Bank(base.roots), rows, settings, on_step=lambda *step: told.append(step) or True)
    assert told[-1] == (3, 3)
    with Image.open(photo) as image:
        square = ImageOps.fit(image, (64, 64), Image.Resampling.LANCZOS)
    mean, _ = base.encode_images(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1)
    theirs = pipeline(
        "red apple",
        image=base.scale_latents(mean),
        strength=0.6,
        negative_prompt="",
        num_inference_steps=5,
        guidance_scale=3.0,
        guidance_rescale=base.guidance_rescale,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert difference(ours[0], theirs) <= 1
    assert difference(ours[0], ours[1]) > 8


def test_less_change_stays_nearer_to_the_picture_and_takes_its_shape(base: Base, photo: Path) -> None:
    def drawn(change: float) -> Image.Image:
        settings = PreviewSettings(steps=6, guidance=1, image=str(photo), change=change)
        return generate(base, Bank(base.roots), [row()], settings)[0]

    little, much = drawn(0.1), drawn(1.0)
    assert little.width > little.height
    with Image.open(photo) as image:
        wanted = pixels(image.convert("RGB").resize(little.size, Image.Resampling.LANCZOS))
    far = [np.abs(pixels(one) - wanted).mean() for one in (little, much)]
    assert far[0] < far[1] / 2


def test_a_picture_that_is_gone_is_a_sentence(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not there any more"):
        generate(base, Bank(base.roots), [row()], PreviewSettings(steps=2, image=str(tmp_path / "no.png")))
