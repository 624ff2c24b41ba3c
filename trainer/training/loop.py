"""The training loop: it reads from top to bottom as the algorithm.

Each optimizer step noises cached latents, lets the base with its adapter predict, weighs the squared error
(Min-SNR), and moves the adapter alone; the base is frozen. See `trainer.bases.process` for the mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.errors import RunError
from trainer.events import Emit, Progress
from trainer.randomness import stable_seed
from trainer.training.batches import Batch, Batches
from trainer.training.checkpoint import Checkpoint
from trainer.training.optim import Average, learning_rate_at, make_optimizer, set_learning_rate
from trainer.training.pausing import Control, Session, Signal

REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Resolved:
    """The numbers of a resolved config that the loop needs, none of them optional."""

    steps: int
    accumulation: int
    peak_rate: float
    warmup: int
    schedule: str
    max_grad_norm: float
    min_snr_gamma: float
    seed: int
    dropout: float

    @classmethod
    def of(cls, config: RunConfig) -> Resolved:
        steps, rate = config.train.steps, config.optim.learning_rate
        assert steps is not None
        assert rate is not None
        return cls(
            steps=steps,
            accumulation=config.passes_per_step,
            peak_rate=rate,
            warmup=config.optim.warmup_steps or 0,
            schedule=config.optim.schedule,
            max_grad_norm=config.optim.max_grad_norm,
            min_snr_gamma=config.optim.min_snr_gamma,
            seed=config.train.seed,
            dropout=config.adapter.dropout,
        )


class Trainer:
    """One adapter in training: its parameters, optimizer, average, and the step it stands at.

    Args:
        base: the frozen base, with ``bank`` attached to it.
        bank: holds the adapter ``style``; its gates are set here and stay set.
        batches: what is trained on.
        config: a resolved config (`trainer.presets.resolve`).
    """

    def __init__(self, base: Base, bank: Bank, style: str, batches: Batches, config: RunConfig) -> None:
        self.base, self.bank, self.style, self.batches = base, bank, style, batches
        self.settings = Resolved.of(config)
        self.step = 0
        named = bank.parameters_of(style)
        self.names = [name for name, _ in named]
        self.parameters: list[Parameter] = [parameter for _, parameter in named]
        self.optimizer = make_optimizer(self.parameters, config.optim)
        self.average = Average(self.parameters, config.optim.ema_decay) if config.optim.ema_decay else None
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=base.dtype == torch.float16)

    def run(self, *, control: Control, emit: Emit, after_step: Callable[[int], None]) -> Signal:
        """Train from the current step to the last one, or until ``control`` says otherwise.

        ``after_step(step)`` is called once ``step`` optimizer steps are done, before the next one begins.

        Raises:
            RunError: the loss is no longer a number.
        """
        settings = self.settings
        report = _Report(self, emit)
        session = Session(self.base, self.bank, self.style, self.step, settings.steps)
        self.bank.set_strengths({self.style: 1.0})
        self.base.denoiser.train(settings.dropout > 0)
        while self.step < settings.steps:
            session.step = self.step
            wish = Signal.GO
            losses: list[Tensor] = []
            for micro in range(settings.accumulation):
                report.pause()
                asked = control.between_steps(session)
                report.resume()
                if asked is not Signal.GO:
                    wish = asked
                if wish is not Signal.GO and micro == 0:
                    report.flush()
                    return wish
                losses.append(self.accumulate(self.batches.draw(self.step, micro), micro))
            rate = self.rate_at(self.step)
            self.update(rate)
            self.step += 1
            report.add(torch.stack(losses).mean(), rate)
            report.pause()
            after_step(self.step)
            report.resume()
            if wish is not Signal.GO and self.step < settings.steps:
                report.flush()
                return wish
        report.flush()
        return Signal.GO

    def accumulate(self, batch: Batch, micro: int = 0) -> Tensor:
        """Forward and backward pass of one micro-batch; gradients add up. Returns the loss, a detached scalar."""
        if self.settings.dropout:
            torch.manual_seed(stable_seed(self.settings.seed, "dropout", self.step, micro))
        loss = self.loss(batch)
        self.scaler.scale(loss / self.settings.accumulation).backward()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Weighted squared error of a batch, a scalar in fp32."""
        weights = self.base.process.weights(batch.timesteps, self.settings.min_snr_gamma)
        return (weights * self.base.errors(*batch.inputs)).mean()

    def update(self, rate: float) -> None:
        """One optimizer step with the gradients that have added up."""
        set_learning_rate(self.optimizer, rate)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.parameters)

    def rate_at(self, step: int) -> float:
        s = self.settings
        return learning_rate_at(step, peak=s.peak_rate, steps=s.steps, warmup=s.warmup, schedule=s.schedule)

    def weights_to_export(self) -> dict[str, Tensor]:
        """What the file holds: the average of the weights when one is kept, else the weights."""
        values = self.average.values if self.average is not None else self.parameters
        return {name: value.detach().clone() for name, value in zip(self.names, values, strict=True)}

    def checkpoint(self) -> Checkpoint:
        """The state after `step` steps.

        Raises:
            RunError: a weight is no longer a number, so that a good checkpoint is never followed by a useless one.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise _diverged(self.step)
        optimizer: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state[parameter].items():
                optimizer[f"{name}.{key}"] = value
        average = dict(zip(self.names, self.average.values, strict=True)) if self.average is not None else {}
        state = {
            "base": self.base.identity,
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates if self.average else 0,
        }
        weights = dict(zip(self.names, self.parameters, strict=True))
        return Checkpoint(self.step, dict(weights), optimizer, average, state)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint as if nothing had happened.

        Raises:
            RunError: it belongs to an adapter of another shape, or to another base.
        """
        if checkpoint.state.get("base", self.base.identity) != self.base.identity:
            raise RunError(
                "The checkpoint was made on another base: the model behind its name has changed since. Bring the old "
                "one back (base.revision names a version on the hub), or start a new run."
            )
        if set(checkpoint.adapter) != set(self.names):
            raise RunError("The checkpoint was made with other targets; its settings have been changed since.")
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if checkpoint.adapter[name].shape != parameter.shape:
                raise RunError(f"The checkpoint's {name} has another rank; its settings have been changed since.")
            parameter.copy_(checkpoint.adapter[name])
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(checkpoint.optimizer[f"{name}.{key}"])
        if self.average is not None:
            for name, value in zip(self.names, self.average.values, strict=True):
                value.copy_(checkpoint.average[name])
            self.average.updates = int(checkpoint.state["average_updates"])
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step


class _Report:
    """Gathers losses on the device and says them in batches, so that the loop never waits for the device."""

    def __init__(self, trainer: Trainer, emit: Emit) -> None:
        self.trainer, self.emit = trainer, emit
        self.losses: list[Tensor] = []
        self.rate = 0.0
        self.steps = 0
        self.worked = 0.0
        self.since = self.said = time.monotonic()

    def pause(self) -> None:
        self.worked += time.monotonic() - self.since

    def resume(self) -> None:
        self.since = time.monotonic()

    def add(self, loss: Tensor, rate: float) -> None:
        self.losses.append(loss)
        self.rate = rate
        self.steps += 1
        if time.monotonic() - self.said >= REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self.losses:
            return
        losses = tuple(torch.stack(self.losses).tolist())
        self.losses.clear()
        trainer = self.trainer
        worked = self.worked + time.monotonic() - self.since
        per_step = worked / self.steps
        images = trainer.batches.batch_size * trainer.settings.accumulation
        steps = trainer.settings.steps
        self.emit(
            Progress(
                step=trainer.step,
                steps=steps,
                losses=losses,
                learning_rate=self.rate,
                samples_per_second=images / per_step,
                seconds_left=per_step * (steps - trainer.step),
            )
        )
        self.said = time.monotonic()
        # With a loss scaler a single overflow is normal: that step is skipped and the scale lowered.
        if not trainer.scaler.is_enabled() and not all(math.isfinite(loss) for loss in losses):
            raise _diverged(trainer.step)


def _diverged(step: int) -> RunError:
    return RunError(
        f"Training came apart before step {step}: the loss is no longer a number. "
        "Try again with a tenth of the learning rate, or with precision fp32."
    )
