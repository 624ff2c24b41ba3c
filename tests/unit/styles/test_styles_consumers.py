"""What other programs do with a file: known before a training, proved after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from full_size import unet
from safetensors.torch import save_file
from torch import nn

from trainer.adapters.layers import adaptable
from trainer.adapters.targets import OF_SDXL, TARGETS, select
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import BUNDLED, FAMILIES, SD1, SD2, SDXL, Family
from trainer.styles.consumers import Opening, foreseen, losses, openings, opens_in
from trainer.styles.consumers.programs import PROGRAMS, web_ui_family
from trainer.styles.consumers.proof import SAME, difference, prove
from trainer.styles.consumers.tensors import FileTensors
from trainer.styles.inspect import inspect_file
from trainer.styles.names import kohya_stem, to_original
from trainer.styles.read import read_style
from trainer.styles.write import Layout, write_style

ALL = [program.title for program in PROGRAMS]


@pytest.fixture(scope="module")
def unets() -> dict[str, nn.Module]:
    """The UNets of the three families in full size, without their weights."""
    return {family.key: unet(family.key) for family in (SD1, SD2, SDXL)}


def layers_of(model: nn.Module, targets: str) -> dict[str, tuple[int, ...]]:
    modules = dict(model.named_modules())
    return {f"unet.{path}": tuple(modules[path].weight.shape) for path in select(model, targets)}  # type: ignore[arg-type]


def by_program(found: Iterable[Opening]) -> dict[str, Opening]:
    return {each.program: each for each in found}


def states(found: Iterable[Opening]) -> dict[str, str]:
    return {each.program: each.state for each in found}


def test_every_named_target_opens_whole_in_every_program_but_where_the_base_cannot_be_told(
    unets: dict[str, nn.Module],
) -> None:
    for family in (SD1, SD2, SDXL):
        for targets in TARGETS if family is SDXL else [name for name in TARGETS if name not in OF_SDXL]:
            found = foreseen(layers_of(unets[family.key], targets), family, "kohya")
            alone = {"InvokeAI"} if targets == "self" and family is not SDXL else set()
            assert {program for program, state in states(found).items() if state != "whole"} == alone, (family, targets)
    found = foreseen(layers_of(unets["sd1"], "self"), SD1, "kohya")
    (sentence,) = losses(found)
    assert sentence.startswith("InvokeAI does not open it: a style's base is told by attn2.to_k")
    assert sentence.endswith("as 'attention' does.")
    assert "InvokeAI" not in opens_in(found)
    assert opens_in(found).startswith("Opens in A1111, Forge, ComfyUI, ")


def test_who_skips_what_lies_outside_the_blocks_is_said_with_how_many_of_how_many(unets: dict[str, nn.Module]) -> None:
    everything = ".*"
    for family, outside in ((SD1, 4), (SD2, 4), (SDXL, 6)):
        layers = layers_of(unets[family.key], everything)
        found = by_program(foreseen(layers, family, "kohya"))
        lost = {program: len(each.left_out) for program, each in found.items() if each.left_out}
        # Under the original code's names stable-diffusion.cpp finds conv_in and conv_out.
        in_cpp = 4 if family is SDXL else outside
        assert lost == {"sd-scripts": outside, "sd-scripts' merging": outside, "stable-diffusion.cpp": in_cpp}
        assert found["diffusers"].layers == len(layers)
    said = losses(foreseen(layers, SDXL, "kohya"))
    assert any("sd-scripts and sd-scripts' merging leave out 6 of 794 layers (conv_in" in each for each in said)
    assert all("leave them out of adapter.targets" in each for each in said)


def test_diffusers_layout_is_for_diffusers_and_the_others_say_what_to_do(unets: dict[str, nn.Module]) -> None:
    found = by_program(foreseen(layers_of(unets["sd1"], "all-linear"), SD1, "diffusers"))
    assert {program for program, each in found.items() if each.state == "whole"} == {
        "diffusers",
        "stable-diffusion.cpp",
    }
    comfy = found["ComfyUI"]
    assert (comfy.state, len(comfy.taken), comfy.layers) == ("part", 32, 160), "the feed-forward layers alone"
    assert found["Forge"].state == found["InvokeAI"].state == found["A1111"].state == found["sd-scripts"].state == "not"
    assert all("choose kohya's layout" in each.way_out for each in found.values() if each.why)
    cross = by_program(foreseen(layers_of(unets["sd1"], "cross"), SD1, "diffusers"))
    assert cross["ComfyUI"].state == "not"


def test_the_small_base_opens_in_diffusers_and_here(unets: dict[str, nn.Module]) -> None:
    found = foreseen(layers_of(unets["sd1"], "cross"), BUNDLED, "kohya")
    assert opens_in(found) == "Opens in diffusers and Patina only."
    (sentence,) = losses(found)
    assert sentence.startswith("Other programs know no base of this kind; to use the style in A1111, ComfyUI")
    assert sentence.endswith("train on Stable Diffusion 1, 2 or XL.")


def test_shapes_tell_a_style_of_another_base_whatever_its_names_say(unets: dict[str, nn.Module]) -> None:
    layers = layers_of(unets["sd1"], "cross")
    found = by_program(foreseen(layers, SD2, "kohya"))
    assert len(found["ComfyUI"].left_out) == 32, "every key and value reads texts of another width"
    assert found["diffusers"].state == "whole", "on the base that it was made for, whatever that is"


def test_dora_says_for_each_program_what_it_does_with_the_lengths(unets: dict[str, nn.Module]) -> None:
    layers = layers_of(unets["sd1"], "cross")
    kohya = foreseen(layers, SD1, "kohya", dora=True)
    assert opens_in(kohya) == "Opens in Patina only."
    assert any(
        each.startswith("A1111 and InvokeAI open it, but DoRA's lengths are taken for those of columns")
        for each in losses(kohya)
    )
    assert opens_in(foreseen(layers, SD1, "diffusers", dora=True)) == "Opens in diffusers and Patina only."


def test_lengths_of_columns_are_read_by_the_web_uis_and_left_out_by_others() -> None:
    path = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    shapes = {
        f"{kohya_stem(path)}.{part}": shape
        for part, shape in {"lora_down.weight": (4, 768), "lora_up.weight": (640, 4), "dora_scale": (1, 768)}.items()
    }
    found = openings(FileTensors.of(shapes), [path], SD1)
    assert opens_in(found) == "Opens in A1111, Forge, ComfyUI, SwarmUI and InvokeAI."
    (sentence,) = losses(found)
    assert "diffusers" in sentence
    assert "DoRA's lengths are left out" in sentence


@pytest.mark.parametrize(
    ("targets", "family", "opens"),
    [
        (r".*\.time_emb_proj", SD1, False),
        (r".*\.(time_emb_proj|attn2\.to_k)", SD1, True),
        (r".*\.attn1\.to_q", SDXL, True),
        (r".*blocks\.1\..*\.attn1\.to_q", SDXL, False),
    ],
)
def test_invokeai_tells_the_base_by_what_it_finds_first(
    unets: dict[str, nn.Module], targets: str, family: Family, opens: bool
) -> None:
    """A width of 1280 that belongs to the time embedding is SDXL's to it; deep transformers are SDXL's, too."""
    found = by_program(foreseen(layers_of(unets[family.key], targets), family, "kohya"))
    assert (found["InvokeAI"].state == "whole") == opens


def test_names_of_diffusers_in_a_file_for_sdxl_lose_layers_in_the_programs_that_know_only_the_originals(
    unets: dict[str, nn.Module],
) -> None:
    """What Patina wrote before, and what other trainers still write."""
    layers = layers_of(unets["sdxl"], ".*")
    shapes = {}
    for path, shape in layers.items():
        shapes[f"{kohya_stem(path)}.lora_down.weight"] = (1, *shape[1:])
        shapes[f"{kohya_stem(path)}.lora_up.weight"] = (shape[0], 1, *(1,) * (len(shape) - 2))
    found = by_program(openings(FileTensors.of(shapes), layers, SDXL))
    assert len(found["A1111"].left_out) == 3, "one upsampler and the added embedding"
    assert len(found["diffusers"].left_out) == 2
    assert not found["sd-scripts' merging"].taken
    assert found["ComfyUI"].state == found["InvokeAI"].state == "whole"


def test_the_web_ui_changes_the_attention_of_openclip_only_as_a_whole() -> None:
    place = "te2.text_model.encoder.layers.3.self_attn"
    three = {f"{place}.{part}_proj": (8, 8) for part in ("q", "k", "v")}
    one = {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (640, 2048)}
    found = by_program(foreseen(one | three, SDXL, "kohya"))
    assert set(found["A1111"].left_out) == set(three)
    assert found["stable-diffusion.cpp"].state == found["ComfyUI"].state == "whole"
    found = by_program(foreseen(one | three | {f"{place}.out_proj": (8, 8)}, SDXL, "kohya"))
    assert found["A1111"].state == "whole"


def test_diffusers_own_loader_takes_what_the_rules_say_of_it(unets: dict[str, nn.Module]) -> None:
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )
    from diffusers.utils import convert_unet_state_dict_to_peft

    for family in (SD1, SD2, SDXL):
        layers = layers_of(unets[family.key], ".*")
        for original in {False, family.original_names}:
            stems = {path: kohya_stem(path, original=original) for path in layers}
            parts = ("lora_down.weight", "lora_up.weight")
            state = {f"{stem}.{part}": torch.zeros(1, 1) for stem in stems.values() for part in parts}
            state = _maybe_map_sgm_blocks_to_diffusers(state, SimpleNamespace(layers_per_block=2))
            converted, _ = _convert_non_diffusers_lora_to_diffusers(state)
            inner = convert_unet_state_dict_to_peft({key.removeprefix("unet."): w for key, w in converted.items()})
            theirs = {f"unet.{key.removesuffix('.lora_A.weight')}" for key in inner if "lora_A" in key}
            diffusers = next(program for program in PROGRAMS if program.title == "diffusers")
            ours = {path for path, stem in stems.items() if stem in diffusers.names(path, family)}
            assert theirs & set(layers) == ours


def test_a1111_lists_our_files_among_those_of_their_base() -> None:
    for family, metadata in (
        (SD1, {"ss_base_model_version": "sd_v1", "ss_v2": str(SD1.v2)}),
        (SD2, {"ss_base_model_version": "sd_v2", "ss_v2": str(SD2.v2)}),
        (SDXL, {"ss_base_model_version": SDXL.version_names["epsilon"], "ss_v2": str(SDXL.v2)}),
    ):
        assert web_ui_family(metadata) is family
    assert web_ui_family({}) is None


# ---- proof

PLACE = "unet.down_blocks.1.attentions.0.transformer_blocks.0"


def a_style(width: int = 768) -> dict[str, LayerWeights]:
    rng = torch.Generator().manual_seed(0)
    return {
        f"{PLACE}.attn2.to_k": LayerWeights(
            torch.randn(4, width, generator=rng), torch.randn(640, 4, generator=rng), 2.0
        ),
        f"{PLACE}.ff.net.2": LayerWeights(torch.randn(4, 2560, generator=rng), torch.randn(640, 4, generator=rng), 2.0),
    }


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize(("family", "width"), [("sd1", 768), ("sd2", 1024), ("sdxl", 2048)])
def test_our_files_have_the_same_update_in_every_program_that_takes_them(
    tmp_path: Path, layout: Layout, family: str, width: int
) -> None:
    weights = a_style(width)
    first = min(weights)
    weights[first] = dataclasses.replace(weights[first], alpha=16.0)
    path = tmp_path / "a.safetensors"
    known = FAMILIES[family]
    metadata = {"ss_base_model_version": known.version_names["epsilon"], "ss_v2": str(known.v2)}
    for dtype in (torch.float32, torch.float16):
        write_style(path, weights, layout=layout, metadata=metadata, dtype=dtype)
        found = prove(read_style(path))
        assert [each.program for each in found] == ALL
        assert not [each for each in found if each.state == "wrong"]
        if layout == "kohya":
            assert not losses(found)


def test_alpha_in_the_header_alone_is_a_wrong_strength_elsewhere_and_said_so(tmp_path: Path) -> None:
    """As diffusers and PEFT write files, and Patina did: half the rank means twice the strength."""
    layer = a_style()[f"{PLACE}.ff.net.2"]
    header = '{"unet.r": 4, "unet.lora_alpha": 2}'
    parts = {f"{PLACE}.ff.net.2.lora_A.weight": layer.down, f"{PLACE}.ff.net.2.lora_B.weight": layer.up}
    save_file(parts, tmp_path / "a.safetensors", {"lora_adapter_metadata": header, "ss_base_model_version": "sd_v1"})
    found = by_program(prove(read_style(tmp_path / "a.safetensors")))
    assert found["ComfyUI"].state == "wrong"
    assert found["ComfyUI"].why == "at 2 times its strength"
    assert found["diffusers"].state == "whole"
    opens = inspect_file(tmp_path / "a.safetensors").opens
    assert opens[0] == "Opens in diffusers and Patina only."
    assert any(
        "ComfyUI" in line and "open it, but at 2 times its strength" in line and "choose kohya's layout" in line
        for line in opens
    )


def test_a_weight_that_is_named_twice_is_not_taken_twice(tmp_path: Path) -> None:
    path = f"{PLACE}.ff.net.2"
    names = (kohya_stem(path), f"lora_unet_{(to_original(path.removeprefix('unet.')) or '').replace('.', '_')}")
    shapes = {f"{name}.{part}": (4, 4) for name in names for part in ("lora_down.weight", "lora_up.weight")}
    found = by_program(openings(FileTensors.of(shapes), [path], SDXL))
    assert len(found["ComfyUI"].taken) == 1
    assert found["InvokeAI"].state == "not"


def test_nothing_is_claimed_of_a_file_whose_base_is_unknown(tmp_path: Path) -> None:
    write_style(
        tmp_path / "a.safetensors", {f"{PLACE}.attn1.to_q": LayerWeights(torch.ones(1, 8), torch.ones(8, 1), 1)}
    )
    assert prove(read_style(tmp_path / "a.safetensors")) == ()
    assert inspect_file(tmp_path / "a.safetensors").opens == ()


def test_two_updates_are_compared_without_writing_them_out() -> None:
    rng = torch.Generator().manual_seed(0)
    up, down = torch.randn(6, 2, generator=rng), torch.randn(2, 5, generator=rng)
    turned = torch.linalg.qr(torch.randn(2, 2, generator=rng))[0]
    assert difference((0.5, up, down), (1.0, up @ turned * 0.5, turned.T @ down)) < SAME
    other = torch.randn(6, 2, generator=rng)
    exact = (2.0 * up @ down - 1.5 * other @ down).norm() / (1.5 * other @ down).norm()
    assert difference((2.0, up, down), (1.5, other, down)) == pytest.approx(float(exact), rel=1e-5)


def test_adaptable_layers_of_the_tiny_sdxl_are_all_known(sdxl_pipeline: Any) -> None:
    layers = {
        f"unet.{path}": tuple(module.weight.shape)
        for path, module in sdxl_pipeline.unet.named_modules()
        if adaptable(module)
    }
    found = by_program(foreseen(layers, SDXL, "kohya"))
    assert found["diffusers"].state == "whole"
    lost = found["ComfyUI"].left_out
    assert lost == found["A1111"].left_out
    assert all(path.endswith(("attn2.to_k", "attn2.to_v")) for path in lost), "it reads texts of another width"
