"""Names of layers in other tools' files."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from full_size import unet
from hypothesis import given
from hypothesis import strategies as st

from trainer.adapters.layers import adaptable
from trainer.styles.names import (
    flatten,
    from_original,
    installed_path,
    root_at_hand,
    text_path,
    to_original,
    unflatten,
)

ATTENTION = ["proj_in", "proj_out"]
TRANSFORMER = [f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0")] + [
    "ff.net.0.proj",
    "ff.net.2",
]
RESNET = ["in_layers.2", "emb_layers.1", "out_layers.3"]


def original_names(depths: list[int], middle: int, added: bool, wider: set[int]) -> Iterator[str]:
    """Every layer of the original UNet with two residual layers per block, as its code numbers them.

    Args:
        depths: transformer layers of each level, 0 for none.
        wider: levels with more channels than the one before.
    """
    levels = len(depths)
    yield from ("input_blocks.0.0", "time_embed.0", "time_embed.2", "out.2")
    if added:
        yield from ("label_emb.0.0", "label_emb.0.2")

    def block(place: str, depth: int, *, resnet: bool = True, skip: bool = False) -> Iterator[str]:
        if resnet:
            yield from (f"{place}.0.{name}" for name in RESNET)
            if skip:
                yield f"{place}.0.skip_connection"
        if depth:
            yield from (f"{place}.1.{name}" for name in ATTENTION)
            for i in range(depth):
                yield from (f"{place}.1.transformer_blocks.{i}.{name}" for name in TRANSFORMER)

    number = 1
    for level, depth in enumerate(depths):
        for layer in range(2):
            yield from block(f"input_blocks.{number}", depth, skip=layer == 0 and level in wider)
            number += 1
        if level < levels - 1:
            yield f"input_blocks.{number}.0.op"
            number += 1
    yield from (f"middle_block.{i}.{name}" for i in (0, 2) for name in RESNET)
    yield from (f"middle_block.1.{name}" for name in ATTENTION)
    for i in range(middle):
        yield from (f"middle_block.1.transformer_blocks.{i}.{name}" for name in TRANSFORMER)
    number = 0
    for level, depth in enumerate(reversed(depths)):
        for layer in range(3):
            yield from block(f"output_blocks.{number}", depth, skip=True)
            if layer == 2 and level < levels - 1:
                yield f"output_blocks.{number}.{2 if depth else 1}.conv"
            number += 1


def adaptable_layers(key: str) -> set[str]:
    return {path for path, module in unet(key).named_modules() if adaptable(module)}


@pytest.fixture(scope="module")
def sdxl_names() -> list[str]:
    return list(original_names([0, 2, 10], 10, added=True, wider={1, 2}))


def test_original_names_of_sdxl_are_a_bijection_onto_its_layers(sdxl_names: list[str]) -> None:
    mapped = [from_original(name) for name in sdxl_names]
    assert len(set(mapped)) == len(mapped)
    assert set(mapped) == adaptable_layers("sdxl")


def test_original_names_of_sd1_are_a_bijection_onto_its_layers() -> None:
    mapped = [from_original(name) for name in original_names([1, 1, 1, 0], 1, added=False, wider={1, 2})]
    assert len(set(mapped)) == len(mapped)
    assert set(mapped) == adaptable_layers("sd1")


def test_every_layer_of_sdxl_has_one_original_name_of_its_own(sdxl_names: list[str], sdxl_pipeline: Any) -> None:
    assert {to_original(path) for path in adaptable_layers("sdxl")} == set(sdxl_names)
    for layers in (
        adaptable_layers("sdxl"),
        {path for path, module in sdxl_pipeline.unet.named_modules() if adaptable(module)},
    ):
        names = {path: to_original(path) for path in layers}
        assert len(set(names.values())) == len(layers)
        assert all(name is not None and from_original(name) == path for path, name in names.items())


BLOCKS = st.integers(0, 9)
UNET_PLACES = st.one_of(
    st.builds("down_blocks.{}.downsamplers.0.conv".format, BLOCKS),
    st.builds("up_blocks.{}.upsamplers.0.conv".format, BLOCKS),
    st.builds(
        "{}.{}.{}.{}".format,
        st.sampled_from(["down_blocks", "up_blocks"]),
        BLOCKS,
        st.just("resnets"),
        st.sampled_from(["0.conv1", "1.conv2", "0.conv_shortcut", "1.time_emb_proj"]),
    ),
    st.builds(
        "{}.{}.attentions.{}.{}".format,
        st.sampled_from(["down_blocks", "up_blocks"]),
        BLOCKS,
        st.integers(0, 1),
        st.sampled_from(["proj_in", "transformer_blocks.7.attn2.to_out.0", "transformer_blocks.0.ff.net.0.proj"]),
    ),
    st.builds("mid_block.{}".format, st.sampled_from(["resnets.1.conv1", "attentions.0.proj_out"])),
    st.sampled_from(["conv_in", "conv_out", "time_embedding.linear_1", "add_embedding.linear_2"]),
)


@given(path=UNET_PLACES, layers=st.integers(2, 4))
def test_original_names_lead_back_whatever_the_shape_of_the_unet(path: str, layers: int) -> None:
    name = to_original(path, layers)
    assert name is not None
    assert from_original(name, layers) == path
    assert from_original(unflatten(flatten(name)), layers) == path


def test_original_names_mean_what_diffusers_says(sdxl_names: list[str]) -> None:
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    def file_of(names: list[str]) -> dict[str, torch.Tensor]:
        parts = ("lora_down.weight", "lora_up.weight")
        return {f"lora_unet_{flatten(n)}.{part}": torch.tensor(float(i)) for i, n in enumerate(names) for part in parts}

    # diffusers sorts out only names inside the blocks by number; those outside are in the other tests.
    names = [name for name in sdxl_names if from_original(name) not in {"conv_in", "conv_out"}]
    renamed = _maybe_map_sgm_blocks_to_diffusers(file_of(names), SimpleNamespace(layers_per_block=2))
    converted, _ = _convert_non_diffusers_lora_to_diffusers(renamed)
    theirs = {int(value): key for key, value in converted.items() if ".down." in key or "_lora.down" in key}
    for index, name in enumerate(names):
        key = theirs[index].removeprefix("unet.").replace(".processor", "")
        for old, new in (("to_out_lora", "to_out.0"), ("_lora", "")):
            key = key.replace(old, new)
        assert key.replace(".lora", "").removesuffix(".down.weight") == from_original(name)


def test_flattened_names_come_apart_without_a_model(sdxl_names: list[str]) -> None:
    layers = adaptable_layers("sdxl") | set(sdxl_names)
    layers |= {
        "text_model.encoder.layers.11.self_attn.q_proj",
        "text_model.encoder.layers.11.self_attn.out_proj",
        "text_model.encoder.layers.11.mlp.fc1",
        "text_projection",
    }
    for path in layers:
        assert unflatten(flatten(path)) == path


@pytest.mark.parametrize("name", ["middle_block.7.conv", "output_blocks.2.3.x", "input_blocks.1.2.x", "nowhere"])
def test_what_is_no_layer_of_the_original_has_no_name_here(name: str) -> None:
    assert from_original(name) is None


def test_text_encoders_are_found_whatever_their_modules_are_called() -> None:
    assert text_path("encoder.layers.0") == "text_model.encoder.layers.0"
    assert text_path("text_projection") == "text_projection"
    assert installed_path("text_model.encoder.a", {"encoder.a"}) == "encoder.a"
    assert installed_path("encoder.a", {"text_model.encoder.a"}) == "text_model.encoder.a"
    assert installed_path("encoder.b", {"encoder.a"}) is None
    assert root_at_hand("te", {"unet", "te1"}) == "te1"
    assert root_at_hand("te1", {"unet", "te"}) == "te"
    assert root_at_hand("te2", {"unet", "te"}) == "te2"
