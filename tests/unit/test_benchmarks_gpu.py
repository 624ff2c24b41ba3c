"""The card's benchmarks run from end to end on tiny models, so that whoever has a card finds them working."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from benchmarks import preview_gpu, train_gpu
from benchmarks.random_base import random_base
from benchmarks.train_gpu import Case, Ours, Plain
from trainer.bases.base import Base

pytestmark = pytest.mark.model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("key", "targets", "cached"), [("sd1", "attention", True), ("sdxl", "cross", False)])
def test_both_sides_train_the_same_layers(key: str, targets: str, cached: bool) -> None:
    case = Case(key=key, batch=2, device=CPU, dtype=torch.float32, tiny=True, targets=targets, cached=cached)
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


def test_a_side_that_fails_is_said_and_the_other_still_has_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(case: Case) -> Plain:
        raise ModuleNotFoundError("No module named 'peft'")

    monkeypatch.setattr(train_gpu, "Plain", broken)
    case = Case(key="sd1", batch=1, device=CPU, dtype=torch.bfloat16, tiny=True)
    assert not train_gpu.report(case, rounds=1, steps=1, rate=1e12, seconds=0)
    said = capsys.readouterr().out
    assert "| plain loop | failed: ModuleNotFoundError: No module named 'peft' |" in said
    line = next(line for line in said.splitlines() if line.startswith("| Patina |"))
    assert float(line.split("|")[2]) > 0
    assert "| convolutions |" in said


def test_the_sides_take_turns_until_time_is_up() -> None:
    case = Case(key="sd1", batch=1, device=CPU, dtype=torch.float32, tiny=True)
    ours, plain = Ours(case), Plain(case)
    assert len(list(train_gpu.alternate(ours, plain, rounds=5, steps=1, seconds=0))) == 1
    assert len(list(train_gpu.alternate(ours, plain, rounds=2, steps=1, seconds=600))) == 2


@pytest.mark.parametrize("key", ["sd1", "sdxl"])
def test_every_way_to_draw_leaves_the_base_as_it_was(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    # In half precision with a VAE that is not, as SDXL is drawn with on a card.
    base = random_base(key, device=CPU, dtype=torch.bfloat16, tiny=True)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    times = preview_gpu.measured(base, steps=1, rounds=1, seconds=0)
    assert times.keys() == preview_gpu.ways(base, 1).keys(), capsys.readouterr()
    after = base.denoiser.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        # Fusing rounds to bf16 and takes it back.
        torch.testing.assert_close(after[name], tensor, atol=2e-2, rtol=2e-2)


def test_a_way_to_draw_that_fails_is_said_and_the_others_are_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = random_base("sd1", device=CPU, dtype=torch.float32, tiny=True)

    @contextmanager
    def broken(base: Base, *, fused: bool) -> Iterator[None]:
        raise ModuleNotFoundError("No module named 'peft'")
        yield

    monkeypatch.setattr(preview_gpu, "peft_on", broken)
    times = preview_gpu.measured(base, steps=1, rounds=1, seconds=0)
    assert len(times) == len(preview_gpu.ways(base, 1)) - 2
    said = capsys.readouterr()
    assert "PEFT, fused: failed" in said.out
    assert "No module named 'peft'" in said.err
