"""Adapter files: what is written, what is read, and what is refused with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.adapters import container, peft_config
from trainer.adapters.bank import Bank
from trainer.adapters.formats import LayerWeights, read_adapter, write_adapter
from trainer.adapters.metadata import sshs_model_hash
from trainer.errors import AdapterFileError, RunError

PLACE = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
DOWN, UP = torch.randn(4, 16), torch.randn(16, 4)


def weights_of(make_unet: Any, awaken: Any) -> dict[str, LayerWeights]:
    bank = Bank({"unet": make_unet()})
    bank.add("a", r".*\.attn2\..*(q|k|v|0)|.*\.conv1", rank=4, alpha=3, method="rslora", seed=0)
    awaken(bank, "a")
    return bank.weights_of("a")


def assert_same(read: Mapping[str, LayerWeights], written: Mapping[str, LayerWeights]) -> None:
    assert read.keys() == written.keys()
    for path, layer in read.items():
        assert torch.equal(layer.down, written[path].down), path
        if layer.alpha == written[path].alpha:
            assert torch.equal(layer.up, written[path].up), path
        torch.testing.assert_close(layer.up * layer.scale, written[path].up * written[path].scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_what_is_written_is_read_back_exactly(make_unet: Any, awaken: Any, tmp_path: Path, layout: Any) -> None:
    weights = weights_of(make_unet, awaken)
    path = min(weights)
    weights[path] = LayerWeights(weights[path].down[:2], weights[path].up[:, :2], 7.5)
    write_adapter(tmp_path / "a.safetensors", weights, layout=layout, metadata={"ss_output_name": "Größe \u2603"})
    file = read_adapter(tmp_path / "a.safetensors")
    assert file.layout == layout
    assert file.metadata["ss_output_name"] == "Größe \u2603"
    assert_same(file.layers, weights)
    assert {layer.alpha for layer in file.layers.values()} == {6.0}, "diffusers loses alphas that differ"
    names = [name for name, _ in make_unet().named_modules()]
    assert_same(read_adapter(tmp_path / "a.safetensors", {"unet": names}).layers, weights)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_loaded_file_acts_like_the_adapter_it_came_from(
    make_unet: Any, inputs: Any, run: Any, awaken: Any, tmp_path: Path, layout: Any
) -> None:
    first = Bank({"unet": make_unet()})
    first.add("a", r".*\.attn2\.to_.*|.*\.conv1|.*\.proj_in", rank=4, alpha=3, method="rslora", seed=0)
    awaken(first, "a")
    write_adapter(tmp_path / "a.safetensors", first.weights_of("a"), layout=layout)
    second = Bank({"unet": make_unet()})
    adapter = second.load("b", read_adapter(tmp_path / "a.safetensors"))
    assert adapter.spec.rank == 4
    assert not any(parameter.requires_grad for _, parameter in adapter.parameters)
    torch.testing.assert_close(
        run(second.roots["unet"], inputs), run(first.roots["unet"], inputs), rtol=1e-6, atol=1e-6
    )


def test_an_average_of_the_weights_can_be_written_in_their_place(unet: Any, awaken: Any) -> None:
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=2, seed=0)
    awaken(bank, "a")
    doubled = {key: value * 2 for key, value in bank.state_dict_of("a").items()}
    for path, layer in bank.weights_of("a", doubled).items():
        assert torch.equal(layer.up, doubled[f"{path}.up"])


def test_kohya_files_hold_exactly_the_keys_that_other_tools_expect(tmp_path: Path) -> None:
    layers = {
        f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0),
        f"unet.{PATH.replace('to_q', 'to_out.0')}": LayerWeights(DOWN, UP, 2.0),
        "te1.encoder.layers.0.mlp.fc1": LayerWeights(DOWN, UP, 4.0),
        "te2.text_model.encoder.layers.0.self_attn.q_proj": LayerWeights(DOWN, UP, 4.0),
    }
    write_adapter(tmp_path / "a.safetensors", layers)
    stored = load_file(tmp_path / "a.safetensors")
    stems = {key.split(".", 1)[0] for key in stored}
    assert stems == {
        f"lora_unet_{PLACE}",
        f"lora_unet_{PLACE.replace('to_q', 'to_out_0')}",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj",
    }
    assert stored[f"lora_unet_{PLACE}.lora_down.weight"].shape == (4, 16)
    assert stored[f"lora_unet_{PLACE}.lora_up.weight"].shape == (16, 4)
    assert stored[f"lora_unet_{PLACE}.alpha"].shape == ()
    assert float(stored[f"lora_unet_{PLACE}.alpha"]) == 2.0


def test_equal_saves_are_equal_files_and_metadata_does_not_touch_the_hash(tmp_path: Path) -> None:
    layers = {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)}
    metadata = {f"key{i}": str(i) for i in range(40)}
    write_adapter(tmp_path / "a.safetensors", layers, metadata=metadata)
    write_adapter(tmp_path / "b.safetensors", layers, metadata=dict(reversed(metadata.items())))
    write_adapter(tmp_path / "c.safetensors", layers)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    hashes = {sshs_model_hash(tmp_path / f"{name}.safetensors") for name in "abc"}
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert hashes == {file.metadata()["sshs_model_hash"]}
        assert file.metadata()["key7"] == "7"


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    path, layers = tmp_path / "a.safetensors", {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)}
    write_adapter(path, layers)
    missing = 0x380 - int.from_bytes(path.read_bytes()[:8], "little")
    write_adapter(path, layers, metadata={"k": "x" * (missing - len(',"k":""'))})
    assert path.read_bytes()[:2] == b"\x80\x03"
    assert_same(read_adapter(path).layers, layers)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_adapter(path, {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_adapter(path, {f"unet.{PATH}": LayerWeights(DOWN, UP, 3.0)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"):
        write_adapter(tmp_path / "a.safetensors", {f"unet.{PATH}": LayerWeights(DOWN * 1e6, UP, 1.0)}, dtype=torch.half)
    assert not list(tmp_path.iterdir())


def test_converting_to_kohya_leaves_no_peft_settings_behind(tmp_path: Path) -> None:
    layers = {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)}
    write_adapter(tmp_path / "a.safetensors", layers, layout="diffusers")
    read = read_adapter(tmp_path / "a.safetensors")
    write_adapter(tmp_path / "b.safetensors", read.layers, layout="kohya", metadata=read.metadata)
    again = read_adapter(tmp_path / "b.safetensors")
    assert peft_config.KEY not in again.metadata
    assert again.layers[f"unet.{PATH}"].alpha == 2.0


# What other tools write.

Parts = dict[str, Tensor]
OTHER_TOOLS: dict[str, tuple[Parts, str, float]] = {
    "kohya without alpha": (
        {f"lora_unet_{PLACE}.lora_down.weight": DOWN, f"lora_unet_{PLACE}.lora_up.weight": UP},
        f"unet.{PATH}",
        4.0,
    ),
    "kohya, half precision": (
        {
            f"lora_unet_{PLACE}.lora_down.weight": DOWN.half(),
            f"lora_unet_{PLACE}.lora_up.weight": UP.half(),
            f"lora_unet_{PLACE}.alpha": torch.tensor(1.0).half(),
        },
        f"unet.{PATH}",
        1.0,
    ),
    "kohya, alpha as a vector of one": (
        {
            f"lora_unet_{PLACE}.lora_down.weight": DOWN,
            f"lora_unet_{PLACE}.lora_up.weight": UP,
            f"lora_unet_{PLACE}.alpha": torch.tensor([2.0]),
        },
        f"unet.{PATH}",
        2.0,
    ),
    "kohya, original names": (
        {
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q.lora_down.weight": DOWN,
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q.lora_up.weight": UP,
        },
        f"unet.{PATH}",
        4.0,
    ),
    "kohya, first text encoder": (
        {
            "lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_down.weight": DOWN,
            "lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight": UP,
        },
        "te.text_model.encoder.layers.0.self_attn.out_proj",
        4.0,
    ),
    "diffusers": (
        {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP},
        f"unet.{PATH}",
        4.0,
    ),
    "diffusers with alpha beside": (
        {
            f"unet.{PATH}.lora_A.weight": DOWN,
            f"unet.{PATH}.lora_B.weight": UP,
            f"unet.{PATH}.alpha": torch.tensor(3.0),
        },
        f"unet.{PATH}",
        3.0,
    ),
    "diffusers with an adapter's name": (
        {f"unet.{PATH}.lora_A.default_0.weight": DOWN, f"unet.{PATH}.lora_B.default_0.weight": UP},
        f"unet.{PATH}",
        4.0,
    ),
    "UNet alone": ({f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP}, f"unet.{PATH}", 4.0),
    "PEFT": (
        {f"base_model.model.{PATH}.lora_A.weight": DOWN, f"base_model.model.{PATH}.lora_B.weight": UP},
        f"unet.{PATH}",
        4.0,
    ),
    "older diffusers": (
        {f"unet.{PATH}.lora.down.weight": DOWN, f"unet.{PATH}.lora.up.weight": UP},
        f"unet.{PATH}",
        4.0,
    ),
    "oldest diffusers": (
        {
            f"{PATH[:-5]}.processor.to_out_lora.down.weight": DOWN,
            f"{PATH[:-5]}.processor.to_out_lora.up.weight": UP,
        },
        f"unet.{PATH[:-5]}.to_out.0",
        4.0,
    ),
    "older diffusers, text encoder": (
        {
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight": DOWN,
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight": UP,
        },
        "te.text_model.encoder.layers.0.self_attn.q_proj",
        4.0,
    ),
    "oldest diffusers, text encoder": (
        {
            "text_encoder.text_model.encoder.layers.0.self_attn.to_v_lora.down.weight": DOWN,
            "text_encoder.text_model.encoder.layers.0.self_attn.to_v_lora.up.weight": UP,
        },
        "te.text_model.encoder.layers.0.self_attn.v_proj",
        4.0,
    ),
}


@pytest.mark.parametrize("tool", list(OTHER_TOOLS))
def test_other_tools_files_are_read(tmp_path: Path, tool: str) -> None:
    parts, where, alpha = OTHER_TOOLS[tool]
    save_file({key: value.contiguous() for key, value in parts.items()}, tmp_path / "a.safetensors")
    file = read_adapter(tmp_path / "a.safetensors")
    assert list(file.layers) == [where]
    layer = file.layers[where]
    torch.testing.assert_close(layer.down.float(), DOWN, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.up.float(), UP, rtol=1e-3, atol=1e-3)
    assert layer.alpha == alpha


def test_the_first_text_encoder_of_two_is_told_from_an_only_one(tmp_path: Path) -> None:
    layer = "text_model.encoder.layers.0.mlp.fc1"
    both = {
        f"{root}.{layer}.lora_{side}.weight": w.clone() for root in ("text_encoder", "text_encoder_2") for side, w in AB
    }
    save_file(both, tmp_path / "a.safetensors")
    assert list(read_adapter(tmp_path / "a.safetensors").layers) == [f"te1.{layer}", f"te2.{layer}"]


AB = (("A", DOWN.clone()), ("B", UP.clone()))


def test_alpha_is_read_from_diffusers_header(tmp_path: Path) -> None:
    other = PATH.replace("to_q", "to_k")
    config = {
        "unet.r": 4,
        "unet.lora_alpha": 8,
        "unet.alpha_pattern": {f"^{other}": 6},
        "unet.use_rslora": True,
        "text_encoder.lora_alpha": 99,
    }
    parts = {f"unet.{p}.lora_{side}.weight": w.clone() for p in (PATH, other) for side, w in AB}
    save_file(parts, tmp_path / "a.safetensors", metadata={peft_config.KEY: json.dumps(config)})
    layers = read_adapter(tmp_path / "a.safetensors").layers
    assert layers[f"unet.{PATH}"].scale == pytest.approx(8 / 4**0.5)
    assert layers[f"unet.{other}"].scale == pytest.approx(6 / 4**0.5)


def test_alpha_is_read_from_pefts_folder(tmp_path: Path) -> None:
    parts = {f"base_model.model.{PATH}.lora_{side}.weight": w for side, w in AB}
    save_file(parts, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16, "alpha_pattern": {}}))
    assert read_adapter(tmp_path / "adapter_model.safetensors").layers[f"unet.{PATH}"].alpha == 16


def test_what_peft_itself_saves_is_read(make_unet: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        make_unet(), LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "conv1"], use_rslora=True)
    )
    model.save_pretrained(tmp_path)
    file = read_adapter(tmp_path / "adapter_model.safetensors")
    assert {round(layer.scale, 9) for layer in file.layers.values()} == {round(5 / 3**0.5, 9)}
    assert {tuple(layer.down.shape[2:]) for layer in file.layers.values()} == {(), (3, 3)}


def test_what_diffusers_itself_saves_is_read(sd_pipeline: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = sd_pipeline.unet
    unet.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=["attn2.to_q", "attn2.to_k"]))
    try:
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        StableDiffusionPipeline.save_lora_weights(
            tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=unet.peft_config["default"].to_dict()
        )
    finally:
        sd_pipeline.unload_lora_weights()
    file = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert len(file.layers) == 14
    assert {layer.alpha for layer in file.layers.values()} == {6.0}


def test_a_file_that_mixes_two_kinds_of_names_is_read_whole(tmp_path: Path) -> None:
    other = PATH.replace("attn2.to_q", "ff.net.2")
    parts = {f"unet.{other}.lora_{side}.weight": w for side, w in AB}
    parts |= {f"unet.{PATH}.lora.down.weight": DOWN, f"unet.{PATH}.lora.up.weight": UP}
    save_file(parts, tmp_path / "a.safetensors")
    file = read_adapter(tmp_path / "a.safetensors")
    assert set(file.layers) == {f"unet.{PATH}", f"unet.{other}"}
    assert file.layout == "diffusers and diffusers, older"


def test_text_encoder_layers_reach_the_text_encoder_or_are_said_to_be_left_out(
    sd_pipeline: Any, tmp_path: Path
) -> None:
    width = sd_pipeline.text_encoder.config.hidden_size
    query = LayerWeights(torch.randn(2, width), torch.randn(width, 2), 2.0)
    unet_width = sd_pipeline.unet.get_submodule(PATH).in_features
    layers = {
        "te.text_model.encoder.layers.0.self_attn.q_proj": query,
        f"unet.{PATH}": LayerWeights(torch.randn(2, unet_width), torch.randn(unet_width, 2), 2.0),
    }
    write_adapter(tmp_path / "a.safetensors", layers)
    file = read_adapter(tmp_path / "a.safetensors")
    bank = Bank({"unet": sd_pipeline.unet, "te1": sd_pipeline.text_encoder})
    try:
        assert "te1.encoder.layers.0.self_attn.q_proj" in bank.load("a", file).spec.targets
    finally:
        bank.detach()
    bank = Bank({"unet": sd_pipeline.unet})
    try:
        assert bank.load("a", file).notes == ("1 layers of te are left out, because that model is not open here.",)
    finally:
        bank.detach()


# Files that are refused.


def with_parts(**changes: Tensor) -> Callable[[Path], None]:
    parts = {f"lora_unet_{PLACE}.lora_down.weight": DOWN, f"lora_unet_{PLACE}.lora_up.weight": UP}
    stem = f"lora_unet_{PLACE}"
    for key, value in changes.items():
        parts[f"{stem}.{key.replace('__', '.')}"] = value
    return lambda path: save_file({k: v.contiguous() for k, v in parts.items() if v.numel()}, path)


def only(*keys: str) -> Callable[[Path], None]:
    return lambda path: save_file({key: torch.randn(2, 2) for key in keys}, path)


def cut(path: Path) -> None:
    with_parts()(path)
    path.write_bytes(path.read_bytes()[:-7])


def cut_in_header(path: Path) -> None:
    with_parts()(path)
    path.write_bytes(path.read_bytes()[:40])


def stretched(path: Path) -> None:
    with_parts()(path)
    path.write_bytes(path.read_bytes().replace(b"[4,16]", b"[4,17]"))


LOKR = f"lora_unet_{PLACE}.lokr_w1"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "There is no file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "folder": (lambda path: path.mkdir(), "cannot be read"),
    "text": (lambda path: path.write_text("hello, this is text"), "not a safetensors file"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "a web page or a pointer"),
    "git-lfs pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "a web page or a pointer",
    ),
    "pickle": (lambda path: torch.save({"a": DOWN}, path), "is a pickle"),
    "cut": (cut, "is cut short"),
    "cut in header": (cut_in_header, "is cut short"),
    "stretched": (stretched, "is damaged"),
    "huge header": (lambda path: path.write_bytes((1 << 60).to_bytes(8, "little") + b"{" * 99), "not a safetensors"),
    "header is a list": (lambda path: path.write_bytes((8).to_bytes(8, "little") + b"{[1,2,3]"), "header cannot"),
    "endless numbers": (
        lambda path: path.write_bytes(
            (52).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,0]}}'
        ),
        "header cannot",
    ),
    "LoHa": (only(f"lora_unet_{PLACE}.hada_w1_a"), "made with LoHa"),
    "LoKr": (only(LOKR), "made with LoKr"),
    "DoRA": (with_parts(dora_scale=torch.ones(16, 1)), "made with DoRA"),
    "PEFT DoRA": (only(f"unet.{PATH}.lora_A.weight", f"unet.{PATH}.lora_magnitude_vector"), "made with DoRA"),
    "OFT": (only(f"lora_unet_{PLACE}.oft_blocks"), "made with OFT"),
    "Tucker": (with_parts(lora_mid__weight=torch.ones(4, 4)), "Tucker"),
    "full": (only(f"lora_unet_{PLACE}.diff"), "full weight differences"),
    "FLUX": (
        only(
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight",
        ),
        "made for FLUX",
    ),
    "FLUX, diffusers": (
        only("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"),
        "made for FLUX",
    ),
    "SD3": (
        only("lora_unet_joint_blocks_0_x.lora_down.weight", "lora_unet_joint_blocks_0_x.lora_up.weight"),
        "Stable Diffusion 3",
    ),
    "whole model": (only("model.diffusion_model.input_blocks.0.0.weight"), "a whole model"),
    "textual inversion": (only("emb_params"), "textual inversion"),
    "unrelated": (only("layer.weight"), "holds no LoRA weights"),
    "no tensors": (lambda path: save_file({}, path), "holds no LoRA weights"),
    "unknown part": (with_parts(lora_zzz=torch.ones(1)), "no part of a LoRA"),
    "half a layer": (with_parts(lora_up__weight=torch.empty(0)), "has no up matrix"),
    "ranks differ": (with_parts(lora_up__weight=torch.ones(16, 5)), "do not go together"),
    "no number": (with_parts(lora_up__weight=torch.full((16, 4), float("nan"))), "not numbers or infinite"),
    "alpha is no number": (with_parts(alpha=torch.tensor(float("inf"))), "not numbers or infinite"),
    "no layer": (
        only("lora_unet_gibberish_7.lora_down.weight", "lora_unet_gibberish_7.lora_up.weight"),
        "no layer of a Stable Diffusion model",
    ),
    "settings unreadable": (
        lambda path: save_file(
            {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP}, path, {peft_config.KEY: "{"}
        ),
        "LoRA settings",
    ),
    "alpha by a wild pattern": (
        lambda path: save_file(
            {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP},
            path,
            {peft_config.KEY: json.dumps({"unet.alpha_pattern": {"(a+)+": 1}})},
        ),
        "pattern",
    ),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    make, sentence = BAD[kind]
    path = tmp_path / "bad.safetensors"
    make(path)
    with pytest.raises(AdapterFileError, match=sentence) as caught:
        read_adapter(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_refused_by_their_ending_too(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"whatever is in here")
    with pytest.raises(AdapterFileError, match=r"as \.safetensors"):
        read_adapter(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("width", "family"), [(768, "1"), (1024, "2"), (2048, "XL"), (192, None)])
def test_a_file_for_another_base_is_refused_with_both_shapes(
    make_unet: Any, tmp_path: Path, width: int, family: str | None
) -> None:
    path = PATH.replace("to_q", "to_k")
    write_adapter(
        tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(torch.randn(4, width), torch.randn(320, 4), 4)}
    )
    unet = make_unet()
    modules = dict(unet.named_modules())
    with pytest.raises(AdapterFileError) as caught:
        Bank({"unet": unet}).load("a", read_adapter(tmp_path / "a.safetensors"))
    made_for = f"made for Stable Diffusion {family}." if family else "text features of width 192."
    for part in (path, f"{width} to 320", "24 to 16", made_for):
        assert part in str(caught.value)
    assert dict(unet.named_modules()) == modules


def test_a_layer_that_the_base_lacks_is_named(make_unet: Any, tmp_path: Path) -> None:
    path = PATH.replace("down_blocks.0", "down_blocks.3")
    write_adapter(tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(DOWN, UP, 4)})
    names = [name for name, _ in make_unet().named_modules()]
    with pytest.raises(AdapterFileError, match="the base has no layer"):
        read_adapter(tmp_path / "a.safetensors", {"unet": names})
    with pytest.raises(AdapterFileError, match="the base has no layer"):
        Bank({"unet": make_unet()}).load("a", read_adapter(tmp_path / "a.safetensors"))


def test_an_sdxl_file_on_a_smaller_base_says_what_it_was_made_for(make_unet: Any, tmp_path: Path) -> None:
    stem = "lora_unet_input_blocks_7_1_transformer_blocks_5_attn2_to_k"
    parts = {f"{stem}.lora_down.weight": torch.randn(4, 2048), f"{stem}.lora_up.weight": torch.randn(1280, 4)}
    save_file(parts, tmp_path / "a.safetensors")
    names = [name for name, _ in make_unet().named_modules()]
    with pytest.raises(AdapterFileError, match=f"no layer {stem}. It seems to be made for Stable Diffusion XL."):
        read_adapter(tmp_path / "a.safetensors", {"unet": names})


def test_one_by_one_convolutions_and_linear_layers_stand_for_each_other(make_unet: Any, tmp_path: Path) -> None:
    path = "mid_block.attentions.0.proj_in"
    for linear in (False, True):
        unet = make_unet(use_linear_projection=linear)
        down, up = torch.randn(2, 32), torch.randn(32, 2)
        if linear:
            down, up = down[:, :, None, None], up[:, :, None, None]
        write_adapter(tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(down, up, 2)})
        bank = Bank({"unet": unet})
        bank.load("a", read_adapter(tmp_path / "a.safetensors"))
        assert bank.state_dict_of("a")[f"unet.{path}.down"].dim() == unet.get_submodule(path).weight.dim()


def test_a_whole_model_is_told_from_its_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only("model.diffusion_model.input_blocks.0.0.weight")(tmp_path / "a.safetensors")
    monkeypatch.setattr(container, "read_tensors", lambda *_: pytest.fail("tensors were read"))
    with pytest.raises(AdapterFileError, match="whole model"):
        read_adapter(tmp_path / "a.safetensors")


def test_light_modules_import_no_torch() -> None:
    modules = "trainer.adapters.targets, trainer.adapters.metadata, trainer.adapters.names"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
