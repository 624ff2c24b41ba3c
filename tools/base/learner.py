"""What both trainings share: a time-boxed schedule, an average of the weights, checkpoints and a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STATE = "state.pt"
LOG = "log.jsonl"
LOG_EVERY = {"cuda": 50, "cpu": 20}
"""Steps between two looks at the loss and the clock, by type of device."""


def learning_rate(progress: float, *, peak: float, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Linear warm-up, then a cosine down to ``floor * peak``. ``progress``: the share of the time that has passed."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.01)
    turned = min((progress - warmup) / (1 - warmup), 1.0)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * turned)))


class Average:
    """Exponential moving average of parameters, fp32.

    It starts as a plain mean of few steps and lengthens to ``decay``, so that a short training ends with a
    usable average too.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.shadow = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters as they are after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, self.parameters, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and average: before and after using the model at its average."""
        for shadow, parameter in zip(self.shadow, self.parameters, strict=True):
            kept = parameter.clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)


@dataclass
class Learner:
    """The state of one training, in a folder: resumable, and aware of how much of its time has gone."""

    folder: Path
    modules: dict[str, nn.Module]
    """Trained modules by name."""
    total_seconds: float
    """Of all stretches together; the schedule is spread over it."""
    peak: float
    decay: float
    seed: int
    batch: int
    weight_decay: float = 0.01
    step: int = 0
    seconds: float = 0.0
    """Trained so far."""
    average: Average = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        parameters = [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]
        self.device = parameters[0].device
        # On CUDA the rate is a tensor there: a compiled or captured step reads it without asking the host.
        rate: float | Tensor = torch.tensor(self.peak, device=self.device) if self.device.type == "cuda" else self.peak
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)
        self.average = Average(parameters, self.decay)

    @property
    def progress(self) -> float:
        """Share of the planned time that has been trained, 0 to 1."""
        return min(self.seconds / self.total_seconds, 1.0)

    def resume(self) -> bool:
        """Take up the folder's checkpoint, if it has one."""
        path = self.folder / STATE
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for shadow, stored in zip(self.average.shadow, state["average"], strict=True):
            shadow.copy_(stored)
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def generator(self) -> torch.Generator:
        """Randomness for the coming stretch; it differs from that of earlier stretches."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + self.step)

    def apply(self, loss: Tensor) -> None:
        """One step along the gradient of ``loss``, clipped to norm 1."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.average.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)

    def set_rate(self) -> None:
        """Set the learning rate for the time that has passed."""
        rate = learning_rate(self.progress, peak=self.peak)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def save(self) -> None:
        """Write the checkpoint; a reader sees the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{STATE}.partial"
        torch.save(
            {
                "modules": {name: module.state_dict() for name, module in self.modules.items()},
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.shadow,
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(self.folder / STATE)

    def log(self, **values: Any) -> None:
        """Append one line to the folder's log and print it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "samples": self.step * self.batch, "seconds": round(self.seconds, 1), **values}
        text = json.dumps(line)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        print(text, flush=True)


def run(
    learner: Learner,
    step: Callable[[torch.Generator], Tensor],
    *,
    stretch_seconds: float,
    save_seconds: float,
    on_save: Callable[[], None],
) -> None:
    """Train until the stretch or the planned time ends, whichever comes first.

    ``step(generator)`` returns the loss of one batch, a tensor. The clock and the loss are read every
    `LOG_EVERY` steps only: between, the host never waits for the device. ``on_save()`` runs after each
    checkpoint, every ``save_seconds`` and at the end.

    Raises:
        RuntimeError: the loss is no longer a number.
    """
    generator = learner.generator()
    log_every = LOG_EVERY[learner.device.type]
    began, before = time.monotonic(), learner.seconds
    saved = began
    summed = torch.zeros((), device=learner.device)
    while learner.progress < 1.0 and learner.seconds - before < stretch_seconds:
        learner.set_rate()
        for _ in range(log_every):
            loss = step(generator)
            learner.apply(loss)
            summed += loss.detach()
        value = summed.item() / log_every
        summed.zero_()
        if not math.isfinite(value):
            raise RuntimeError(f"the loss became {value} at step {learner.step}; resume with a lower --rate")
        now = time.monotonic()
        learner.seconds = before + now - began
        rate = (learner.step * learner.batch) / max(learner.seconds, 1e-9)
        learner.log(loss=round(value, 5), samples_per_second=round(rate, 1))
        if now - saved > save_seconds:
            learner.save()
            on_save()
            saved = time.monotonic()
    learner.save()
    on_save()
