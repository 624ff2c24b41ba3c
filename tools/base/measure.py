"""Measure a base: what its autoencoder keeps, whether captions matter, whether subjects are recognised, and its speed.

    python -m tools.base.measure --base FOLDER --data DATA --judge JUDGE --out measurements.json

JUDGE is what `tools.base.classifier` has written; without it recognition is left out. Numbers for the card come
from CUDA where there is one; seconds per image are always those of two CPU cores, and mean something only
when nothing else runs there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.base import colours, dataset, model_folder
from tools.base.classifier import Judge
from tools.base.dataset import IconData
from tools.base.device import best_device, to_images, to_pixels
from tools.base.diffusion import alphas_cumprod, errors, tokenize
from tools.base.model_folder import Model
from tools.base.subjects import COLOUR_PROMPTS, COMMON_SUBJECTS
from tools.base.text_to_image import encode

CORES = 2
"""Of the timing: what people are promised it for."""
GUIDANCE = 3.0
COLOUR_SEEDS = 4
STEPS = 20
TIMESTEPS = 8
"""Timesteps of the fixed-noise loss, in the middles of equal parts of the schedule."""


@torch.no_grad()
def psnr(model: Model, data: IconData, *, batch: int = 32) -> float:
    """Peak signal-to-noise ratio of the autoencoder's reconstructions in dB, the mean over images.

    Images are compared as 8-bit pictures; the latent is the posterior's mean.
    """
    ratios: list[float] = []
    for start in range(0, len(data.images), batch):
        images = data.images[start : start + batch]
        latents = model.vae.encode(to_pixels(images, model.device)).latent_dist.mean
        error = to_images(model.vae.decode(latents).sample).astype(np.float64) - images
        mean_square = np.square(error).mean(axis=(1, 2, 3))
        ratios.extend(10 * np.log10(255.0**2 / np.maximum(mean_square, 1e-3)))
    return float(np.mean(ratios))


@torch.no_grad()
def caption_losses(model: Model, data: IconData, *, batch: int = 32) -> tuple[float, float]:
    """Mean squared error of the UNet's answer with the right caption and with another icon's.

    Noise and timesteps are the same for both and for every base with latents of this shape. The wrong caption
    is that of the icon half the list away, or of the next one after it that shows something else.
    """
    latents = encode(model, data)
    count = len(data.entries)
    alphas = alphas_cumprod(model.scheduler).to(model.device)
    right = tokenize(model.tokenizer, [entry.captions[0] for entry in data.entries]).to(model.device)
    wrong = right[torch.tensor([_other(data, index) for index in range(count)])]
    noise_source = torch.Generator().manual_seed(0)
    spacing = len(alphas) // TIMESTEPS
    sums = [0.0, 0.0]
    for timestep in range(spacing // 2, len(alphas), spacing):
        noise = torch.randn(latents.shape, generator=noise_source)
        for start in range(0, count, batch):
            rows = slice(start, min(start + batch, count))
            t = torch.full((rows.stop - rows.start,), timestep, device=model.device)
            for which, tokens in enumerate((right, wrong)):
                found = errors(
                    model.unet,
                    model.text_encoder,
                    latents[rows],
                    tokens[rows],
                    noise[rows].to(model.device),
                    t,
                    alphas,
                    model.prediction,
                )
                sums[which] += float(found.sum())
    return sums[0] / (count * TIMESTEPS), sums[1] / (count * TIMESTEPS)


def _other(data: IconData, index: int) -> int:
    count = len(data.entries)
    for offset in range(count // 2, count // 2 + count):
        candidate = (index + offset) % count
        if data.entries[candidate].subject != data.entries[index].subject:
            return candidate
    raise ValueError("all icons show the same subject: there is no wrong caption")


def pipeline_of(model: Model) -> Any:
    """The model's parts as diffusers' ``StableDiffusionPipeline`` with its own DDIM scheduler."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    pipeline = StableDiffusionPipeline(
        vae=model.vae.eval(),
        text_encoder=model.text_encoder.eval(),
        tokenizer=model.tokenizer,
        unet=model.unet.eval(),
        scheduler=DDIMScheduler(**model.scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    model: Model, prompts: Sequence[str], *, seed: int = 0, steps: int = STEPS, batch: int = 16
) -> NDArray[np.uint8]:
    """One image for each prompt at guidance 3: (N, H, W, 3), uint8. Image i starts from noise ``seed + i``."""
    pipeline = pipeline_of(model)
    images = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        generators = [torch.Generator().manual_seed(seed + start + offset) for offset in range(len(part))]
        drawn = pipeline(
            part, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators, output_type="np"
        ).images
        images.append((np.asarray(drawn) * 255).round().clip(0, 255).astype(np.uint8))
    return np.concatenate(images)


def recognised(model: Model, judge: Judge, subjects: Sequence[str], *, seed: int = 0) -> dict[str, int]:
    """Which of the judge's first five guesses (1 to 5) names each subject for an image of it; 0 where none does."""
    guesses = judge.guesses(generate(model, subjects, seed=seed), first=5)
    return {
        subject: named.index(subject) + 1 if subject in named else 0
        for subject, named in zip(subjects, guesses, strict=True)
    }


def colours_named(model: Model, prompts: Sequence[str], *, seeds: int = COLOUR_SEEDS) -> dict[str, int]:
    """In how many of ``seeds`` pictures of each prompt most coloured pixels have the colour that it names.

    Raises:
        ValueError: a prompt names no colour of `tools.base.colours.HUES`.
    """
    asked = [next((word for word in prompt.split() if word in colours.HUES), None) for prompt in prompts]
    if None in asked:
        raise ValueError(f"{prompts[asked.index(None)]!r} names no colour; known are {', '.join(colours.HUES)}")
    images = generate(model, [prompt for prompt in prompts for _ in range(seeds)])
    came = [colours.dominant(image) == asked[index // seeds] for index, image in enumerate(images)]
    return {prompt: sum(came[i * seeds : (i + 1) * seeds]) for i, prompt in enumerate(prompts)}


def seconds_per_image(model: Model, *, repeats: int = 3) -> float:
    """Seconds of one image on `CORES` CPU cores, 20 steps with guidance, alone in its batch; the fastest of some."""
    model.to(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(CORES)
    try:
        generate(model, ["red apple"], steps=2)
        took = []
        for seed in range(repeats):
            began = time.perf_counter()
            generate(model, ["red apple"], seed=seed)
            took.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(took)


def measure(model: Model, data: IconData, judge: Judge | None, *, timed: bool = True) -> dict[str, Any]:
    """All measurements of a base, by the names the model card uses; the seconds only if ``timed``.

    The model ends on the CPU if it is timed.
    """
    held_out = data.select("held-out")
    right, wrong = caption_losses(model, held_out)
    results: dict[str, Any] = {
        "psnr_held_out_db": round(psnr(model, held_out), 2),
        "right_caption_loss": round(right, 5),
        "wrong_caption_loss": round(wrong, 5),
        "wrong_above_right_percent": round(100 * (wrong / right - 1), 2),
    }
    by_colour = colours_named(model, COLOUR_PROMPTS)
    results["colour_as_named_percent"] = round(100 * sum(by_colour.values()) / (COLOUR_SEEDS * len(by_colour)), 1)
    results["colour_missed"] = [
        f"{prompt} ({came}/{COLOUR_SEEDS})" for prompt, came in by_colour.items() if came < COLOUR_SEEDS
    ]
    if judge is not None:
        named = recognised(model, judge, COMMON_SUBJECTS)
        results["recognised_of_100"] = sum(place > 0 for place in named.values())
        results["recognised_at_once_of_100"] = sum(place == 1 for place in named.values())
        results["not_recognised"] = [subject for subject, place in named.items() if not place]
        results["judge_held_out_accuracy"] = judge.held_out_accuracy
        results["judge_classes"] = len(judge.classes)
    if timed:
        results["seconds_per_image"] = round(seconds_per_image(model), 3)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base")
    parser.add_argument("--data", type=Path, required=True, help="folder that tools.base.dataset has built")
    parser.add_argument("--judge", type=Path, help="folder that tools.base.classifier has written")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--untimed", action="store_true", help="leave out the seconds: something else runs here")
    chosen = parser.parse_args(arguments)
    judge = Judge.load(chosen.judge) if chosen.judge else None
    results = measure(
        model_folder.load(chosen.base).to(best_device()), dataset.load(chosen.data), judge, timed=not chosen.untimed
    )
    text = json.dumps(results, indent=2)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
