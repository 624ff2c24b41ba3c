"""The processes that train one run together, through accelerate; alone in most runs, where none of this costs anything.

Every process holds the base and the adapter, takes its own passes of each step, and averages the adapter's gradients
with the others once a step. Nothing wraps the model: an adapter is a few megabytes, so one message a step is cheaper
than hooks in every layer, and it works where several adapters learn in one pass and where levels are checkpointed.
Only the main process writes, draws and reports.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, check_cuda_p2p_ib_support
from torch import Tensor
from torch.nn import Parameter

from trainer.errors import DeviceError
from trainer.hardware import pick_device

T = TypeVar("T")
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: the main one may draw pictures or measure meanwhile."""


def open_accelerator(device: str = "cpu") -> Accelerator:
    """The processes as the launcher made them: ``accelerate launch`` or ``torchrun`` for several, else this one alone.

    Args:
        device: ``train.device``; several processes each take a card of their own, or share the CPU.

    Raises:
        DeviceError: several processes cannot work together on this kind of device.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    kind = pick_device(device.partition(":")[0]).type if started > 1 else "cpu"
    if kind == "cuda" and not check_cuda_p2p_ib_support():
        # Some cards cannot talk to each other directly, and accelerate refuses them until it is told that we know.
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
        os.environ.setdefault("NCCL_IB_DISABLE", "1")
    accelerator = Accelerator(
        # Alone, the base's device is chosen by name, so accelerate need not look for one.
        cpu=kind == "cpu",
        # The frozen base holds its own number format and is never autocast.
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)] if started > 1 else None,
    )
    if accelerator.num_processes != started:
        raise DeviceError(f"{started} processes were started, but they cannot share a training on {kind}: use one.")
    return accelerator


def require_cards(count: int, device: str = "auto", name: str = "train.gpus") -> None:
    """Check that so many cards are there for the processes of a run; on ``device`` ``cpu`` they share the processor.

    Args:
        name: what the user wrote.

    Raises:
        DeviceError: there are fewer.
    """
    there = torch.cuda.device_count() if count > 1 and device != "cpu" else count
    if count > there:
        raise DeviceError(f"{name} is {count}, but PyTorch finds {there or 'no'} card{'s' * (there != 1)} here.")


def own_passes(accelerator: Accelerator, total: int) -> range:
    """Which of a step's ``total`` passes this process computes; the slots of all draws stay where they are.

    Raises:
        ValueError: they cannot be shared equally.
    """
    each, left = divmod(total, accelerator.num_processes)
    if left:
        raise ValueError(f"{total} passes cannot be shared among {accelerator.num_processes} processes")
    return range(accelerator.process_index * each, (accelerator.process_index + 1) * each)


def average_gradients(
    accelerator: Accelerator, parameters: Sequence[Parameter], numbers: Sequence[float]
) -> list[float]:
    """Give every process the mean of all gradients, and of ``numbers``, in one message.

    Returns:
        The mean of each number; reading it waits for the device.
    """
    owners = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in owners]
    device = owners[0].device
    message = torch.cat([*(g.flatten() for g in gradients), torch.tensor(numbers, dtype=torch.float32, device=device)])
    mean: Tensor = accelerator.reduce(message, reduction="mean")
    sizes = [p.numel() for p in owners]
    *parts, said = mean.split([*sizes, len(numbers)])
    for parameter, part in zip(owners, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return said.tolist()


def from_main(accelerator: Accelerator, value: T | None) -> T:
    """What the main process holds as ``value``, in every process."""
    if accelerator.num_processes == 1:
        return value  # type: ignore[return-value]
    box: list[Any] = [value]
    broadcast_object_list(box)
    return box[0]
