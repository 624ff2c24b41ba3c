from __future__ import annotations

import pytest
import torch

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.training.batches import Batches
from trainer.training.loop import Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared
from trainer.training.texts import learns_words
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


def test_words_that_learn_are_measured_with_what_text_encoders_say_of_them_now(
    base: Base, bank: Bank, materials: Prepared, config: RunConfig
) -> None:
    bank.add("style", method="textual-inversion", tokens=base.tokens_of("ink style"), seed=3)
    told = materials.told(base, anew=learns_words(bank, "style"))
    trainer = Trainer(base, bank, "style", Batches(base, materials.training, told, batch_size=2), config)
    with torch.no_grad():
        # Not by the same everywhere, which the layer norms would take away again.
        trainer.parameters[0].normal_(generator=torch.Generator().manual_seed(1))
    base.placement.park(("vae", "text"))
    try:
        losses = Validation(base, materials.validation, materials.features, seed=1, levels=2).measure(trainer)
        assert base.placement.parked == {"vae"}, "what a backward pass needs stays"
    finally:
        base.placement.park(())
    bank.add("other", rank=2, seed=3)
    other = Trainer(base, bank, "other", Batches(base, materials.training, materials.features, batch_size=2), config)
    plain = Validation(base, materials.validation, materials.features, seed=1, levels=2).measure(other)
    assert losses.base == pytest.approx(plain.style, rel=1e-5)
    assert abs(losses.style - losses.base) > 0.01 * losses.base
