"""The file at the end of a run: written, read back, and proven before anybody says that the run is finished."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from trainer.adapters.bank import Bank
from trainer.adapters.methods import METHODS, method_of, told_by_layers
from trainer.adapters.weights import LayerWeights
from trainer.bases.base import Base
from trainer.bases.placement import PARTS, is_out_of_memory
from trainer.bases.sources import parse_source, public_name
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.errors import BaseError, ConfigError, RunError
from trainer.events import Emit, Phase
from trainer.styles import vera
from trainer.styles.consumers import foreseen, losses
from trainer.styles.consumers.proof import SAME
from trainer.styles.metadata import Provenance, bucket_info, build, checkpoint_hashes, tag_frequency, thumbnail_url
from trainer.styles.names import count_layers_per_block
from trainer.styles.read import read_style
from trainer.styles.verify import Tick, Verification, verify_export
from trainer.styles.write import write_style
from trainer.training.loop import Trainer
from trainer.training.room import tidy
from trainer.training.run_folder import RunFolder
from trainer.version import __version__


def foretold(config: RunConfig, base: Base, bank: Bank, style: str) -> tuple[str, ...]:
    """What other programs will lose of the file that a training is going to write, said before it begins.

    Raises:
        ConfigError: diffusers would not take all of it, so that the file could not be proved at the end.
    """
    spec = bank[style].spec
    method = METHODS[spec.method]
    if not told_by_layers(method, config.export.format):
        return (f"{method.readers}.",)
    layers = {path: tuple(bank.layers[path].weight.shape) for path in spec.targets}
    # Members of a family may read narrower text features than the published ones: distilled bases do.
    family = dataclasses.replace(base.family, text_width=None)
    found = foreseen(layers, family, config.export.format, dora=spec.method == "dora")
    unproved = [each for each in found if each.program == "diffusers" and each.state in ("part", "not")]
    if unproved:
        raise ConfigError(f"adapter.targets {config.adapter.targets!r} cannot be trained: {losses(unproved)[0]}")
    return losses(found)


def export(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    trained: Trainer,
    *,
    started_at: float,
    thumbnail: Image.Image | None,
    recovered: Sequence[str] = (),
    stopped: str = "",
    emit: Emit = lambda event: None,
    strength: float | None = None,
) -> Verification:
    """Write the adapter into the run's folder and verify it through diffusers; ``emit`` is told when that begins.

    The file appears under its name only when it is complete, but the run is finished only when the checks hold too.

    Args:
        strength: that is recommended, where one is.

    Raises:
        RunError: the file could not be written, or did not pass a check.
    """
    base, bank = trained.base, trained.bank
    weights = bank.weights_of(trained.style, trained.weights_to_export())
    facts = provenance(
        config,
        dataset,
        trained,
        started_at=started_at,
        thumbnail=thumbnail,
        recovered=recovered,
        stopped=stopped,
        strength=strength,
    )
    write_style(
        folder.adapter_file,
        weights,
        layout=config.export.format,
        metadata=build(facts),
        layers_per_block=count_layers_per_block(name for name, _ in base.denoiser.named_modules()),
    )
    emit(Phase(name="verifying"))

    small = _in_peft_form(folder, trained, weights)

    def verified() -> Verification:
        proof = verify_export(
            folder.adapter_file,
            base.pipeline,
            weights,
            prompt=config.trigger or "a picture",
            family=base.family,
        )
        return dataclasses.replace(proof, ticks=(*proof.ticks, *small))

    parts = PARTS if base.placement.parked else ()
    with bank.detached():
        try:
            # The pipeline wants all parts in one place.
            with base.placement.ready(*parts):
                return verified()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, which holds on to what took the memory.
        tidy(base.device)
        with base.placement.away(*parts):
            return verified()


def _in_peft_form(folder: RunFolder, trained: Trainer, weights: Mapping[str, LayerWeights]) -> tuple[Tick, ...]:
    """A VeRA adapter also as PEFT has it, in a folder beside the file, read back and compared with it."""
    spec = trained.bank[trained.style].spec
    if spec.method != "vera":
        return ()
    file = folder.peft_folder / vera.TENSORS_FILE
    try:
        if not vera.write(folder.peft_folder, trained.weights_to_export(), spec.rank, spec.alpha):
            return ()
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror or error}.") from None
    found = read_style(file).layers
    for path, layer in weights.items():
        read = method_of(found[path]).as_lora(found[path], trained.bank.layers[path].weight)
        ours, theirs = (each.scale * each.up.cpu() @ each.down.cpu() for each in (layer, read))
        if float((ours - theirs).norm()) > SAME * float(ours.norm()):
            raise RunError(f"{file} was written, but {path} does something else in it.")
    kilobytes = round(file.stat().st_size / 1000)
    told = f"the same update in {kilobytes} kB, for PeftModel.from_pretrained in {file.parent.name}/ beside the file"
    return (Tick("in PEFT's form", True, told),)


def provenance(
    config: RunConfig,
    dataset: Dataset,
    trained: Trainer,
    *,
    started_at: float,
    thumbnail: Image.Image | None = None,
    recovered: Sequence[str] = (),
    stopped: str = "",
    strength: float | None = None,
) -> Provenance:
    """Everything the file says about how it was made.

    Args:
        recovered: what the run had to change on its way.
        stopped: why it ended by itself before its last step.
        strength: that is recommended; it becomes the usage hint where the user wrote none.
    """
    base, spec = trained.base, trained.bank[trained.style].spec
    family = base.family
    side = config.data.resolution or base.resolution
    layers = trained.bank.weights_of(trained.style)
    return Provenance(
        name=config.name,
        family=family.key,
        version_name=family.version_names[base.prediction],
        architecture=family.architectures[base.prediction],
        version=__version__,
        v2=family.v2,
        original_names=family.original_names and config.export.format == "kohya",
        base_name=public_name(base.source),
        base_sha256=base.identity,
        base_hashes=_base_hashes(base.source),
        prediction=base.prediction,
        zero_terminal_snr=base.process.zero_terminal_snr,
        rank=spec.rank,
        alpha=next(iter(layers.values())).alpha,
        network={
            "method": spec.method,
            "targets": config.adapter.targets,
            "dropout": spec.dropout,
            "alpha_asked": config.adapter.alpha,
        },
        resolution=(side, side),
        images=len(trained.batches.images),
        steps=trained.exported_step,
        batch_size=trained.batches.batch_size * trained.batches.accumulation,
        learning_rate=trained.settings.peak_rate,
        seed=config.train.seed,
        clip_skip=base.clip_skip,
        started_at=started_at,
        finished_at=time.time(),
        tag_frequency=tag_frequency((example.caption for example in dataset.examples), config.name),
        bucket_info=bucket_info(example.bucket for example in dataset.examples),
        further=_further(config, trained),
        trigger=config.trigger,
        usage_hint=config.export.usage_hint or ("" if strength is None else f"Recommended strength {strength:g}."),
        recommended_strength=strength,
        author=config.export.author,
        license=config.export.license,
        thumbnail="" if thumbnail is None else thumbnail_url(thumbnail),
        description=" ".join([*recovered, stopped]).strip(),
        config={
            **_shareable(config),
            **({"recovery": list(recovered)} if recovered else {}),
            **({"stopped": stopped} if stopped else {}),
        },
    )


def _further(config: RunConfig, trained: Trainer) -> dict[str, object]:
    """kohya's keys for settings that mean the same there; docs/files.md says which have no counterpart, and why."""
    optim, batches = config.optim, trained.batches
    images, seen = len(batches.images), trained.exported_step * batches.batch_size * batches.accumulation
    half = trained.base.dtype != torch.float32
    return {
        "batch_size_per_device": batches.batch_size,
        "cache_latents": True,
        "caption_dropout_rate": config.data.caption_dropout,
        "caption_tag_dropout_rate": config.data.tag_dropout,
        "enable_bucket": config.data.buckets,
        "epoch": math.ceil(seen / images),
        "flip_aug": config.data.flip,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_checkpointing": bool(config.memory.checkpoint_levels),
        "keep_tokens": config.data.keep_tags,
        "lr_scheduler": optim.schedule,
        "lr_warmup_steps": optim.warmup_steps,
        "max_grad_norm": optim.max_grad_norm,
        "min_snr_gamma": optim.min_snr_gamma or "None",
        "masked_loss": any(image.mask is not None for image in batches.images),
        "noise_offset": config.train.noise_offset or "None",
        "mixed_precision": {torch.float16: "fp16", torch.bfloat16: "bf16"}[trained.base.dtype] if half else "no",
        "network_dropout": config.adapter.dropout or "None",
        "num_batches_per_epoch": math.ceil(images / batches.batch_size),
        "num_reg_images": 0,
        "optimizer": optim.optimizer,
        "shuffle_caption": config.data.shuffle_tags,
    }


def _base_hashes(source: str) -> tuple[str, str]:
    """Of a base in a single file; a folder and a hub id have none that other tools look models up by."""
    try:
        found = parse_source(source)
        return checkpoint_hashes(found.path) if found.kind == "file" and found.path is not None else ("", "")
    except (BaseError, OSError):
        # It was moved or unplugged since it was opened; the file is whole without.
        return "", ""


def _shareable(config: RunConfig) -> dict[str, object]:
    """The settings without where images and base lie on the maker's disk."""
    settings = config.model_dump(exclude_none=True)
    settings["data"].pop("images", None)
    settings["base"]["source"] = public_name(config.base.source)
    settings["base"].pop("config_folder", None)
    return settings
