"""The training loop: it reads from top to bottom as the algorithm.

Each optimizer step noises cached latents, lets the base with its adapter predict, weighs the squared error
(Min-SNR), and moves the adapter alone; the base is frozen. See `trainer.bases.process` for the mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter

from trainer.adapters.bank import Bank
from trainer.adapters.spec import Learning
from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import RunConfig
from trainer.errors import RunError
from trainer.events import Emit, Progress
from trainer.hardware import keep_freed_memory
from trainer.optimizers import OPTIMIZERS
from trainer.randomness import stable_seed
from trainer.training.batches import Batch, Batches
from trainer.training.checkpoint import Checkpoint
from trainer.training.optim import Average, learning_rate_at, make_optimizer, restore_state, set_learning_rate, state_of
from trainer.training.pausing import Control, Session, Signal
from trainer.training.processes import average_gradients, open_accelerator, own_passes

REPORT_SECONDS = 0.5
PACE_STEPS = 10
"""Steps from which on their mean time says how long one takes; the first are slower."""
_SIGNALS = (Signal.GO, Signal.PAUSE, Signal.STOP)


class Diverged(RunError):
    """The loss is no longer a number; ``styles`` are the adapters whose loss it is, where several learn."""

    def __init__(self, message: str, styles: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.styles = tuple(styles)


@dataclass(frozen=True)
class Resolved:
    """The numbers of a resolved config that the loop needs, none of them optional."""

    steps: int
    peak_rate: float
    warmup: int
    schedule: str
    max_grad_norm: float
    min_snr_gamma: float
    seed: int
    dropout: float
    huber: float = 0.0
    debiased: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> Resolved:
        steps, rate = config.train.steps, config.optim.learning_rate
        assert steps is not None
        assert rate is not None
        return cls(
            steps=steps,
            peak_rate=rate,
            warmup=config.optim.warmup_steps or 0,
            schedule=config.optim.schedule if OPTIMIZERS[config.optim.optimizer].scheduled else "constant",
            max_grad_norm=config.optim.max_grad_norm,
            min_snr_gamma=config.optim.min_snr_gamma,
            seed=config.train.seed,
            dropout=config.adapter.dropout,
            huber=config.optim.huber,
            debiased=config.optim.debiased,
        )


class Trainer:
    """One adapter in training: its parameters, optimizer, average, and the step it stands at.

    Args:
        base: the frozen base, with ``bank`` attached to it.
        bank: holds the adapter ``style``; its gates are set here and stay set.
        batches: what is trained on.
        config: a resolved config (`trainer.presets.resolve`).
        accelerator: the processes that share each step; None is this one alone.

    Attributes:
        pace: seconds of a step in this training, None while there were few.
    """

    def __init__(
        self,
        base: Base,
        bank: Bank,
        style: str,
        batches: Batches,
        config: RunConfig,
        *,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.base, self.bank, self.style, self.batches = base, bank, style, batches
        self.accelerator = open_accelerator() if accelerator is None else accelerator
        self.settings = Resolved.of(config)
        self.step = 0
        self.pace: float | None = None
        self._gates_by_row = False
        self._chosen: tuple[int, dict[str, Tensor]] | None = None
        self.rate_factor: Callable[[int], float] = lambda step: 1.0
        self.learning: Learning = bank.learning_of(style)
        self.named = bank.parameters_of(style)
        self.names = [name for name, _ in self.named]
        self.parameters: list[Parameter] = [parameter for _, parameter in self.named]
        self.entry = OPTIMIZERS[config.optim.optimizer]
        self.optimizer = make_optimizer(self.named, config.optim, self.learning.rate_factor)
        self.average = Average(self.parameters, config.optim.ema_decay) if config.optim.ema_decay else None
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=base.dtype == torch.float16)

    @property
    def alone(self) -> bool:
        """Whether this process computes whole steps."""
        return self.accelerator.num_processes == 1

    @property
    def passes(self) -> range:
        """The passes of a step that this process computes."""
        return own_passes(self.accelerator, self.batches.passes_per_step)

    def run(self, *, control: Control, emit: Emit, after_step: Callable[[int], None]) -> Signal:
        """Train from the current step to the last one, or until ``control`` says otherwise.

        ``after_step(step)`` is called once ``step`` optimizer steps are done, before the next one begins.

        Raises:
            Diverged: the loss is no longer a number.
            torch.OutOfMemoryError, MemoryError: memory ran out; `step` is the one that was not done.
        """
        report = _Report(self, emit)
        session = Session(self.base, self.bank, self.style, self.step, self.settings.steps)
        self.bank.set_strengths({self.style: 1.0})
        self.base.denoiser.train(self.settings.dropout > 0)
        with report:
            while self.step < self.settings.steps:
                session.step = self.step
                wish = Signal.GO
                losses: list[Tensor] = []
                with self._failing_together() as failed:
                    for number in self.passes:
                        with report.paused():
                            asked = control.between_steps(session)
                        wish = wish if asked is Signal.GO else asked
                        if wish is not Signal.GO and self.alone and not losses:
                            return wish
                        losses.append(self.accumulate(self.batches.draw(self.step, number), number))
                loss = torch.stack(losses).mean() if losses else torch.zeros(())
                if not self.alone:
                    loss, wish = self._agree(loss, wish, failed)
                rate = self.rate_at(self.step)
                self.update(rate)
                self.step += 1
                report.add(loss, rate)
                with report.paused():
                    after_step(self.step)
                if wish is not Signal.GO and self.step < self.settings.steps:
                    return wish
        return Signal.GO

    def accumulate(self, batch: Batch, number: int = 0) -> Tensor:
        """Forward and backward pass of one of a step's batches; gradients add up. Returns the loss, a detached scalar.

        Args:
            number: which pass of the step, for what the base itself draws (dropout).
        """
        if self.settings.dropout:
            torch.manual_seed(stable_seed(self.settings.seed, "dropout", self.step, number))
        self._open_gates(batch)
        keep_freed_memory()
        loss = self.loss(batch)
        self.scaler.scale(self.share(loss)).backward()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Weighted squared error of a batch, a scalar in fp32."""
        return self.weighed(self.base.errors(*batch.inputs, huber=self.settings.huber), batch.timesteps)

    def _open_gates(self, batch: Batch) -> None:
        """The style is open for a batch's own rows and closed for those that are the base's answer."""
        own, closed = len(batch.timesteps), len(batch.taught)
        if closed or self._gates_by_row:
            strengths = torch.zeros(own + closed, len(self.bank.names))
            strengths[:own, self.bank.names.index(self.style)] = 1
            self.bank.set_strengths(strengths if closed else {self.style: 1.0})
            self._gates_by_row = bool(closed)

    def weighed(self, errors: Tensor, timesteps: Tensor) -> Tensor:
        """The loss that errors (B,) at timesteps (B,) make, a scalar."""
        process, settings = self.base.process, self.settings
        if settings.debiased:
            return (process.debiased(timesteps) * errors).mean()
        return (process.weights(timesteps, settings.min_snr_gamma) * errors).mean()

    def share(self, loss: Tensor) -> Tensor:
        """A pass's part in the step's loss, with what the adapter's method adds to it."""
        extra = self.learning.extra_loss()
        return (loss if extra is None else loss + extra) / len(self.passes)

    def update(self, rate: float) -> None:
        """One optimizer step with the gradients that have added up."""
        set_learning_rate(self.optimizer, rate)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.learning.after_step(self.step + 1, self.settings.steps)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.parameters)

    def rate_at(self, step: int) -> float:
        """The learning rate of optimizer step ``step``, counted from 0."""
        s = self.settings
        rate = learning_rate_at(step, peak=s.peak_rate, steps=s.steps, warmup=s.warmup, schedule=s.schedule)
        return rate * self.rate_factor(step)

    def weights_to_export(self) -> dict[str, Tensor]:
        """What the file holds: the weights that were chosen, else those that the training settled on, copied.

        As in a checkpoint, what a method keeps beside its weights is with them.
        """
        if self._chosen is not None:
            return {name: value.clone() for name, value in self._chosen[1].items()}
        return self._settled()

    def exported_of(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """What the file would hold had the run ended at a checkpoint of it."""
        if checkpoint.average or self.entry.exported is None:
            return {**checkpoint.adapter, **checkpoint.average}
        own = self.checkpoint().copied()
        self.restore(checkpoint)
        weights = self._settled()
        self.restore(own)
        return weights

    def weights_now(self) -> dict[str, Tensor]:
        """The adapter's own weights at the moment and what its method keeps beside them, copied."""
        return {name: value.clone() for name, value in self.bank.state_dict_of(self.style).items()}

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Give the adapter these weights; optimizer, average and step stay as they are."""
        self.bank.load_state_of(self.style, weights)

    @contextmanager
    def as_exported(self) -> Iterator[None]:
        """Within this context the adapter has the weights that the file would hold; afterwards its own, bit for bit."""
        own = self.weights_now()
        self.take(self.weights_to_export())
        try:
            yield
        finally:
            self.take(own)

    def checkpoint(self) -> Checkpoint:
        """The state after `step` steps.

        Raises:
            Diverged: a weight is no longer a number, so that a good checkpoint is never followed by a useless one.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise diverged(self.step)
        tensors, remembered = state_of(self.optimizer, self.named)
        average = dict(zip(self.names, self.average.values, strict=True)) if self.average is not None else {}
        state = {
            "base": self.base.identity,
            "scaler": self.scaler.state_dict(),
            "optimizer": remembered,
            "average_updates": self.average.updates if self.average else 0,
        }
        return Checkpoint(self.step, self.bank.state_dict_of(self.style), tensors, average, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint as if nothing had happened.

        Raises:
            RunError: it belongs to an adapter of another shape, to another base, or to another optimizer.
        """
        if checkpoint.state.get("base", self.base.identity) != self.base.identity:
            raise RunError(
                "The checkpoint was made on another base: the model behind its name has changed since. Bring the old "
                "one back (base.revision names a version on the hub), or start a new run."
            )
        own = self.bank.state_dict_of(self.style)
        if checkpoint.adapter.keys() != own.keys():
            raise RunError("The checkpoint was made with other targets; its settings have been changed since.")
        for name, tensor in own.items():
            if checkpoint.adapter[name].shape != tensor.shape:
                raise RunError(f"The checkpoint's {name} has another rank; its settings have been changed since.")
        restore_state(self.optimizer, self.named, checkpoint.optimizer, checkpoint.state.get("optimizer", {}))
        self.bank.load_state_of(self.style, checkpoint.adapter)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            for name, value in zip(self.names, self.average.values, strict=True):
                value.copy_(checkpoint.average[name])
            self.average.updates = int(checkpoint.state["average_updates"])
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step

    def choose(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Export these weights of an earlier step instead of what the training ended with."""
        own = self.bank.state_dict_of(self.style)
        self._chosen = step, {name: weights[name].to(value.device) for name, value in own.items()}

    @property
    def exported_step(self) -> int:
        """The step whose weights are exported."""
        return self.step if self._chosen is None else self._chosen[0]

    def _settled(self) -> dict[str, Tensor]:
        """The average of the weights when one is kept, else what the optimizer settled on, copied."""
        settled = self.weights_now()
        exported = self.entry.exported
        if self.average is not None:
            settled.update({name: value.clone() for name, value in zip(self.names, self.average.values, strict=True)})
        elif exported is not None:
            settled.update({name: exported(self.optimizer, parameter) for name, parameter in self.named})
        return settled

    @contextmanager
    def _failing_together(self) -> Iterator[list[BaseException]]:
        """Out of memory is raised here when alone; with others it is told to them first, as they wait for this one."""
        failed: list[BaseException] = []
        try:
            yield failed
        except (RuntimeError, MemoryError) as error:
            if self.alone or not is_out_of_memory(error):
                raise
            failed.append(error)

    def _agree(self, loss: Tensor, wish: Signal, failed: Sequence[BaseException]) -> tuple[Tensor, Signal]:
        """Average gradients and loss over the processes; all obey the main one and fail when one has failed."""
        count = self.accelerator.num_processes
        told = _SIGNALS.index(wish) if self.accelerator.is_main_process else 0
        numbers = (float(loss), float(told), float(bool(failed)))
        mean, wished, troubled = average_gradients(self.accelerator, self.parameters, numbers)
        if troubled:
            raise MemoryError(f"memory ran out in {round(troubled * count)} of {count} processes: out of memory")
        if not self.scaler.is_enabled() and not math.isfinite(mean):
            # Now, not with the next report: all must go back from the same step.
            raise diverged(self.step)
        return torch.tensor(mean), _SIGNALS[round(wished * count)]


class _Report:
    """Gathers losses on the device and says them in batches, so that the loop never waits for the device.

    What was not said yet is said when its block ends, also because memory ran out: those steps are not done again.
    """

    def __init__(self, trainer: Trainer, emit: Emit) -> None:
        self.trainer, self.emit = trainer, emit
        self.losses: list[Tensor] = []
        self.rate = 0.0
        self.steps = 0
        self.worked = 0.0
        self.since = self.said = time.monotonic()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or is_out_of_memory(error):
            self.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in here is not training, and is left out of its speed."""
        self.worked += time.monotonic() - self.since
        try:
            yield
        finally:
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
        if self.steps >= PACE_STEPS:
            trainer.pace = per_step
        images = trainer.batches.batch_size * trainer.batches.accumulation
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
            raise diverged(trainer.step)


def diverged(step: int, styles: Sequence[str] = ()) -> Diverged:
    """The error of a loss that is no longer a number, with the adapters whose loss it is where several learn."""
    whose = f" of {' and '.join(map(repr, styles))}" if styles else ""
    return Diverged(
        f"Training{whose} came apart before step {step}: the loss is no longer a number. "
        "Try again with a tenth of the learning rate, or with precision fp32.",
        styles,
    )
