"""The methods that turn noise into a picture: one row each, for settings, previews, pictures' metadata and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal


@dataclass(frozen=True)
class SchedulerRow:
    """One method.

    Attributes:
        title: as A1111 and the tools after it call it, for people and in a picture's metadata.
        class_name: of diffusers' class.
        options: what that class is told beside the base's own configuration.
        draws_noise: whether its steps take generators: one for each picture.
        needs_signal: why it cannot draw where the noise schedule ends in pure noise (zero terminal SNR); empty if it
            can.
    """

    title: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    draws_noise: bool = False
    needs_signal: str = ""


SCHEDULERS: Mapping[str, SchedulerRow] = {
    "ddim": SchedulerRow("DDIM", "DDIMScheduler", draws_noise=True),
    "euler": SchedulerRow("Euler", "EulerDiscreteScheduler"),
    "euler_a": SchedulerRow("Euler a", "EulerAncestralDiscreteScheduler", draws_noise=True),
    "dpm++_2m": SchedulerRow("DPM++ 2M", "DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpm++_2m_karras": SchedulerRow(
        "DPM++ 2M Karras",
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True},
        needs_signal="spends most of its steps on noise alone",
    ),
    "unipc": SchedulerRow("UniPC", "UniPCMultistepScheduler"),
    "pndm": SchedulerRow(
        "PLMS", "PNDMScheduler", {"skip_prk_steps": True}, needs_signal="divides by what is left of the picture"
    ),
}

if TYPE_CHECKING:
    Scheduler = str
else:
    Scheduler = Literal[*SCHEDULERS]


def able(*, zero_terminal_snr: bool) -> tuple[Scheduler, ...]:
    """The methods that can draw on a noise schedule, which ends in pure noise or does not."""
    return tuple(key for key, row in SCHEDULERS.items() if not (zero_terminal_snr and row.needs_signal))
