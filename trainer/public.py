"""What other programs call, with as few words as that takes; `trainer` offers it by name.

The parts behind it take more: `trainer.training.run` a control that can pause, `trainer.bases.open` a limit on memory,
`trainer.preview.generate` rows that differ in everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from trainer.config import BaseConfig, Precision, RunConfig, parse, sentence
from trainer.errors import ConfigError
from trainer.events import Event
from trainer.preview.order import PreviewRow, PreviewSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.adapters.bank import Bank
    from trainer.bases.base import Base


def train(
    config: RunConfig | Mapping[str, Any], folder: Path | str, *, on_event: Callable[[Event], None] | None = None
) -> Path:
    """Train a style and return its file, which was read back and checked in diffusers.

    A folder that holds a run already is gone on with, from its last checkpoint and with its own settings; so the same
    call again finishes what was interrupted, and gives the same bytes as if nothing had been.

    Args:
        config: the settings, or a nested mapping of them, such as ``{"data": {"images": "my images"}}``. What is left
            out is chosen to suit the base and the number of images.
        folder: where the run lives: settings, checkpoints, sample pictures and the style's file.
        on_event: told of everything as it happens (`trainer.events`), on the calling thread.

    Returns:
        The ``.safetensors`` file, in the layout that ``config.export.format`` names.

    Raises:
        PatinaError: something the user can mend; the folder keeps what was learned.

    Source: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (arXiv 2106.09685).
    """
    from trainer.study.finding import train as train_run
    from trainer.training.pausing import Uncontrolled
    from trainer.training.run import create
    from trainer.training.run_folder import RunFolder

    path = Path(folder).expanduser().absolute()
    run = RunFolder(path)
    if not run.exists():
        run = create(config if isinstance(config, RunConfig) else parse(config), path)
    outcome = train_run(run, emit=on_event or _unheard, control=Uncontrolled())
    assert outcome.adapter is not None, "nothing pauses a run that is not controlled"
    return outcome.adapter


def load_base(
    source: str = "bundled",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    quantize: Literal["off", "nf4", "int8"] = "off",
    offline: bool = False,
) -> Base:
    """Load a Stable Diffusion model, frozen.

    Args:
        source: ``"bundled"``, a Hugging Face id, a folder in diffusers' layout, or a ``.safetensors`` checkpoint.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"`` for what suits the device.
        quantize: ``"nf4"`` or ``"int8"`` keeps its weights in 4 or 8 bits; needs the package bitsandbytes.
        offline: never go to the network.

    Returns:
        The base: ``base.roots`` are its models for a `Bank`, ``base.resolution`` is its side in pixels.

    Raises:
        BaseError: the source is unknown, incomplete, or no base that a style can be trained on.
        DeviceError: the device is not there.
    """
    from trainer.bases.open import load_base as load
    from trainer.hardware import pick_device, pick_dtype

    place = pick_device(device)
    config = BaseConfig(source=source, quantize=quantize)
    return load(config, device=place, dtype=pick_dtype(place, precision), offline=offline)


def generate(
    base: Base,
    bank: Bank,
    prompts: str | Sequence[str],
    *,
    strengths: Sequence[float | Sequence[float]] = (1.0,),
    negative: str = "",
    seed: int = 0,
    **settings: Any,
) -> list[Image]:
    """Draw pictures: for each prompt one at each strength, all from the same noise.

    Args:
        bank: on ``base.roots``; its adapters are used together.
        prompts: what the pictures should show; one or several.
        strengths: 0 is the base and 1 the style as it was trained; one number for all adapters, or one for each in
            the order of ``bank.names``.
        negative: what the pictures should not show.
        seed: of the start noise, 0 to 2**32 - 1.
        settings: of `trainer.preview.order.PreviewSettings`: ``steps`` (of denoising), ``guidance``, ``scheduler``,
            ``width`` and ``height`` in pixels; what is left out suits the base.

    Returns:
        RGB pictures, prompt by prompt.

    Raises:
        ConfigError: a setting is unknown or out of range, or the strengths are not as many as the adapters.
        DoesNotFit: the pictures need more memory than there is.
    """
    from trainer.preview.generate import generate as draw

    count = len(bank.names)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    unknown = sorted(settings.keys() - PreviewSettings.model_fields.keys())
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]}; there are {', '.join(PreviewSettings.model_fields)}.")
    try:
        rows = [
            PreviewRow(prompt=text, negative=negative, seed=seed, strengths=_for_each(strength, count))
            for text in texts
            for strength in strengths
        ]
        chosen = PreviewSettings(**settings)
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
    return draw(base, bank, rows, chosen)


def _for_each(strength: float | Sequence[float], adapters: int) -> tuple[float, ...]:
    if isinstance(strength, int | float):
        return (float(strength),) * adapters
    if len(strength) != adapters:
        raise ConfigError(f"{len(strength)} strengths were given, but the bank holds {adapters} adapters.")
    return tuple(strength)


def _unheard(event: Event) -> None:
    """Where nobody listens; the run folder's events.jsonl has them all."""
