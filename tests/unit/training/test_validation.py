from __future__ import annotations

import pytest
import torch

from trainer.bases.base import Base
from trainer.training.loop import Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared
from trainer.training.validation import Validation, held_out


def test_how_many_images_are_held_out() -> None:
    assert held_out(10, 0.0, 1) == []
    assert len(held_out(10, 0.2, 1)) == 2
    assert len(held_out(10, 0.01, 1)) == 1
    assert len(held_out(2, 0.5, 1)) == 1
    assert held_out(1, 0.5, 1) == []
    assert held_out(10, 0.3, 1) == held_out(10, 0.3, 1) != held_out(10, 0.3, 2)


def test_a_style_that_is_still_zero_loses_exactly_as_the_base(
    base: Base, materials: Prepared, trainer: Trainer
) -> None:
    losses = Validation(base, materials.validation, materials.features, seed=1).measure(trainer)
    assert losses.style == losses.base > 0
    assert losses.gain == 0


def test_the_grid_never_changes_and_measuring_leaves_no_trace(
    base: Base, materials: Prepared, trainer: Trainer
) -> None:
    validation = Validation(base, materials.validation, materials.features, seed=1)
    trainer.bank.set_strengths({"style": 0.5})
    random = torch.get_rng_state()
    first = validation.measure(trainer)
    assert validation.measure(trainer) == first
    assert Validation(base, materials.validation, materials.features, seed=1).measure(trainer) == first
    assert Validation(base, materials.validation, materials.features, seed=2).measure(trainer) != first
    assert torch.equal(random, torch.get_rng_state())
    assert trainer.bank.strengths.tolist() == [[0.5]]


def test_levels_and_images_are_the_mean_seen_from_two_sides(base: Base, materials: Prepared, trainer: Trainer) -> None:
    images = [*materials.validation, *materials.training]
    validation = Validation(base, images, materials.features, seed=1, levels=3)
    trainer.run(control=Uncontrolled(), emit=lambda _: None, after_step=lambda _: None)
    losses = validation.measure(trainer)
    assert (len(losses.by_level), len(losses.by_image)) == (3, len(images))
    assert validation.passes == 3 * len(images)
    assert min(losses.by_level) <= losses.gain <= max(losses.by_level)
    assert min(losses.by_image) <= losses.gain <= max(losses.by_image)
    alone = Validation(base, images[:1], materials.features, seed=1, levels=3).measure(trainer)
    assert losses.by_image[0] == pytest.approx(alone.gain, abs=1e-4)


def test_training_shows_in_it(base: Base, materials: Prepared, trainer: Trainer) -> None:
    validation = Validation(base, materials.validation, materials.features, seed=1)
    trainer.run(control=Uncontrolled(), emit=lambda _: None, after_step=lambda _: None)
    losses = validation.measure(trainer)
    assert losses.style != losses.base
    assert losses.gain == pytest.approx(1 - losses.style / losses.base)
