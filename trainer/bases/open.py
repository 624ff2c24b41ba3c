"""Opening a base from whatever a user named: the bundled one, a hub id, a diffusers folder or a single file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.bases.base import Base
from trainer.bases.detect import read_json
from trainer.bases.families import BUNDLED, Family
from trainer.bases.families.family import Prediction
from trainer.bases.folder import read_bundled, read_folder
from trainer.bases.hub import fetch
from trainer.bases.lean import make_lean
from trainer.bases.mapped import in_pieces, own_tensors
from trainer.bases.parts import Parts, weights_identity
from trainer.bases.placement import PARTS
from trainer.bases.probe import probe_prediction, probe_schedule
from trainer.bases.quantised import check_installed, is_quantised, quantise, weight_bytes
from trainer.bases.quiet import quiet_libraries
from trainer.bases.single_file import CONFIGS, read_single_file
from trainer.bases.sources import Source, parse_source
from trainer.config import BaseConfig
from trainer.errors import BaseError

Report = Callable[[str], None]
MIB = 2**20


def load_base(
    config: BaseConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    offline: bool = False,
    memory_limit: int | None = None,
    report: Report | None = None,
) -> Base:
    """Load the base that a config names, frozen and in evaluation mode.

    Args:
        device, dtype: where the modules go, and the number format of denoiser and text encoders; the VAE stays in fp32
            unless it is known to stay finite in half precision.
        offline: never go to the network.
        memory_limit: most bytes of the device to use; None is what is free. If the base and its work do not fit
            together, its parts stay in main memory and come to the device one after the other.
        report: told in a sentence what takes long (a download).

    Raises:
        BaseError: the source is unknown, incomplete, or no base that a style can be trained on.
        ConfigError: it is to be quantised, and the package for it is not installed.
    """
    source = parse_source(config.source)
    check_installed(config.quantize)
    with quiet_libraries():
        parts = _read(source, config, offline, report)
        return _assembled(parts, config, device, dtype, memory_limit)


def _read(source: Source, config: BaseConfig, offline: bool, report: Report | None) -> Parts:
    if source.kind == "bundled":
        return read_bundled()
    if source.kind == "hub":
        fetched = fetch(source.repo, revision=config.revision, variant=config.variant, offline=offline, report=report)
        parts = read_folder(fetched.folder, variant=config.variant)
        parts.notes.extend(fetched.notes)
        return parts
    if source.path is None:
        raise BaseError(f"The base {config.source!r} names no file or folder.")
    if source.kind == "folder":
        return read_folder(source.path, variant=config.variant)
    return read_single_file(source.path, Path(config.config_folder).expanduser() if config.config_folder else None)


def _assembled(
    parts: Parts, config: BaseConfig, device: torch.device, dtype: torch.dtype, memory_limit: int | None
) -> Base:
    family = parts.detected.family
    opened = family.opened_class()
    stated = parts.detected.prediction if config.prediction == "auto" else config.prediction
    scheduler = dict(parts.scheduler)
    if config.zero_terminal_snr is not None:
        scheduler["rescale_betas_zero_snr"] = config.zero_terminal_snr
    # Where nothing is stated, any answer serves until the base itself is asked.
    process = opened.process_of(scheduler, stated or "v_prediction", device)
    if config.clip_skip and not family.clip_skip:
        raise BaseError(
            f"base.clip_skip is {config.clip_skip}, but {family.title} always leaves out the last layer of its text "
            "encoders, and the tools that open its styles know no other way: set base.clip_skip to 0."
        )
    layers = min((int(each.config.num_hidden_layers) for each in parts.text_encoders.values()), default=1)
    if config.clip_skip and config.clip_skip >= layers:
        raise BaseError(
            f"base.clip_skip is {config.clip_skip}, but the text encoder of {config.source} has {layers} layers: leave "
            f"out {layers - 1} at most."
        )
    # Hashing lets go of the interpreter, and SDXL has five gigabytes to hash.
    with ThreadPoolExecutor(max_workers=4) as pool:
        identity, vae_identity, *text_identities = pool.map(weights_identity, parts.modules)
    notes = list(parts.notes)
    if config.quantize != "off":
        whole = sum(p.numel() for p in parts.denoiser.parameters()) * dtype.itemsize
        quantise(parts.denoiser, config.quantize, device=device, dtype=dtype)
        held = weight_bytes(parts.denoiser)
        notes.append(
            f"The {family.root}'s weights are kept in {config.quantize} and take {held / MIB:,.0f} MiB instead of "
            f"{whole / MIB:,.0f}."
        )
    make_lean(parts.denoiser)
    vae_dtype = dtype if vae_stays_finite(parts.vae, family) and device.type == "cuda" else torch.float32
    roomy = device.type == "cpu" or _fits_whole(parts, device, dtype, vae_dtype, memory_limit)
    place = device if roomy else torch.device("cpu")
    base: Base = opened(
        family=family,
        source=config.source,
        denoiser=_for_convolutions(_settled(parts.denoiser, place, dtype), device),
        vae=_for_convolutions(_settled(parts.vae, place, vae_dtype), device),
        text_encoders={root: _settled(encoder, place, dtype) for root, encoder in parts.text_encoders.items()},
        tokenizers=parts.tokenizers,
        process=process,
        resolution=parts.side,
        identity=identity,
        vae_identity=vae_identity,
        text_identity="".join(identity[:32] for identity in text_identities),
        device=device,
        dtype=dtype,
        clip_skip=config.clip_skip,
        zero_empty_negative=parts.zero_empty_negative,
        notes=notes,
    )
    if not roomy:
        base.placement.park(PARTS)
    if family is BUNDLED:
        return base
    found = probe_prediction(base)
    if stated is None:
        base.process = opened.process_of(scheduler, found.prediction, device)
        base.notes.append(found.note)
        if not config.config_folder:
            base.resolution = _shipped_side(family, found.prediction) * base.vae_factor
    elif doubt := found.doubt(stated):
        base.warnings.append(doubt)
        return base
    schedule = probe_schedule(base)
    if schedule is not None and (doubt := schedule.doubt(base.process.zero_terminal_snr)):
        base.warnings.append(doubt)
    return base


def _fits_whole(
    parts: Parts, device: torch.device, dtype: torch.dtype, vae_dtype: torch.dtype, memory_limit: int | None
) -> bool:
    """Whether all parts can lie on the device while the VAE encodes a picture of the native side."""
    quantised = is_quantised(parts.denoiser)
    cast = [*parts.text_encoders.values(), *(() if quantised else (parts.denoiser,))]
    weights = sum(p.numel() for module in cast for p in module.parameters()) * dtype.itemsize
    weights += weight_bytes(parts.denoiser) if quantised else 0
    vae = sum(p.numel() for p in parts.vae.parameters())
    side = parts.side
    # The widest level holds a few full-size maps at once: its channels, six of them.
    working = 6 * side * side * int(parts.vae.config.block_out_channels[0])
    needed = weights + (vae + working) * vae_dtype.itemsize
    room = memory_limit
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        room = min(free, room) if room else free
    return room is None or needed <= room


def vae_stays_finite(vae: Any, family: Family) -> bool:
    """Whether a VAE may compute in half precision: its own configuration or the family's record says so.

    SDXL's first VAE overflows fp16 and then draws black; fixed ones carry ``force_upcast: false``.
    """
    return family.vae_half or not bool(vae.config.get("force_upcast", True))


def _shipped_side(family: Family, prediction: Prediction) -> int:
    """Native side in latent cells of a single file that was opened before its prediction type was known."""
    config = read_json(CONFIGS / family.configs[prediction] / family.root / "config.json")
    return int(config["sample_size"])


def _settled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The module frozen, in place, and free of its files."""
    module.requires_grad_(False).eval()

    # A copy in any case: weights read from safetensors are views into the file. Replacing it under a running training
    # would crash it, and their odd alignment changes the last bits of results between two files with the same content.
    def settled(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)

    for part in in_pieces(module.modules(), own_tensors):
        part._apply(settled, recurse=False)
    return module


def _for_convolutions(module: nn.Module, device: torch.device) -> nn.Module:
    """Weights in the order in which a card's convolutions read them; on two CPU cores it was 5 to 10% slower."""
    if device.type == "cuda":
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
