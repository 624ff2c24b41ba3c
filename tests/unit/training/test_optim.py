from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

from trainer.config import OptimConfig, settings
from trainer.config.schedulers import SCHEDULERS
from trainer.errors import ConfigError, RunError
from trainer.optimizers import OPTIMIZERS, SCHEDULES
from trainer.training.checkpoint import Checkpoint, save
from trainer.training.optim import Average, learning_rate_at, make_optimizer, restore_state, set_learning_rate, state_of


def rates(steps: int, warmup: int, schedule: str) -> list[float]:
    return [learning_rate_at(s, peak=1.0, steps=steps, warmup=warmup, schedule=schedule) for s in range(steps)]


def test_the_rate_warms_up_and_then_stays_or_falls_along_a_cosine() -> None:
    constant, cosine = rates(100, 10, "constant"), rates(100, 10, "cosine")
    assert constant[:10] == cosine[:10] == [pytest.approx((s + 1) / 11) for s in range(10)]
    assert constant[10:] == [1.0] * 90
    assert cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(5, 0, "constant")[0] == 1.0


def test_the_optimizer_moves_exactly_as_plain_adamw() -> None:
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    config = OptimConfig(learning_rate=1e-2, weight_decay=0.1)
    ours, plain = Parameter(start.clone()), Parameter(start.clone())
    optimizer = make_optimizer([("ours", ours)], config)
    reference = torch.optim.AdamW([plain], lr=1e-2, weight_decay=0.1, foreach=False)
    for step in range(5):
        for parameter in (ours, plain):
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        set_learning_rate(optimizer, 1e-2)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, plain, atol=1e-7, rtol=1e-6)


def test_an_average_follows_slowly_and_starts_quickly() -> None:
    parameter = Parameter(torch.zeros(2))
    average = Average([parameter], decay=0.9)
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update([parameter])
    first = average.values[0][0].item()
    assert first == pytest.approx(0.9)
    for _ in range(200):
        average.update([parameter])
    assert average.values[0][0].item() == pytest.approx(1.0, abs=1e-4)


def config_of(optimizer: str) -> OptimConfig:
    return OptimConfig(optimizer=optimizer, learning_rate=OPTIMIZERS[optimizer].usual_rate or 1e-2, weight_decay=0.1)


def moved(optimizer: torch.optim.Optimizer, parameters: list[Parameter], steps: range) -> None:
    for step in steps:
        for index, parameter in enumerate(parameters):
            noise = torch.Generator().manual_seed(10 * step + index)
            parameter.grad = torch.randn(parameter.shape, generator=noise) + parameter.detach()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def fresh_parameters() -> list[Parameter]:
    """One with values enough for blocks of 8 bits, one with few."""
    start = torch.Generator().manual_seed(1)
    return [Parameter(torch.randn(80, 60, generator=start)), Parameter(torch.zeros(3, 4))]


def test_the_settings_offer_the_registries() -> None:
    offered = {path: set(setting.choices) for path, setting in settings().items()}
    assert offered["optim.optimizer"] == set(OPTIMIZERS)
    assert offered["optim.schedule"] == set(SCHEDULES)
    assert offered["samples.scheduler"] == set(SCHEDULERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit_from_what_it_remembers(name: str) -> None:
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    config, whole = config_of(name), fresh_parameters()
    optimizer = make_optimizer(zip("ab", whole, strict=True), config)
    moved(optimizer, whole, range(3))
    tensors, remembered = state_of(optimizer, list(zip("ab", whole, strict=True)))
    tensors = {key: value.clone() for key, value in tensors.items()}
    remembered = json.loads(json.dumps(remembered))
    parted = [Parameter(parameter.detach().clone()) for parameter in whole]
    moved(optimizer, whole, range(3, 6))

    again = make_optimizer(zip("ab", parted, strict=True), config)
    restore_state(again, list(zip("ab", parted, strict=True)), tensors, remembered)
    moved(again, parted, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole, parted, strict=True))
    assert all(not torch.equal(parameter, start) for parameter, start in zip(whole, fresh_parameters(), strict=True))


def test_eight_bits_take_a_quarter_of_the_memory_and_move_weights_alike(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    taken: dict[str, int] = {}
    ended: dict[str, list[Parameter]] = {}
    for name in ("adamw", "adamw_8bit"):
        parameters = fresh_parameters()
        named = list(zip("ab", parameters, strict=True))
        optimizer = make_optimizer(named, config_of(name))
        # Before the first step, so that what fits is measured with it.
        tensors, _ = state_of(optimizer, named)
        taken[name] = sum(t.nbytes for key, t in tensors.items() if key.startswith("a.") and "qmap" not in key)
        moved(optimizer, parameters, range(20))
        ended[name] = parameters
    assert taken["adamw_8bit"] < 0.27 * taken["adamw"]
    save(Checkpoint(20, {}, tensors), tmp_path, keep=1)
    start = fresh_parameters()
    whole, short = (torch.cat([(p - s).flatten() for p, s in zip(ended[n], start, strict=True)]) for n in ended)
    assert torch.cosine_similarity(whole, short, dim=0) > 0.99
    assert not torch.equal(whole, short)


def test_a_device_without_kernels_for_eight_bits_is_a_sentence() -> None:
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ConfigError, match="cannot compute on meta"):
        make_optimizer([("a", Parameter(torch.zeros(80, 60, device="meta")))], config_of("adamw_8bit"))


def test_what_schedule_free_exports_is_what_its_own_evaluation_shows() -> None:
    parameters = fresh_parameters()
    optimizer = make_optimizer(zip("ab", parameters, strict=True), config_of("schedule_free_adamw"))
    moved(optimizer, parameters, range(5))
    exported = OPTIMIZERS["schedule_free_adamw"].exported
    assert exported is not None
    shown = [exported(optimizer, parameter) for parameter in parameters]
    optimizer.eval()  # type: ignore[attr-defined]
    assert all(torch.equal(one, other) for one, other in zip(shown, parameters, strict=True))


def test_parts_learn_at_their_own_rates_and_frozen_ones_not_at_all() -> None:
    fast, slow, frozen = Parameter(torch.zeros(2)), Parameter(torch.zeros(2)), Parameter(torch.zeros(2), False)
    named = [("x.up", fast), ("x.down", slow), ("x.fixed", frozen)]
    optimizer = make_optimizer(named, config_of("adamw"), lambda key: 16.0 if key.endswith("up") else 1.0)
    set_learning_rate(optimizer, 1e-3)
    for parameter in (fast, slow):
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert fast.detach()[0] == pytest.approx(16 * slow.detach()[0])
    assert frozen not in optimizer.state
    assert torch.equal(frozen, torch.zeros(2))


def test_an_optimizer_that_finds_its_own_rate_refuses_several() -> None:
    named = list(zip(("x.up", "x.down"), fresh_parameters(), strict=True))
    with pytest.raises(ConfigError, match="at one rate"):
        make_optimizer(named, config_of("prodigy"), lambda key: 16.0 if key.endswith("up") else 1.0)


def test_the_state_of_another_optimizer_is_refused() -> None:
    parameters = fresh_parameters()
    named = list(zip("ab", parameters, strict=True))
    other = make_optimizer(named, config_of("prodigy"))
    moved(other, parameters, range(2))
    tensors, remembered = state_of(other, named)
    with pytest.raises(RunError, match="another optimizer"):
        restore_state(make_optimizer(named, config_of("adamw")), named, tensors, remembered)


def test_an_optimizer_whose_package_is_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prodigyopt", None)
    with pytest.raises(ConfigError, match="pip install prodigyopt"):
        make_optimizer(zip("ab", fresh_parameters(), strict=True), config_of("prodigy"))
