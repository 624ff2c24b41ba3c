"""Files as other tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError, AlphaUnknown
from trainer.styles import peft_config
from trainer.styles.alpha import Alpha
from trainer.styles.fit import attach
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.write import write_style

PLACE = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
DOWN, UP = torch.randn(4, 16), torch.randn(16, 4)

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
    file = read_style(tmp_path / "a.safetensors", alpha=Alpha())
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
    file = read_style(tmp_path / "a.safetensors", alpha=Alpha())
    assert list(file.layers) == [f"te1.{layer}", f"te2.{layer}"]


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
    layers = read_style(tmp_path / "a.safetensors").layers
    assert layers[f"unet.{PATH}"].scale == pytest.approx(8 / 4**0.5)
    assert layers[f"unet.{other}"].scale == pytest.approx(6 / 4**0.5)


def test_alpha_is_read_from_pefts_folder(tmp_path: Path) -> None:
    parts = {f"base_model.model.{PATH}.lora_{side}.weight": w for side, w in AB}
    save_file(parts, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16, "alpha_pattern": {}}))
    assert read_style(tmp_path / "adapter_model.safetensors").layers[f"unet.{PATH}"].alpha == 16


def test_an_alpha_that_is_nowhere_is_asked_for_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"base_model.model.{PATH}.lora_{side}.weight": w for side, w in AB}, path)
    with pytest.raises(AlphaUnknown, match=r"does not say its alpha.*--alpha rank"):
        read_style(path)
    found = inspect_file(path)
    assert (found.alpha_known, found.alphas, found.scales, found.ranks) == (False, (), (), (4,))
    assert found.to_dict()["layers"][0]["alpha"] is None
    assert read_style(path, alpha=Alpha(8.0)).layers[f"unet.{PATH}"].scale == 2
    assert read_style(path, alpha=Alpha(8.0, by_root=True)).layers[f"unet.{PATH}"].scale == 4
    save_file({f"unet.{PATH}.lora_{side}.weight": w for side, w in AB}, path, Alpha(2.0).to_metadata())
    assert read_style(path).layers[f"unet.{PATH}"].scale == 0.5


def test_an_answer_changes_nothing_where_the_file_says_its_alpha(tmp_path: Path) -> None:
    parts = {f"unet.{PATH}.lora_{side}.weight": w for side, w in AB}
    save_file(parts, tmp_path / "a.safetensors", metadata={peft_config.KEY: json.dumps({"unet.lora_alpha": 8})})
    assert read_style(tmp_path / "a.safetensors", alpha=Alpha(99.0)).layers[f"unet.{PATH}"].alpha == 8


@pytest.mark.parametrize("text", ['{"alpha": "x", "rslora": false}', "[]", '{"alpha": true, "rslora": false}', "{"])
def test_an_answer_that_is_spoilt_is_refused(tmp_path: Path, text: str) -> None:
    parts = {f"unet.{PATH}.lora_{side}.weight": w for side, w in AB}
    save_file(parts, tmp_path / "a.safetensors", metadata={"patina.alpha": text})
    with pytest.raises(AdapterFileError, match=r"patina\.alpha in its metadata"):
        read_style(tmp_path / "a.safetensors")


NAMES = {
    "LyCORIS wrapper": (f"lycoris_{PLACE}", f"unet.{PATH}"),
    "ComfyUI": ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q", f"unet.{PATH}"),
    "OneTrainer": ("unet.input_blocks.1.1.transformer_blocks.0.attn2.to_q", f"unet.{PATH}"),
    "OneTrainer, inside": (f"lora_unet.{PATH}", f"unet.{PATH}"),
    "original": ("input_blocks.1.1.transformer_blocks.0.attn2.to_q", f"unet.{PATH}"),
    "ComfyUI's text encoder": (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
        "te.text_model.encoder.layers.0.mlp.fc1",
    ),
    "ComfyUI's second text encoder": (
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
        "te2.text_model.encoder.layers.0.mlp.fc1",
    ),
    "OneTrainer's text encoder": (
        "clip_l.text_model.encoder.layers.0.mlp.fc1",
        "te.text_model.encoder.layers.0.mlp.fc1",
    ),
    "OneTrainer's text encoder, inside": (
        "lora_te2.text_model.encoder.layers.0.mlp.fc1",
        "te2.text_model.encoder.layers.0.mlp.fc1",
    ),
}


@pytest.mark.parametrize("naming", list(NAMES))
def test_names_of_other_tools_are_understood(tmp_path: Path, naming: str) -> None:
    module, where = NAMES[naming]
    save_file({f"{module}.lora_down.weight": DOWN, f"{module}.lora_up.weight": UP}, tmp_path / "a.safetensors")
    assert list(read_style(tmp_path / "a.safetensors").layers) == [where]


def test_what_peft_itself_saves_is_read(make_unet: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        make_unet(), LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "conv1"], use_rslora=True)
    )
    model.save_pretrained(tmp_path)
    file = read_style(tmp_path / "adapter_model.safetensors")
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
    file = read_style(tmp_path / "pytorch_lora_weights.safetensors")
    assert len(file.layers) == 14
    assert {layer.alpha for layer in file.layers.values()} == {6.0}


def test_a_file_that_mixes_two_kinds_of_names_is_read_whole(tmp_path: Path) -> None:
    other = PATH.replace("attn2.to_q", "ff.net.2")
    parts = {f"unet.{other}.lora_{side}.weight": w for side, w in AB}
    parts |= {f"unet.{PATH}.lora.down.weight": DOWN, f"unet.{PATH}.lora.up.weight": UP}
    save_file(parts, tmp_path / "a.safetensors")
    file = read_style(tmp_path / "a.safetensors", alpha=Alpha())
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
    write_style(tmp_path / "a.safetensors", layers)
    file = read_style(tmp_path / "a.safetensors")
    bank = Bank({"unet": sd_pipeline.unet, "te1": sd_pipeline.text_encoder})
    try:
        assert "te1.encoder.layers.0.self_attn.q_proj" in attach(bank, "a", file).spec.targets
    finally:
        bank.detach()
    bank = Bank({"unet": sd_pipeline.unet})
    try:
        assert attach(bank, "a", file).notes == ("1 layers of te are left out, because that model is not open here.",)
    finally:
        bank.detach()
