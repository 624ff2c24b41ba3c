"""The card's benchmarks run from end to end on tiny models, so that whoever has a card finds them working."""

from __future__ import annotations

import pytest
import torch

from benchmarks import preview_gpu, train_gpu
from benchmarks.random_base import random_base
from benchmarks.train_gpu import Case, Ours, Plain

pytestmark = pytest.mark.model

CPU = torch.device("cpu")


@pytest.mark.parametrize("key", ["sd1", "sdxl"])
def test_both_sides_train_the_same_layers(key: str) -> None:
    case = Case(key, 2, CPU, torch.float32, tiny=True)
    ours, plain = Ours(case), Plain(case)
    trained = sum(parameter.numel() for parameter in plain.parameters)
    assert sum(parameter.numel() for parameter in ours.trainer.parameters) == trained
    before = [parameter.detach().clone() for parameter in ours.trainer.parameters]
    for index in range(2):
        ours.step(index)
        plain.step(index)
    assert any(not torch.equal(a, b) for a, b in zip(before, ours.trainer.parameters, strict=True))
    shares = dict(train_gpu.profile_of(ours, steps=1))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["convolutions"] > 0


def test_a_limit_that_nothing_meets_is_reported_not_raised(capsys: pytest.CaptureFixture[str]) -> None:
    train_gpu.main(["--tiny", "--family", "sd1", "--batch", "1", "--limit-gib", "0.01", "--memory-of", "Patina"])
    assert "does not fit" in capsys.readouterr().out


def test_every_way_to_draw_leaves_the_base_as_it_was() -> None:
    base = random_base("sd1", device=CPU, dtype=torch.float32, tiny=True)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    for way in preview_gpu.ways(base, steps=1).values():
        with way() as draw:
            draw()
        after = base.denoiser.state_dict()
        assert after.keys() == before.keys()
        for name, tensor in before.items():
            torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=0)
