"""Several adapters trained in shared passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.training.batches import Batches
from trainer.training.loop import Diverged, Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import Prepared
from trainer.training.together import train_together

STYLES = {
    "gentle": {"rank": 2, "rate": 1e-4, "steps": 4, "batch": 2, "seed": 5},
    "bold": {"rank": 4, "rate": 1e-3, "steps": 6, "batch": 1, "seed": 9},
}


def trainer_of(base: Base, bank: Bank, materials: Prepared, config: RunConfig, style: str) -> Trainer:
    facts = STYLES[style]
    own = config.model_copy(deep=True)
    own.optim.learning_rate, own.train.steps = facts["rate"], int(facts["steps"])
    # Adam divides by the size of a gradient: where that is mere rounding, which differs with the batch's shape, it
    # would make a whole step of it.
    own.optim.epsilon = 1e-3
    batches = Batches(
        base,
        materials.training,
        materials.features,
        batch_size=int(facts["batch"]),
        seed=int(facts["seed"]),
        caption_dropout=0.2,
    )
    return Trainer(base, bank, style, batches, own)


def add(bank: Bank, style: str) -> None:
    bank.add(style, rank=int(STYLES[style]["rank"]), seed=int(STYLES[style]["seed"]))


@pytest.fixture
def both(base: Base, materials: Prepared, config: RunConfig) -> Iterator[list[Trainer]]:
    torch.set_num_threads(1)
    bank = Bank(base.roots)
    for style in STYLES:
        add(bank, style)
    yield [trainer_of(base, bank, materials, config, style) for style in STYLES]
    bank.detach()


def alone(base: Base, materials: Prepared, config: RunConfig, style: str) -> dict[str, torch.Tensor]:
    bank = Bank(base.roots)
    add(bank, style)
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
    with pytest.raises(Diverged, match="bold"):
        train_together(both)
    assert [trainer.step for trainer in both] == [0, 0]
    assert all(torch.equal(before[name], value) for name, value in both[0].weights_to_export().items())
