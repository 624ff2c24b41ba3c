"""Several adapters trained in shared passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trainer.adapters.bank import Bank
from trainer.adapters.methods import METHODS
from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.training.batches import Batches
from trainer.training.loop import Diverged, Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared
from trainer.training.texts import learns_words
from trainer.training.together import train_together

STYLES: dict[str, dict[str, Any]] = {
    "gentle": {"rank": 2, "rate": 1e-4, "steps": 4, "batch": 2, "seed": 5},
    "bold": {"rank": 4, "rate": 1e-3, "steps": 6, "batch": 1, "seed": 9},
}
PLACES = ("cross", r"down_blocks\..*\.to_(q|v)", "self", r"mid_block\..*\.to_.*", "qv")
FAMILY: dict[str, dict[str, Any]] = {
    name: {
        "method": name,
        "rank": 2 + number,
        "targets": PLACES[number % len(PLACES)],
        "rate": 1e-4,
        "steps": 2,
        "batch": 1,
        "seed": 5 + number,
    }
    for number, name in enumerate(METHODS)
}
"""Every method, each at a rank of its own in layers of its own."""


def trainer_of(base: Base, bank: Bank, materials: Prepared, config: RunConfig, style: str) -> Trainer:
    facts = (STYLES | FAMILY)[style]
    own = config.model_copy(deep=True)
    own.optim.learning_rate, own.train.steps = facts["rate"], facts["steps"]
    # Adam divides by the size of a gradient: where that is mere rounding, which differs with the batch's shape, it
    # would make a whole step of it.
    own.optim.epsilon = 1e-3
    batches = Batches(
        base,
        materials.training,
        materials.told(base, anew=learns_words(bank, style)),
        batch_size=facts["batch"],
        seed=facts["seed"],
        caption_dropout=0.2,
    )
    return Trainer(base, bank, style, batches, own)


def add(base: Base, bank: Bank, style: str) -> None:
    facts = (STYLES | FAMILY)[style]
    more = {name: facts[name] for name in ("targets", "method") if name in facts}
    bank.add(style, rank=facts["rank"], seed=facts["seed"], tokens=base.tokens_of("ink style"), **more)


@pytest.fixture
def both(base: Base, materials: Prepared, config: RunConfig) -> Iterator[list[Trainer]]:
    torch.set_num_threads(1)
    bank = Bank(base.roots)
    for style in STYLES:
        add(base, bank, style)
    yield [trainer_of(base, bank, materials, config, style) for style in STYLES]
    bank.detach()


def alone(base: Base, materials: Prepared, config: RunConfig, style: str) -> dict[str, torch.Tensor]:
    bank = Bank(base.roots)
    add(base, bank, style)
    try:
        trainer = trainer_of(base, bank, materials, config, style)
        trainer.run(control=Uncontrolled(), emit=lambda event: None, after_step=lambda step: None)
        return trainer.weights_to_export()
    finally:
        bank.detach()


def test_each_adapter_becomes_what_it_would_have_become_alone(
    base: Base, materials: Prepared, config: RunConfig, both: list[Trainer]
) -> None:
    told: dict[str, list[float]] = {style: [] for style in STYLES}
    train_together(both, after_step=lambda trainer, loss: told[trainer.style].append(loss))
    together = {trainer.style: trainer.weights_to_export() for trainer in both}
    assert [trainer.step for trainer in both] == [4, 6]
    assert [len(losses) for losses in told.values()] == [4, 6]
    both[0].bank.detach()
    for style, weights in together.items():
        expected = alone(base, materials, config, style)
        difference = max(float((weights[name] - value).abs().max()) for name, value in expected.items())
        assert difference < 1e-6, style


def test_so_does_each_of_all_methods_with_its_own_rank_and_layers(
    base: Base, materials: Prepared, config: RunConfig
) -> None:
    torch.set_num_threads(1)
    bank = Bank(base.roots)
    for style in FAMILY:
        add(base, bank, style)
    trainers = [trainer_of(base, bank, materials, config, style) for style in FAMILY]
    train_together(trainers)
    together = {trainer.style: trainer.weights_to_export() for trainer in trainers}
    bank.detach()
    for style, weights in together.items():
        expected = alone(base, materials, config, style)
        difference = max(float((weights[name] - value).abs().max()) for name, value in expected.items())
        assert difference < 1e-6, style


def test_it_ends_between_two_steps_and_goes_on_from_there(both: list[Trainer]) -> None:
    steps = iter([True, True, False])
    train_together(both, go_on=lambda: next(steps))
    assert [trainer.step for trainer in both] == [2, 2]
    train_together(both)
    assert [trainer.step for trainer in both] == [4, 6]


def test_one_that_comes_apart_is_named_and_nobody_moves(both: list[Trainer]) -> None:
    before = both[0].weights_to_export()
    with torch.no_grad():
        both[1].parameters[0].fill_(float("inf"))
    with pytest.raises(Diverged, match="Training of 'bold' came apart") as caught:
        train_together(both)
    assert caught.value.styles == ("bold",)
    assert [trainer.step for trainer in both] == [0, 0]
    assert all(torch.equal(before[name], value) for name, value in both[0].weights_to_export().items())
