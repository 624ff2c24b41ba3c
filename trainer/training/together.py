"""Several adapters trained in shared passes of one base, each as if it were alone: for studies, races and side by side.

Rows of a batch open one adapter each (the bank's strengths, one-hot), so the frozen base's work is shared and no
gradient passes from one adapter to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.randomness import stable_seed
from trainer.training.batches import Batch, join
from trainer.training.loop import Trainer, diverged
from trainer.training.processes import average_gradients
from trainer.training.texts import learns_words


def train_together(
    trainers: Sequence[Trainer],
    *,
    go_on: Callable[[], bool] = lambda: True,
    after_step: Callable[[Trainer, float], None] = lambda trainer, loss: None,
) -> None:
    """Train several adapters of one bank in shared passes: each image opens only its own adapter, all share the base.

    Every trainer keeps its own batches, optimizer, clipping, loss scale, rate and step count, so each adapter becomes
    what it would have become alone (up to the rounding of larger batches; adapter dropout draws other numbers). Images
    of one shape go through the base together, as many as the trainers' ``images_per_pass`` add up to. Who has done
    its steps leaves.

    Args:
        trainers: on one base and bank, each with an adapter of its own.
        go_on: asked before each step; with False all stand at a whole step, and another call goes on from there.
        after_step: told of each trainer's step once it is done, with the step's loss.

    Raises:
        Diverged: a loss is no longer a number; nobody has made that step.
    """
    bank = trainers[0].bank
    trainers[0].base.denoiser.train(any(trainer.settings.dropout > 0 for trainer in trainers))
    with bank.strengths_held():
        while (active := [t for t in trainers if t.step < t.settings.steps]) and go_on():
            losses = _accumulate_together(bank, active)
            if not active[0].alone:
                parameters = [parameter for trainer in active for parameter in trainer.parameters]
                losses = average_gradients(active[0].accelerator, parameters, losses)
            lost = [t.style for t, loss in zip(active, losses, strict=True) if not math.isfinite(loss)]
            # Weights that are no numbers make none of the others' losses either: infinity times a gate of 0 is none.
            lost = [t.style for t in active if lost and not _finite(t)] or lost
            if lost and not active[0].scaler.is_enabled():
                for trainer in active:
                    trainer.optimizer.zero_grad(set_to_none=True)
                raise diverged(active[0].step, lost)
            for trainer, loss in zip(active, losses, strict=True):
                trainer.update(trainer.rate_at(trainer.step))
                trainer.step += 1
                after_step(trainer, loss)


def _accumulate_together(bank: Bank, trainers: Sequence[Trainer]) -> list[float]:
    """All passes of one step of every trainer, those of one shape as one; returns each trainer's loss."""
    losses: dict[str, list[Tensor]] = {trainer.style: [] for trainer in trainers}
    for turn in range(max(len(trainer.passes) for trainer in trainers)):
        drawn = [(t, _drawn(bank, t, turn)) for t in trainers if turn < len(t.passes)]
        drawn.sort(key=_shape)
        for _, group in groupby(drawn, key=_shape):
            members = list(group)
            rows = [len(batch.timesteps) for _, batch in members]
            opens = torch.tensor([bank.names.index(t.style) for t, _ in members]).repeat_interleave(torch.tensor(rows))
            bank.set_strengths(torch.nn.functional.one_hot(opens, len(bank.names)).float())
            first = members[0][0]
            if any(trainer.settings.dropout for trainer, _ in members):
                torch.manual_seed(stable_seed(first.settings.seed, "dropout", first.step, turn))
            errors = first.base.errors(
                *join(first.base, [batch for _, batch in members]).inputs, huber=_huber(members)
            ).split(rows)
            total = torch.zeros((), device=errors[0].device)
            for (trainer, batch), own in zip(members, errors, strict=True):
                loss = trainer.weighed(own, batch.timesteps)
                losses[trainer.style].append(loss.detach())
                total = total + trainer.scaler.scale(trainer.share(loss))
            total.backward()
    return torch.stack([torch.stack(found).mean() for found in losses.values()]).tolist()


def _drawn(bank: Bank, trainer: Trainer, turn: int) -> Batch:
    """A trainer's batch; texts that its adapter changes are encoded with that adapter alone."""
    if learns_words(bank, trainer.style):
        bank.set_strengths({trainer.style: 1.0})
    return trainer.batches.draw(trainer.step, trainer.passes[turn])


def _huber(members: Sequence[tuple[Trainer, Batch]]) -> float | Tensor:
    """Of each row, by the trainer that it is for."""
    bends = [trainer.settings.huber for trainer, batch in members for _ in batch.timesteps]
    return torch.tensor(bends, device=members[0][0].base.device) if any(bends) else 0.0


def _finite(trainer: Trainer) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in trainer.parameters)


def _shape(drawn: tuple[Trainer, Batch]) -> tuple[int, ...]:
    return tuple(drawn[1].latents.shape[1:])
