"""Files prove themselves through diffusers' own loader, on the bundled base and on a tiny SDXL."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer import safetensors_file
from trainer.adapters.bank import Bank
from trainer.adapters.layers import adaptable
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError, RunError
from trainer.styles.alpha import Alpha
from trainer.styles.names import flatten, text_path, to_original
from trainer.styles.read import read_style
from trainer.styles.verify import verify_export
from trainer.styles.write import write_style

CONV_TOO = r".*\.attn2\.to_.*|.*\.conv1|.*\.time_emb_proj"


def trained(unet: nn.Module, awaken: Any, targets: str, **settings: Any) -> dict[str, LayerWeights]:
    bank = Bank({"unet": unet})
    try:
        bank.add("a", targets, **{"rank": 4, "alpha": 3.0, "seed": 0} | settings)
        awaken(bank, "a", size=0.1)
        return {k: LayerWeights(w.down.clone(), w.up.clone(), w.alpha) for k, w in bank.weights_of("a").items()}
    finally:
        bank.detach()


def test_dora_is_proved_where_diffusers_reads_it_and_named_where_it_does_not(
    sd_pipeline: Any, awaken: Any, tmp_path: Path
) -> None:
    bank = Bank({"unet": sd_pipeline.unet})
    try:
        bank.add("a", CONV_TOO, rank=2, alpha=3.0, method="dora", seed=0)
        awaken(bank, "a", size=0.1)
        weights = bank.weights_of("a")
    finally:
        bank.detach()
    for layout in ("kohya", "diffusers"):
        write_style(tmp_path / f"{layout}.safetensors", weights, layout=layout)
    proof = verify_export(tmp_path / "diffusers.safetensors", lambda: sd_pipeline, weights, steps=2)
    assert proof.difference is not None
    assert proof.difference < 1e-3
    proof = verify_export(tmp_path / "kohya.safetensors", lambda: sd_pipeline, weights, steps=2)
    assert [tick.name for tick in proof.ticks] == ["read back", "read by"]
    assert "diffusers leaves them out" in proof.sentence()
    assert proof.difference is None


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize(("targets", "method"), [("cross", "rslora"), ("all-linear", "lora"), (CONV_TOO, "lora")])
def test_both_layouts_give_diffusers_the_very_adapter(
    sd_pipeline: Any, awaken: Any, tmp_path: Path, layout: Any, targets: str, method: str
) -> None:
    weights = trained(sd_pipeline.unet, awaken, targets, method=method)
    path = tmp_path / "a.safetensors"
    write_style(path, weights, layout=layout)
    modules = dict(sd_pipeline.unet.named_modules())
    state = {key: value.clone() for key, value in sd_pipeline.unet.state_dict().items()}
    random = torch.random.get_rng_state()
    proof = verify_export(path, lambda: sd_pipeline, weights, prompt="cat face", steps=2)
    assert [tick.name for tick in proof.ticks] == [
        "read back",
        "loaded by diffusers",
        "all there",
        "scaling",
        "A and B",
        "same picture",
    ]
    assert f"{len(weights)} of {len(weights)} layers" in proof.sentence()
    assert proof.difference is not None
    assert proof.difference < 1e-3
    assert dict(sd_pipeline.unet.named_modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in sd_pipeline.unet.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_ranks_and_alphas_may_differ_from_layer_to_layer(sd_pipeline: Any, awaken: Any, tmp_path: Path) -> None:
    weights = trained(sd_pipeline.unet, awaken, "attention")
    for i, (path, layer) in enumerate(sorted(weights.items())):
        rank = 1 + i % 4
        weights[path] = LayerWeights(layer.down[:rank], layer.up[:, :rank], 1.0 + i % 3)
    for layout in ("kohya", "diffusers"):
        write_style(tmp_path / f"{layout}.safetensors", weights, layout=layout)
        verify_export(tmp_path / f"{layout}.safetensors", lambda: sd_pipeline, weights, steps=1)


def test_half_precision_files_are_compared_as_they_were_rounded(sd_pipeline: Any, awaken: Any, tmp_path: Path) -> None:
    weights = trained(sd_pipeline.unet, awaken, "cross")
    write_style(tmp_path / "a.safetensors", weights, dtype=torch.float16)
    verify_export(tmp_path / "a.safetensors", lambda: sd_pipeline, weights, steps=1)


def names_of(pipeline: Any) -> list[str]:
    return [path for path, module in pipeline.unet.named_modules() if adaptable(module)]


def test_an_sdxl_file_proves_itself_under_either_kind_of_names_with_every_layer_of_its_unet(
    sdxl_pipeline: Any, awaken: Any, tmp_path: Path
) -> None:
    roots = {"unet": sdxl_pipeline.unet, "te1": sdxl_pipeline.text_encoder, "te2": sdxl_pipeline.text_encoder_2}
    bank = Bank(roots)
    paths = [
        f"{root}.{path}"
        for root, model in roots.items()
        for path, module in model.named_modules()
        if adaptable(module) and "projection" not in path
    ]
    bank.add("a", paths, rank=2, alpha=3.0, seed=0)
    awaken(bank, "a", size=0.1)
    weights = {
        path if path.startswith("unet.") else ".".join((path.split(".")[0], text_path(path.split(".", 1)[1]))): layer
        for path, layer in bank.weights_of("a").items()
    }
    bank.detach()
    write_style(tmp_path / "a.safetensors", weights)
    proof = verify_export(tmp_path / "a.safetensors", lambda: sdxl_pipeline, weights, steps=2)
    assert f"{len(paths)} of {len(paths)} layers" in proof.sentence()

    assert read_style(tmp_path / "a.safetensors").layout == "kohya, original names"

    # diffusers finds the added embedding under its original name alone.
    ours = {
        f"lora_unet_{flatten(to_original(path) or '')}": f"lora_unet_{flatten(path)}"
        for path in names_of(sdxl_pipeline)
        if "add_embedding" not in path
    }
    header = safetensors_file.read_header(tmp_path / "a.safetensors", AdapterFileError)
    renamed = {}
    for key, value in safetensors_file.read_tensors(header, raises=AdapterFileError).items():
        module, part = key.split(".", 1)
        renamed[f"{ours.get(module, module)}.{part}"] = value
    safetensors_file.write(tmp_path / "b.safetensors", renamed, {})
    verify_export(tmp_path / "b.safetensors", lambda: sdxl_pipeline, weights, steps=2)


def test_a_file_that_is_not_what_was_trained_does_not_pass(sd_pipeline: Any, awaken: Any, tmp_path: Path) -> None:
    weights = trained(sd_pipeline.unet, awaken, "cross")
    path = tmp_path / "a.safetensors"
    write_style(path, weights)
    first = min(weights)
    wrong = {
        "other values": weights | {first: dataclasses.replace(weights[first], up=weights[first].up * 1.001)},
        "the scale": {key: dataclasses.replace(layer, alpha=9.0) for key, layer in weights.items()},
        "on one side only": {key: layer for key, layer in weights.items() if key != first},
    }
    for sentence, expected in wrong.items():
        with pytest.raises(RunError, match=sentence):
            verify_export(path, lambda: sd_pipeline, expected, steps=1)


def test_layers_that_diffusers_drops_are_noticed(sd_pipeline: Any, awaken: Any, tmp_path: Path) -> None:
    weights = trained(sd_pipeline.unet, awaken, "all-linear")
    path = tmp_path / "mixed.safetensors"
    tensors = {}
    for where, layer in weights.items():
        attention = "attn" in where
        tensors[f"{where}.{'lora_A' if attention else 'lora.down'}.weight"] = layer.down
        tensors[f"{where}.{'lora_B' if attention else 'lora.up'}.weight"] = layer.up * (layer.alpha / layer.rank)
    safetensors_file.write(path, tensors, Alpha().to_metadata())
    expected = {k: LayerWeights(w.down, w.up * (w.alpha / w.rank), float(w.rank)) for k, w in weights.items()}
    modules = dict(sd_pipeline.unet.named_modules())
    with pytest.raises(RunError, match="all there") as caught:
        verify_export(path, lambda: sd_pipeline, expected, steps=1)
    assert f"of {len(weights)} layers" in str(caught.value)
    assert dict(sd_pipeline.unet.named_modules()) == modules


def test_a_difference_in_the_picture_is_noticed(
    sd_pipeline: Any, awaken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = trained(sd_pipeline.unet, awaken, "cross")
    write_style(tmp_path / "a.safetensors", weights)
    set_strengths = Bank.set_strengths
    monkeypatch.setattr(Bank, "set_strengths", lambda self, s: set_strengths(self, dict.fromkeys(s, 0.5)))
    with pytest.raises(RunError, match=r"same picture: largest difference .* of at most 2e-03"):
        verify_export(tmp_path / "a.safetensors", lambda: sd_pipeline, weights, steps=2)


def test_a_pipeline_that_carries_a_bank_is_refused(sd_pipeline: Any, awaken: Any, tmp_path: Path) -> None:
    weights = trained(sd_pipeline.unet, awaken, "cross")
    write_style(tmp_path / "a.safetensors", weights)
    bank = Bank({"unet": sd_pipeline.unet})
    bank.add("a", "cross", rank=2, seed=0)
    try:
        with pytest.raises(ValueError, match="detach it first"):
            verify_export(tmp_path / "a.safetensors", lambda: sd_pipeline, weights)
        with bank.detached():
            verify_export(tmp_path / "a.safetensors", lambda: sd_pipeline, weights, steps=1)
    finally:
        bank.detach()
