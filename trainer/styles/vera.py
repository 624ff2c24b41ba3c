"""VeRA in PEFT's own form: a folder that ``PeftModel.from_pretrained`` opens, with two vectors a layer.

Shapes: r rank of the adapter, S shapes of its layers, R = S r.

PEFT has one A and one B for all layers; a layer takes A's first columns and B's first rows. Here layers of one shape
share theirs, so that A and B hold those of all shapes one below the other and side by side, filled up with zeros, and a
layer's d is zero but for its own. alpha / r, which PEFT's VeRA does not know, is in b.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainer import safetensors_file
from trainer.adapters.methods.vera import matrices_of
from trainer.adapters.methods.vera_shared import VeraShared
from trainer.adapters.weights import LayerWeights
from trainer.atomic import write_file
from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header, read_tensors
from trainer.styles.names import Places

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_MODEL = "base_model.model."
_SHARED_A, _SHARED_B = "base_model.vera_A", "base_model.vera_B"
_D, _B = ".vera_lambda_d", ".vera_lambda_b"


def write(folder: Path, state: Mapping[str, Tensor], rank: int, alpha: float) -> bool:
    """Write a VeRA adapter of one model for PEFT; whether it could be, as PEFT's VeRA has no convolutions.

    Args:
        folder: made when it is not there.
        state: as `Bank.state_dict_of` gives it.

    Raises:
        OSError: the disk refuses.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        path, _, part = key.rpartition(".")
        layers.setdefault(path, {})[part] = tensor.detach().cpu()
    if any(len(values["inputs"]) > 1 for values in layers.values()):
        return False
    sides = {path: (len(values["outputs"]), int(values["inputs"][0])) for path, values in layers.items()}
    shapes = sorted(set(sides.values()))
    whole = len(shapes) * rank
    shared_a = torch.zeros(whole, max(inputs for _, inputs in shapes))
    shared_b = torch.zeros(max(out for out, _ in shapes), whole)
    own = {shape: slice(place * rank, (place + 1) * rank) for place, shape in enumerate(shapes)}
    tensors: dict[str, Tensor] = {}
    for path, values in sorted(layers.items()):
        out, inputs = sides[path]
        rows = own[out, inputs]
        shared_a[rows, :inputs], shared_b[:out, rows] = matrices_of(values, rank)
        directions = torch.zeros(whole)
        directions[rows] = values["directions"]
        stem = f"{_MODEL}{path.split('.', 1)[1]}"
        tensors |= {f"{stem}{_D}": directions, f"{stem}{_B}": values["outputs"] * (alpha / rank)}
    folder.mkdir(parents=True, exist_ok=True)
    safetensors_file.write(
        folder / TENSORS_FILE, {**tensors, _SHARED_A: shared_a, _SHARED_B: shared_b}, {"format": "pt"}
    )
    config = {
        "peft_type": "VERA",
        "r": whole,
        "target_modules": sorted(path.split(".", 1)[1] for path in layers),
        "save_projection": True,
        "projection_prng_key": 0,
        "vera_dropout": 0.0,
        "d_initial": 0.1,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    write_file(folder / CONFIG_FILE, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    return True


def is_vera(header: Header) -> bool:
    """Whether a file is PEFT's VeRA with its matrices; without them they would be drawn anew wherever it is opened."""
    return _SHARED_A in header.entries and _SHARED_B in header.entries


def read(header: Header, places: Places) -> dict[str, LayerWeights]:
    """The layers of PEFT's VeRA, whose inputs only a base tells.

    Raises:
        AdapterFileError: it is damaged, or of another model than Stable Diffusion's.
    """
    path, shapes = header.path, header.shapes
    stems = [key.removesuffix(_D) for key in shapes if key.endswith(_D)]
    known = {_SHARED_A, _SHARED_B, *(f"{stem}{end}" for stem in stems for end in (_D, _B))}
    if odd := set(shapes) ^ known:
        raise AdapterFileError(f"{path} is broken: {min(odd)} has no counterpart, or is no part of VeRA.")
    a, b = shapes[_SHARED_A], shapes[_SHARED_B]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not stems:
        raise AdapterFileError(f"{path} is broken: vera_A is {a} and vera_B is {b}, which do not go together.")
    tensors = read_tensors(header, raises=AdapterFileError)
    shared_a, shared_b = tensors[_SHARED_A].float(), tensors[_SHARED_B].float()
    layers: dict[str, LayerWeights] = {}
    for stem in stems:
        where = places.find(stem)
        if where is None:
            raise AdapterFileError(f"{path} adapts {stem}, which is no layer of a Stable Diffusion model.")
        directions, outputs = tensors[f"{stem}{_D}"].float(), tensors[f"{stem}{_B}"].float()
        if directions.shape != a[:1] or outputs.dim() != 1 or not 0 < len(outputs) <= b[0]:
            raise AdapterFileError(
                f"{path} is broken: the vectors of {where} are {tuple(directions.shape)} and {tuple(outputs.shape)}, "
                f"which do not fit vera_A and vera_B of {a} and {b}."
            )
        # What a layer has no use for takes no room in it.
        used = directions.nonzero()[:, 0] if bool(directions.any()) else torch.arange(1)
        down = directions[used, None] * shared_a[used]
        up = outputs[:, None] * shared_b[: len(outputs)][:, used]
        layers[where] = LayerWeights(down, up, float(len(used)), VeraShared.name)
    return layers
