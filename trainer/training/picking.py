"""At the end of a run: judge the kept checkpoints, and let the adapter have the weights that are picked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainer.atomic import replace_file, write_file
from trainer.bases.base import Base
from trainer.config import RunConfig
from trainer.data.captions import without_trigger
from trainer.data.dataset import Dataset, Example
from trainer.errors import RunError
from trainer.judging.judge import FINALISTS, LEAST_SUBJECTS, Judge, Questions, Reference, one_round, two_rounds
from trainer.judging.judgement import PICTURES, Judgement, conclude, from_json
from trainer.judging.pick import Candidate, finalists
from trainer.training import checkpoint as checkpoints
from trainer.training.fitting import PASSES_PER_SAMPLE
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared
from trainer.training.run_folder import RunFolder
from trainer.training.samples import unseen_prompts
from trainer.training.validation import Validation, held_out

MOST_CHECKPOINTS = 5
MOST_REFERENCES = 32
IMAGE_LEVELS = 3
"""Noise levels at which each training image is measured."""
IMAGE_SHARE = 0.2
"""Of the passes that judging may take, at most so much goes into that."""
CELL = 128
"""Side of a picture in a strip, pixels."""
Counted = Callable[[int, int], None]


def judge(
    trainer: Trainer,
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    prepared: Prepared,
    *,
    told: Counted = lambda done, total: None,
    anyway: bool = False,
) -> Judgement | None:
    """Judge the run's kept checkpoints and the state it ends with; write ``judgement.json`` and strips of pictures.

    The trainer stands where it stood afterwards.

    Args:
        told: how many checkpoints of how many are judged.
        anyway: also when it costs more than ``judging.share`` of the training.

    Returns:
        None when there is nothing to choose among: fewer than two training images or states, or too short a run.

    Raises:
        RunError: the result cannot be written.
    """
    began = time.monotonic()
    states = _states(trainer, folder)
    strengths = tuple(config.judging.strengths)
    shown = references_of(trainer.base, dataset, prepared, config)
    subjects = subjects_of(trainer.base, dataset, config)
    if len(states) < 2 or len(shown) < 2 or len(subjects) < 2:
        return None
    samples = trainer.step * trainer.batches.batch_size * trainer.batches.accumulation
    passes = int(config.judging.share * samples * PASSES_PER_SAMPLE)
    images = prepared.training[: len(shown)]
    each = Validation(trainer.base, images, prepared.features, seed=config.train.seed, levels=IMAGE_LEVELS)
    # A shorter run affords fewer states, and at last no second round.
    for asked_of, most in product((two_rounds, one_round), range(min(MOST_CHECKPOINTS, len(states)), 1, -1)):
        count = most * len(strengths)
        on_images = each.passes * (most + 1)
        if on_images > IMAGE_SHARE * passes and not anyway:
            on_images = 0
        left = passes - on_images
        asked = asked_of(subjects, config.trigger, candidates=count, images=len(shown), passes=left, anyway=anyway)
        if asked is not None:
            break
    else:
        return None
    states = _spread(states, most)
    questions, *more = asked
    parts = len(states) + len(more)
    told(0, parts)
    shutil.rmtree(folder.path / PICTURES, ignore_errors=True)
    own = trainer.weights_now()
    try:
        judging = Judge(trainer.base, trainer.bank, trainer.style, shown, questions)
        trainer.take(states[trainer.step])
        judging.suspect()
        plain = _strip(folder, "base", _pixels(judging, judging.plain))
        candidates: list[Candidate] = []
        strips: list[str] = []
        gains: dict[int, tuple[float, ...]] = {}
        for number, (step, weights) in enumerate(sorted(states.items())):
            trainer.take(weights)
            if on_images:
                gains[step] = each.measure(trainer).by_image
            for candidate, latents in judging.at(step, strengths):
                name = f"step-{step:06d}-{candidate.strength:g}"
                candidates.append(candidate)
                strips.append(_strip(folder, name, _pixels(judging, latents)))
            told(number + 1, parts)
        if more:
            candidates = _looked_at_again(judging, more[0], candidates, trainer, states)
            told(parts, parts)
    finally:
        trainer.take(own)
    judgement = conclude(
        list(zip(candidates, strips, strict=True)),
        [example.name for example in _trained_on(dataset, config)[: len(shown)]],
        prompts=questions.prompts,
        base_pictures=plain,
        gains=gains,
        seconds=time.monotonic() - began,
    )
    write(folder, judgement)
    return judgement


def _looked_at_again(
    judging: Judge,
    questions: Questions,
    candidates: Sequence[Candidate],
    trainer: Trainer,
    states: Mapping[int, Mapping[str, Tensor]],
) -> list[Candidate]:
    """The candidates, those that could still be the best with what more pictures of them tell."""
    judging.ask(questions)
    judging.suspects = []
    chosen = finalists(candidates, FINALISTS)
    seen: dict[tuple[int, float], Candidate] = {}
    for step in sorted({one.step for one in chosen}):
        trainer.take(states[step])
        for more, _ in judging.at(step, sorted(one.strength for one in chosen if one.step == step)):
            seen[more.step, more.strength] = more
    return [one.joined(seen[name]) if (name := (one.step, one.strength)) in seen else one for one in candidates]


def subjects_of(base: Base, dataset: Dataset, config: RunConfig) -> list[str]:
    """What pictures are asked for, without the trigger: the user's prompts, where they are enough, or subjects of the
    family that no caption names, which also fill up too few prompts.
    """
    plain = (without_trigger(prompt, config.trigger) for prompt in config.samples.prompts)
    own = list(dict.fromkeys(prompt for prompt in plain if prompt))
    if len(own) >= LEAST_SUBJECTS:
        return own
    return [*own, *(subject for subject in unseen_prompts(base.family.prompts, dataset, 12) if subject not in own)]


def references_of(base: Base, dataset: Dataset, prepared: Prepared, config: RunConfig) -> list[Reference]:
    """The training images that pictures are compared with."""
    pairs = zip(prepared.training, _trained_on(dataset, config), strict=True)
    return [
        Reference(base.scale_latents(image.mean[0].to(base.device)), example.content, example.caption)
        for image, example in list(pairs)[:MOST_REFERENCES]
    ]


def choose(trainer: Trainer, folder: RunFolder, step: int) -> None:
    """Let the file hold the weights of a kept checkpoint.

    Raises:
        RunError: there is no such checkpoint.
    """
    if step == trainer.exported_step:
        return
    saved = dict(folder.saved())
    weights = _state(trainer, saved[step]) if step in saved else None
    if weights is None:
        raise RunError(f"Step {step} is not kept any more; there are {', '.join(map(str, sorted(saved)))}.")
    trainer.choose(step, weights)


def keep(trainer: Trainer, folder: RunFolder, step: int, strength: float) -> Judgement:
    """Let the file hold a judged candidate that the user prefers, and note it in the judgement.

    Raises:
        RunError: the run was not judged, that candidate was not among the judged, or its state is not kept any more.
    """
    if not folder.judgement_file.is_file():
        raise RunError(f"{folder.path} was not judged yet: judge it first, then keep what you prefer.")
    judgement = from_json(folder.judgement_file.read_bytes())
    judgement.find(step, strength)
    choose(trainer, folder, step)
    ours = (step, strength) == (judgement.step, judgement.strength)
    kept = judgement.model_copy(
        update={"chosen_step": None if ours else step, "chosen_strength": None if ours else strength}
    )
    write(folder, kept)
    return kept


def write(folder: RunFolder, judgement: Judgement) -> None:
    """Write the judgement into the run's folder, whole or not at all."""
    try:
        write_file(folder.judgement_file, judgement.to_json().encode())
    except OSError as error:
        raise RunError(f"{folder.judgement_file} cannot be written: {error.strerror or error}.") from None


def _states(trainer: Trainer, folder: RunFolder) -> dict[int, Mapping[str, Tensor]]:
    """Weights by step as a file would hold them: kept checkpoints of the same run, and the end."""
    states: dict[int, Mapping[str, Tensor]] = {}
    for step, path in folder.saved():
        weights = _state(trainer, path) if step < trainer.step else None
        if weights is not None:
            states[step] = weights
    return {**states, trainer.step: trainer.weights_to_export()}


def _spread(states: Mapping[int, Mapping[str, Tensor]], most: int) -> dict[int, Mapping[str, Tensor]]:
    """At most so many of the states, from the first to the last, evenly chosen; ``most`` is two at least.

    Where they do not divide evenly the earlier ones are taken: with the rate falling, the last ones are most alike.
    """
    steps = sorted(states)
    count = min(most, len(steps))
    kept = {steps[index * (len(steps) - 1) // max(1, count - 1)] for index in range(count)}
    return {step: states[step] for step in sorted(kept)}


def _state(trainer: Trainer, path: Path) -> Mapping[str, Tensor] | None:
    """Weights of a checkpoint as a file would hold them; None when it is damaged or another adapter's."""
    try:
        found = checkpoints.read(path)
    except RunError:
        return None
    if found.adapter.keys() != trainer.bank.state_dict_of(trainer.style).keys():
        return None
    return trainer.exported_of(found)


def _trained_on(dataset: Dataset, config: RunConfig) -> list[Example]:
    """The training images, in the order of `Prepared.training`."""
    kept_out = set(held_out(len(dataset.examples), config.data.validation_share, config.train.seed))
    return [example for index, example in enumerate(dataset.examples) if index not in kept_out]


def _pixels(judging: Judge, latents: Tensor) -> Sequence[Image.Image]:
    base = judging.base
    with torch.no_grad(), base.decoding():
        return [Image.fromarray(base.decode(latent)[0].numpy()) for latent in latents.split(1)]


def _strip(folder: RunFolder, name: str, pictures: Sequence[Image.Image]) -> str:
    """Write pictures side by side as one PNG; returns its path relative to the run's folder."""
    strip = Image.new("RGB", (CELL * len(pictures), CELL), "white")
    for index, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        strip.paste(small, (index * CELL + (CELL - small.width) // 2, (CELL - small.height) // 2))
    path = Path(PICTURES) / f"{name}.png"
    (folder.path / PICTURES).mkdir(parents=True, exist_ok=True)
    replace_file(folder.path / path, lambda file: strip.save(file, "PNG", optimize=True))
    return path.as_posix()
