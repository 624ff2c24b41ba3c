"""Embedding files of textual inversion: whole vectors for words, (K, D) for each text encoder.

One text encoder has ``emb_params``, which A1111, Forge, ComfyUI and diffusers read as the only tensor of a file; SDXL's
two have ``clip_l`` and ``clip_g``. Which words they stand for is no matter of theirs, because the file's name calls
them; here it is the trigger, whose tokens are in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.safetensors_file import Header, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "textual-inversion"
LAYOUT = "embedding"
KEY = "patina.words"
"""Metadata key: ids of the tokens that each text encoder's vectors stand for, as JSON by root."""
TENSORS: Mapping[str, str] = {"te": "emb_params", "te1": "clip_l", "te2": "clip_g"}
_PLACE = "text_model.embeddings.token_embedding"
_MOST_TOKENS = 1000


def holds_words(weights: Mapping[str, LayerWeights]) -> bool:
    """Whether an adapter is written as an embedding file."""
    return bool(weights) and all(layer.method == METHOD for layer in weights.values())


def tensors_of(weights: Mapping[str, LayerWeights]) -> dict[str, Tensor]:
    """The tensors of an embedding file."""
    return {TENSORS[path.split(".", 1)[0]]: layer.down.detach() for path, layer in sorted(weights.items())}


def metadata_of(weights: Mapping[str, LayerWeights], metadata: Mapping[str, str]) -> dict[str, str]:
    """The header's strings: those given without what they say of a LoRA, and the tokens."""
    said = {key: value for key, value in metadata.items() if not key.startswith("ss_network_")}
    if "modelspec.architecture" in said:
        said["modelspec.architecture"] = said["modelspec.architecture"].replace("/lora", "/textual-inversion")
    tokens = {path.split(".", 1)[0]: [int(each) for each in layer.up[0].tolist()] for path, layer in weights.items()}
    return {**said, KEY: json.dumps(tokens, sort_keys=True)}


def is_embedding(header: Header) -> bool:
    """Whether a file is an embedding, whoever made it."""
    return set(header.entries) in ({"emb_params"}, {"clip_l", "clip_g"})


def read(header: Header) -> dict[str, LayerWeights]:
    """The layers of an embedding file.

    Raises:
        AdapterFileError: it does not say which tokens it stands for, as those of other programs, or is damaged.
    """
    import torch

    path = header.path
    if KEY not in header.metadata:
        raise AdapterFileError(
            f"{path} is a textual inversion, not a LoRA, and does not say which words it stands for: Patina opens "
            "those that it trained itself."
        )
    tokens = _tokens(header.metadata[KEY])
    tensors = read_tensors(header, raises=AdapterFileError)
    layers: dict[str, LayerWeights] = {}
    for root, name in TENSORS.items():
        if name not in tensors:
            continue
        vectors, ids = tensors[name], tokens.get(root)
        if ids is None or vectors.dim() != 2 or len(vectors) != len(ids):
            raise AdapterFileError(
                f"{path} is broken: its {name} is {tuple(vectors.shape)}, which are not the vectors of the "
                f"{len(ids or ())} tokens that it names."
            )
        layers[f"{root}.{_PLACE}"] = LayerWeights(vectors, torch.tensor([ids]).float(), float(len(ids)), METHOD)
    return layers


def _tokens(text: str) -> dict[str, list[int]]:
    """What the metadata say, without what cannot be."""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found = said.items() if isinstance(said, dict) else ()
    return {str(root): ids for root, ids in found if isinstance(ids, list) and _are_tokens(ids)}


def _are_tokens(ids: list[Any]) -> bool:
    return 0 < len(ids) <= _MOST_TOKENS and all(type(each) is int and 0 <= each < 1 << 24 for each in ids)
