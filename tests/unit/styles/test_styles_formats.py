"""Adapter files: what is written, what is read, and what is refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.adapters.bank import Bank
from trainer.adapters.weights import LayerWeights
from trainer.errors import RunError
from trainer.styles import peft_config
from trainer.styles.fit import attach
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.read import read_style
from trainer.styles.write import write_style

PLACE = "input_blocks_1_1_transformer_blocks_0_attn2_to_q"
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
    write_style(tmp_path / "a.safetensors", weights, layout=layout, metadata={"ss_output_name": "Größe \u2603"})
    file = read_style(tmp_path / "a.safetensors")
    assert file.layout == layout
    assert file.metadata["ss_output_name"] == "Größe \u2603"
    assert_same(file.layers, weights)
    if layout == "kohya":
        assert {layer.alpha for layer in file.layers.values()} == {6.0}, "diffusers loses alphas that differ"
    else:
        assert all(layer.alpha == layer.rank for layer in file.layers.values()), "other programs take it for that"
    names = [name for name, _ in make_unet().named_modules()]
    assert_same(read_style(tmp_path / "a.safetensors", {"unet": names}).layers, weights)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_loaded_file_acts_like_the_adapter_it_came_from(
    make_unet: Any, inputs: Any, run: Any, awaken: Any, tmp_path: Path, layout: Any
) -> None:
    first = Bank({"unet": make_unet()})
    first.add("a", r".*\.attn2\.to_.*|.*\.conv1|.*\.proj_in", rank=4, alpha=3, method="rslora", seed=0)
    awaken(first, "a")
    write_style(tmp_path / "a.safetensors", first.weights_of("a"), layout=layout)
    second = Bank({"unet": make_unet()})
    adapter = attach(second, "b", read_style(tmp_path / "a.safetensors"))
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
    write_style(tmp_path / "a.safetensors", layers)
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
    write_style(tmp_path / "a.safetensors", layers, metadata=metadata)
    write_style(tmp_path / "b.safetensors", layers, metadata=dict(reversed(metadata.items())))
    write_style(tmp_path / "c.safetensors", layers)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    hashes = {sshs_model_hash(tmp_path / f"{name}.safetensors") for name in "abc"}
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert hashes == {file.metadata()["sshs_model_hash"]}
        assert file.metadata()["key7"] == "7"


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    path, layers = tmp_path / "a.safetensors", {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)}
    write_style(path, layers)
    missing = 0x380 - int.from_bytes(path.read_bytes()[:8], "little")
    write_style(path, layers, metadata={"k": "x" * (missing - len(',"k":""'))})
    assert path.read_bytes()[:2] == b"\x80\x03"
    assert_same(read_style(path).layers, layers)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_style(path, {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_style(path, {f"unet.{PATH}": LayerWeights(DOWN, UP, 3.0)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"):
        write_style(tmp_path / "a.safetensors", {f"unet.{PATH}": LayerWeights(DOWN * 1e6, UP, 1.0)}, dtype=torch.half)
    assert not list(tmp_path.iterdir())


def test_converting_to_kohya_leaves_no_peft_settings_behind(tmp_path: Path) -> None:
    layers = {f"unet.{PATH}": LayerWeights(DOWN, UP, 2.0)}
    write_style(tmp_path / "a.safetensors", layers, layout="diffusers")
    read = read_style(tmp_path / "a.safetensors")
    write_style(tmp_path / "b.safetensors", read.layers, layout="kohya", metadata=read.metadata)
    again = read_style(tmp_path / "b.safetensors")
    assert peft_config.KEY not in again.metadata
    assert again.layers[f"unet.{PATH}"].scale == 1.0, "which is in the matrices since"
