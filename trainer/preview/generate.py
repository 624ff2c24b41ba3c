"""Drawing pictures with a base and its bank: rows that differ by strength, adapter or prompt share one batch.

Shapes: B rows of a batch, C latent channels, h x w latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.bases.base import Base, SizeFacts, TextFeatures
from trainer.bases.compiling import as_written
from trainer.bases.placement import is_out_of_memory
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.errors import ConfigError, DoesNotFit
from trainer.preview.begin import begin_image, shape_like
from trainer.preview.order import PreviewRow, PreviewSettings

OnStep = Callable[[int, int], bool]
"""Called with (steps done, steps in all) after each denoising step; returning False cancels."""


class Cancelled(Exception):
    """The caller's ``on_step`` asked to stop; nothing was drawn."""


@dataclass(frozen=True)
class Canvas:
    """Settings with nothing left to choose: sides in pixels, guidance scale, denoising steps.

    Attributes:
        image, change: as of `PreviewSettings`.
    """

    width: int
    height: int
    guidance: float
    steps: int
    scheduler: Scheduler
    image: str = ""
    change: float = 1.0

    @property
    def skipped(self) -> int:
        """Steps that are left out because an image takes their place; at least one is done."""
        return self.steps - max(1, int(self.steps * self.change)) if self.image else 0

    @classmethod
    def of(cls, base: Base, settings: PreviewSettings) -> Canvas:
        """Fill in what suits the base.

        Raises:
            ConfigError: a side is no multiple of what the base's levels need, or the image is not there.
        """
        own = (base.resolution, base.resolution)
        if settings.image and not (settings.width and settings.height):
            own = shape_like(begin_image(settings.image).size, base.resolution, base.side_multiple)
        width, height = settings.width or own[0], settings.height or own[1]
        for name, side in (("width", width), ("height", height)):
            if side % base.side_multiple:
                raise ConfigError(
                    f"{name} is {side}, but should be a multiple of {base.side_multiple} pixels for this base, "
                    f"such as {max(1, round(side / base.side_multiple)) * base.side_multiple}."
                )
        guidance = base.family.guidance if settings.guidance is None else settings.guidance
        return cls(width, height, guidance, settings.steps, settings.scheduler, settings.image, settings.change)


def cut_short(base: Base, prompts: Iterable[str]) -> list[str]:
    """A sentence for each prompt whose end the base does not read."""
    return [
        f"The last {count} tokens of a prompt are not read, as the base reads {base.token_limit} in {base.windows} "
        f"windows: {prompt[:60]} ..."
        for prompt in dict.fromkeys(prompts)
        if (count := base.unread(prompt))
    ]


def generate(
    base: Base,
    bank: Bank,
    rows: Sequence[PreviewRow],
    settings: PreviewSettings,
    *,
    max_batch: int | None = None,
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """Draw one picture a row; arguments and errors as for `draw_latents`."""
    latents = draw_latents(base, bank, rows, settings, max_batch=max_batch, on_step=on_step)
    pictures = []
    with torch.no_grad(), base.decoding():
        for row, latent in zip(rows, latents, strict=True):
            with _told_of_memory(Canvas.of(base, row.settings or settings)):
                pictures.append(Image.fromarray(base.decode(latent.unsqueeze(0))[0].numpy()))
    return pictures


def draw_latents(
    base: Base,
    bank: Bank,
    rows: Sequence[PreviewRow],
    settings: PreviewSettings,
    *,
    max_batch: int | None = None,
    on_step: OnStep | None = None,
) -> list[Tensor]:
    """Draw one picture a row and leave it undecoded, (C, h, w); ``rows[i].strengths`` are in the bank's order.

    Each row's noise comes from its own generator with the row's seed, so rows with one seed differ by strength alone.
    Gates, training mode and random state are as before afterwards, so a training in progress goes on bit-identically.

    Args:
        settings: of the rows that have none of their own.
        max_batch: most rows in one forward pass; None lets `rows_that_fit` decide.
        on_step: told of progress; may cancel.

    Raises:
        Cancelled: ``on_step`` returned False.
        ConfigError: a size or the number of strengths does not fit.
        DoesNotFit: the pictures need more memory than there is.
    """
    count = len(bank.names)
    for row in rows:
        if len(row.strengths) not in (0, count):
            raise ConfigError(f"A row names {len(row.strengths)} strengths, but {count} adapters are loaded.")
    parts = list(_parts(base, rows, settings, max_batch))
    total = sum(canvas.steps - canvas.skipped for canvas, _ in parts)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_step is not None and not on_step(done, total):
            raise Cancelled

    drawn: dict[int, Tensor] = {}
    with as_before(base, bank), torch.no_grad(), bank.packed():
        for canvas, part in parts:
            with _told_of_memory(canvas):
                latents = denoise(base, bank, [rows[index] for index in part], canvas, advance)
            drawn.update(zip(part, latents.unbind(), strict=True))
    return [drawn[index] for index in range(len(rows))]


def _parts(
    base: Base, rows: Sequence[PreviewRow], settings: PreviewSettings, max_batch: int | None
) -> Iterator[tuple[Canvas, list[int]]]:
    """Rows by index that go through the denoiser together: those with the same settings, as many as fit."""
    alike: dict[Canvas, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(Canvas.of(base, row.settings or settings), []).append(index)
    for canvas, indices in alike.items():
        limit = max_batch or rows_that_fit(base, canvas)
        for start in range(0, len(indices), limit):
            yield canvas, indices[start : start + limit]


@contextmanager
def _told_of_memory(canvas: Canvas) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(
            f"Memory ran out while drawing at {canvas.width} x {canvas.height} pixels: choose a smaller size or fewer "
            "pictures at once, or close other programs."
        ) from None


def denoise(base: Base, bank: Bank, rows: Sequence[PreviewRow], canvas: Canvas, advance: Callable[[], None]) -> Tensor:
    """Latents (B, C, h, w) of a batch of rows, by the base's scheduler with classifier-free guidance."""
    strengths = torch.zeros(len(rows), len(bank.names))
    for index, row in enumerate(rows):
        if row.strengths:
            strengths[index] = torch.tensor(row.strengths)
    guided = canvas.guidance > 1
    bank.set_strengths(strengths)
    positive = base.encode_prompts([row.prompt for row in rows])
    sizes = [SizeFacts.whole(canvas.width, canvas.height)] * len(rows)
    features = positive
    if guided:
        negative = base.encode_negatives([row.negative for row in rows])
        features = TextFeatures.cat([negative, positive])
        sizes = sizes * 2
        bank.set_strengths(torch.cat([strengths, strengths]))
    conditioning = base.conditioning(features.to(base.device, base.dtype), sizes)

    generators = [torch.Generator().manual_seed(row.seed) for row in rows]
    shape = (base.latent_channels, canvas.height // base.vae_factor, canvas.width // base.vae_factor)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    scheduler = base.process.sampler(canvas.scheduler, canvas.steps)
    extra = {"generator": generators} if SCHEDULERS[canvas.scheduler].draws_noise else {}
    if canvas.image:
        latents = _begun(base, scheduler, noise.to(base.device), canvas)
    else:
        latents = noise.to(base.device) * scheduler.init_noise_sigma
    with base.placement.ready("denoiser"):
        for timestep in scheduler.timesteps[canvas.skipped :]:
            scaled = scheduler.scale_model_input(latents, timestep)
            seen = torch.cat([scaled, scaled]) if guided else scaled
            predicted = base.predict(seen, timestep, conditioning)
            if guided:
                predicted = guided_prediction(predicted, canvas.guidance, base.guidance_rescale)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False, **extra)[0]
            advance()
    return latents


def _begun(base: Base, scheduler: Any, noise: Tensor, canvas: Canvas) -> Tensor:
    """Latents (B, C, h, w) of the canvas's image, as noisy as the first step needs it (SDEdit, Meng et al. 2021).

    Args:
        noise: (B, C, h, w), one for each row.
    """
    picture = ImageOps.fit(begin_image(canvas.image), (canvas.width, canvas.height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1
    mean, _ = base.encode_images(pixels)
    latents = base.scale_latents(mean).to(noise).expand_as(noise)
    first = scheduler.timesteps[canvas.skipped : canvas.skipped + 1].repeat(len(noise))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(canvas.skipped)
    # Of schedulers for rectified flow the same is called otherwise.
    if hasattr(scheduler, "add_noise"):
        begun: Tensor = scheduler.add_noise(latents, noise, first)
    else:
        begun = scheduler.scale_noise(latents, first, noise)
    return begun


def guided_prediction(predicted: Tensor, guidance: float, rescale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022), brought back to the prompted prediction's spread.

    Args:
        predicted: (2 B, C, h, w), without the prompt first.
        guidance: how far to go from there towards the prediction with the prompt, and beyond.
        rescale: share of the result whose spread is corrected (phi of Lin et al., arXiv 2305.08891, section 3.4).

    Returns:
        (B, C, h, w).
    """
    without, with_prompt = predicted.chunk(2)
    guided = without + guidance * (with_prompt - without)
    if not rescale:
        return guided
    own = tuple(range(1, guided.dim()))
    corrected = guided * (with_prompt.std(dim=own, keepdim=True) / guided.std(dim=own, keepdim=True))
    return rescale * corrected + (1 - rescale) * guided


def rows_that_fit(base: Base, canvas: Canvas) -> int:
    """How many rows go into one forward pass: on a GPU by free memory, on a CPU by what still gains speed."""
    if base.careful:
        return 1
    pixels = canvas.width * canvas.height
    if base.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(base.device)
        return max(1, min(32, int(free * 0.7 / (pixels * 6_000))))
    return max(1, min(8, (8 * 256 * 256) // pixels))


@contextmanager
def as_before(base: Base, bank: Bank) -> Iterator[None]:
    """Put gates, the denoiser's training mode and the global random state back when the block ends, however it ends."""
    training = base.denoiser.training
    devices = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), bank.strengths_held(), as_written(base.denoiser):
        base.denoiser.eval()
        try:
            yield
        finally:
            base.denoiser.train(training)
