"""A style that stays behind its trigger, and captions of tags in training: what each draw sees and must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import RunConfig, parse
from trainer.errors import ConfigError
from trainer.presets import resolve
from trainer.training import run
from trainer.training.batches import Batches, join
from trainer.training.loop import Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder

CAPTIONS = ("red fox, snow, tree, ink style", "blue house, lake, boat, sky", "sun, sea, sand, ship")
Made = Callable[..., tuple[RunConfig, Prepared]]


@pytest.fixture
def made(base: Base, tmp_path: Path) -> Made:
    """Three images with captions of tags, prepared with some settings."""
    images = tmp_path / "images"
    images.mkdir()
    for index, caption in enumerate(CAPTIONS):
        Image.new("RGB", (128, 128), (80 * index, 90, 30)).save(images / f"{index}.png")
        (images / f"{index}.txt").write_text(caption)

    def prepared(**settings: dict[str, object]) -> tuple[RunConfig, Prepared]:
        given = {
            "trigger": "ink style",
            "data": {"images": str(images), **settings.get("data", {})},
            "optim": {"batch_size": 2},
            "train": {"steps": 40, "threads": 1, **settings.get("train", {})},
        }
        config = resolve(parse(given), base.family, resolution=base.resolution, images=3)
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir(exist_ok=True)
        return config, prepare(read_dataset(folder, config, base), config, base, folder.cache)

    return prepared


def batches_of(base: Base, config: RunConfig, prepared: Prepared) -> Batches:
    return Batches(
        base,
        prepared.training,
        prepared.features,
        batch_size=2,
        seed=config.train.seed,
        preserve=config.train.preserve,
    )


def trainer_of(base: Base, config: RunConfig, prepared: Prepared, bank: Bank) -> Trainer:
    bank.add("style", rank=4, seed=3)
    with torch.no_grad():
        for name, parameter in bank.parameters_of("style"):
            if "up" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return Trainer(base, bank, "style", batches_of(base, config, prepared), config)


def test_taught_rows_must_give_what_the_base_gives_to_the_caption_without_its_trigger(
    base: Base, bank: Bank, made: Made
) -> None:
    config, prepared = made(train={"preserve": 0.5})
    trainer = trainer_of(base, config, prepared, bank)
    batch = trainer.batches.compose([0, 1], 3, taught=[1])
    assert batch.taught == (1,)

    # Row by row, as if nobody shared a batch.
    texts = base.encode_texts(["red fox, snow, tree, ink style", "blue house, lake, boat, sky"]).hidden
    noisy = base.process.noised(batch.latents, batch.noise, batch.timesteps)
    target = base.process.target(batch.latents, batch.noise, batch.timesteps)

    def answer(row: int) -> torch.Tensor:
        told = {"encoder_hidden_states": texts[row : row + 1]}
        return base.predict(noisy[row : row + 1], batch.timesteps[row : row + 1], told)

    bank.set_strengths({"style": 0.0})
    with torch.no_grad():
        teacher = answer(1)
    bank.set_strengths({"style": 1.0})
    errors = torch.stack([(answer(0) - target[:1]).square().mean(), (answer(1) - teacher).square().mean()])
    expected = (base.process.weights(batch.timesteps, config.optim.min_snr_gamma) * errors).mean()
    wanted = torch.autograd.grad(expected, trainer.parameters)
    torch.testing.assert_close(trainer.accumulate(batch), expected.detach())
    for parameter, gradient in zip(trainer.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-3)

    # The next batch without such rows opens the style for all of its own.
    plain = trainer.batches.compose([0, 1], 3, taught=[])
    torch.testing.assert_close(trainer.accumulate(plain), trainer.loss(plain).detach())
    assert not torch.equal(
        batch.conditioning["encoder_hidden_states"][1], plain.conditioning["encoder_hidden_states"][1]
    )


def test_as_many_draws_are_taught_as_asked_and_measuring_sees_the_most(base: Base, made: Made) -> None:
    config, prepared = made(train={"preserve": 0.25})
    drawn = batches_of(base, config, prepared)
    share = sum(len(drawn.draw(step).taught) for step in range(300)) / 600
    assert 0.2 < share < 0.3
    assert drawn.heaviest().taught == (0, 1)
    with pytest.raises(AssertionError):
        join(base, [drawn.heaviest(), drawn.heaviest()])


def test_a_run_with_shuffled_and_taught_draws_ends_alike_when_it_was_interrupted(base: Base, made: Made) -> None:
    config, prepared = made(
        data={"shuffle_tags": True, "tag_dropout": 0.3}, train={"preserve": 0.3, "steps": 4, "checkpoint_every": 2}
    )

    def trained(stops: list[int]) -> dict[str, torch.Tensor]:
        saved = None
        for steps in [*stops, 4]:
            bank = Bank(base.roots)
            try:
                trainer = trainer_of(base, config, prepared, bank)
                if saved is not None:
                    trainer.restore(saved)
                trainer.settings = replace(trainer.settings, steps=steps)
                trainer.rate_factor = lambda step: 1.0
                trainer.run(control=Uncontrolled(), emit=lambda event: None, after_step=lambda step: None)
                saved = trainer.checkpoint().copied()
            finally:
                bank.detach()
        return dict(saved.adapter)

    config.optim.schedule = "constant"
    whole, resumed = trained([]), trained([2])
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_shuffled_captions_are_encoded_once_and_drawn_by_step(base: Base, made: Made) -> None:
    config, prepared = made(data={"shuffle_tags": True}, train={"preserve": 0.5})
    for image in prepared.training:
        assert len(image.orders) == len(image.plain) == 16
        assert len(set(image.orders)) > 4
    drawn = batches_of(base, config, prepared)
    drawn.preserve = 0
    seen = {
        tuple(drawn.draw(step).conditioning["encoder_hidden_states"][0].flatten()[:400].tolist()) for step in range(40)
    }
    assert len(seen) > 6
    again = batches_of(base, config, prepared).compose([0, 1], 7, taught=[])
    torch.testing.assert_close(
        again.conditioning["encoder_hidden_states"],
        drawn.compose([0, 1], 7, taught=[]).conditioning["encoder_hidden_states"],
    )
    # Told to be sentences they stay as they are.
    _, spoken = made(data={"shuffle_tags": True, "caption_kind": "sentences"})
    assert not any(image.orders or image.plain for image in spoken.training)


def test_a_style_without_trigger_has_nothing_to_stay_behind(base: Base, made: Made) -> None:
    config, _ = made(train={"preserve": 0.5})
    config.trigger = ""
    dataset = read_dataset(RunFolder(Path(config.data.images).parent / "run"), config, base)
    with pytest.raises(ConfigError, match=r"train\.preserve is 0\.5, but there is no trigger"):
        run._resolved(config, base, dataset, 1)
