from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers.training_utils import compute_snr

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.families.family import Prediction
from trainer.bases.process import Diffusion
from trainer.config import RunConfig
from trainer.errors import RunError
from trainer.events import Event, Progress
from trainer.preview.generate import generate
from trainer.preview.order import PreviewRow, PreviewSettings
from trainer.training.batches import Batches
from trainer.training.fitting import measure
from trainer.training.loop import Trainer
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.prepare import Prepared


def nothing(_: object) -> None:
    return None


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in zip(trainer.names, trainer.parameters, strict=True)}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class After:
    """Gives a signal once so many (micro-)steps have been asked about."""

    def __init__(self, calls: int, signal: Signal) -> None:
        self.left, self.signal = calls, signal

    def between_steps(self, session: Session) -> Signal:
        self.left -= 1
        return Signal.GO if self.left >= 0 else self.signal


def fresh(base: Base, materials: Prepared, config: RunConfig, **changes: float) -> tuple[Bank, Trainer]:
    bank = Bank(base.roots)
    bank.add("style", rank=4, dropout=config.adapter.dropout, seed=3)
    batches = Batches(
        base,
        materials.training,
        materials.features,
        batch_size=2,
        accumulation=config.optim.gradient_accumulation,
        seed=5,
        caption_dropout=0.2,
    )
    return bank, Trainer(base, bank, "style", batches, config)


def trained(base: Base, materials: Prepared, config: RunConfig, stop_after: int | None = None) -> dict:
    """The weights after a whole run, or after one that was stopped, saved and resumed in a new trainer."""
    bank, trainer = fresh(base, materials, config)
    try:
        control = Uncontrolled() if stop_after is None else After(stop_after, Signal.PAUSE)
        signal = trainer.run(control=control, emit=nothing, after_step=nothing)
        saved = trainer.checkpoint()
        result = {**state(trainer), **{f"average {k}": v for k, v in saved.average.items()}}
        saved = replace(
            saved,
            **{k: {n: t.clone() for n, t in getattr(saved, k).items()} for k in ("adapter", "optimizer", "average")},
        )
    finally:
        bank.detach()
    if stop_after is None:
        assert signal is Signal.GO
        return result
    assert signal is Signal.PAUSE
    bank, trainer = fresh(base, materials, config)
    try:
        trainer.restore(saved)
        trainer.run(control=Uncontrolled(), emit=nothing, after_step=nothing)
        return {**state(trainer), **{f"average {k}": v for k, v in trainer.checkpoint().average.items()}}
    finally:
        bank.detach()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_min_snr_loss_of_the_diffusers_script(trainer: Trainer, prediction: Prediction) -> None:
    config = {**trainer.base.process.config, "rescale_betas_zero_snr": False, "prediction_type": prediction}
    trainer.base = replace(trainer.base, process=Diffusion(config, prediction, trainer.base.device))
    batch = trainer.batches.draw(0)
    trainer.bank.set_strengths({"style": 1.0})
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler = DDPMScheduler.from_config(config)
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = trainer.base.denoiser(noisy, batch.timesteps, **batch.conditioning).sample
    snr = compute_snr(scheduler, batch.timesteps)
    if prediction == "epsilon":
        target, divisor = batch.noise, snr
    else:
        target, divisor = scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps), snr + 1
    weights = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1)[0] / divisor
    errors = F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(trainer.loss(batch), (weights * errors).mean())


def test_training_lowers_the_loss_on_what_it_trains_on(trainer: Trainer) -> None:
    trainer.settings = replace(trainer.settings, steps=12, peak_rate=2e-3)
    batches = [trainer.batches.draw(step) for step in range(4)]
    trainer.bank.set_strengths({"style": 1.0})
    with torch.no_grad():
        before = sum(float(trainer.loss(batch)) for batch in batches)
        trainer_signal = None
    trainer_signal = trainer.run(control=Uncontrolled(), emit=nothing, after_step=nothing)
    with torch.no_grad():
        after = sum(float(trainer.loss(batch)) for batch in batches)
    assert trainer_signal is Signal.GO
    assert after < before


def test_only_the_adapter_moves(trainer: Trainer) -> None:
    frozen = {n: p.detach().clone() for n, p in trainer.base.denoiser.named_parameters() if "._shares." not in n}
    start = state(trainer)
    trainer.run(control=Uncontrolled(), emit=nothing, after_step=nothing)
    assert any(not torch.equal(start[name], now) for name, now in state(trainer).items())
    for name, parameter in trainer.base.denoiser.named_parameters():
        if "._shares." not in name:
            assert torch.equal(parameter, frozen[name])
            assert parameter.grad is None


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_stopped_anywhere_and_resumed_gives_the_same_bits(
    base: Base, materials: Prepared, config: RunConfig, stop_after: int
) -> None:
    config.optim.ema_decay = 0.9
    config.adapter.dropout = 0.2
    whole = trained(base, materials, config)
    assert_same(whole, trained(base, materials, config, stop_after=stop_after))


def test_a_stop_between_two_micro_steps_waits_for_the_whole_step(
    base: Base, materials: Prepared, config: RunConfig
) -> None:
    config.optim.gradient_accumulation = 2
    whole = trained(base, materials, config)
    assert_same(whole, trained(base, materials, config, stop_after=3))


def test_a_preview_in_the_middle_changes_nothing(base: Base, materials: Prepared, config: RunConfig) -> None:
    config.adapter.dropout = 0.2
    undisturbed = trained(base, materials, config)

    class Curious:
        drawn = 0

        def between_steps(self, session: Session) -> Signal:
            rows = [PreviewRow(prompt="cat", seed=1, strengths=(s,)) for s in (0.0, 0.7)]
            self.drawn += len(generate(session.base, session.bank, rows, PreviewSettings(steps=1, scheduler="euler_a")))
            torch.randn(3)
            return Signal.GO

    bank, trainer = fresh(base, materials, config)
    try:
        curious = Curious()
        trainer.run(control=curious, emit=nothing, after_step=nothing)
        assert curious.drawn == 2 * 4
        assert_same(undisturbed, state(trainer))
    finally:
        bank.detach()


def test_two_micro_batches_make_the_gradient_of_one_batch(base: Base, materials: Prepared, config: RunConfig) -> None:
    bank, trainer = fresh(base, materials, config)
    try:
        bank.set_strengths({"style": 1.0})
        members = trainer.batches.plan.batch(0)
        whole = trainer.batches.compose([*members, *members], 0)
        trainer.accumulate(whole)
        at_once = [p.grad.clone() for p in trainer.parameters if p.grad is not None]
        trainer.optimizer.zero_grad()
        trainer.batches.accumulation = 2
        for micro in range(2):
            trainer.accumulate(trainer.batches.compose(members, 0, first_slot=2 * micro))
        in_parts = [p.grad for p in trainer.parameters if p.grad is not None]
    finally:
        bank.detach()
    assert at_once
    for one, other in zip(at_once, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_measuring_beforehand_changes_nothing(trainer: Trainer) -> None:
    before, random = state(trainer), torch.get_rng_state()
    found = measure(trainer)
    assert found.seconds_per_step > 0
    assert found.memory_bytes > 2**20
    assert_same(before, state(trainer))
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in trainer.parameters)
    assert all(float(value.abs().sum()) == 0 for s in trainer.optimizer.state.values() for value in s.values())


def test_every_loss_is_reported_once_and_the_last_step_too(trainer: Trainer) -> None:
    said: list[Event] = []
    trainer.run(control=Uncontrolled(), emit=said.append, after_step=nothing)
    progress = [event for event in said if isinstance(event, Progress)]
    assert sum(len(event.losses) for event in progress) == 4
    assert progress[-1].step == 4
    assert progress[-1].seconds_left == 0


def test_a_training_that_comes_apart_says_so_and_saves_no_useless_checkpoint(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    with pytest.raises(RunError, match="learning rate"):
        trainer.run(control=Uncontrolled(), emit=nothing, after_step=nothing)
    with pytest.raises(RunError, match="no longer a number"):
        trainer.checkpoint()


def test_a_checkpoint_of_another_rank_is_refused(trainer: Trainer) -> None:
    saved = trainer.checkpoint()
    name = trainer.names[0]
    with pytest.raises(RunError, match="another rank"):
        trainer.restore(replace(saved, adapter={**saved.adapter, name: torch.zeros(1, 1)}))
    with pytest.raises(RunError, match="other targets"):
        trainer.restore(replace(saved, adapter={}))
