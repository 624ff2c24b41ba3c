"""What a style file says about itself, and what is made of it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainer.adapters.bank import Bank
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.styles.inspect import inspect_file
from trainer.styles.metadata import (
    Provenance,
    bucket_info,
    build,
    check_base,
    family_of,
    sshs_model_hash,
    tag_frequency,
    thumbnail_url,
)
from trainer.styles.write import write_style

FACTS = Provenance(
    name="ink",
    family="sd2",
    version_name="sd_v2_v",
    architecture="stable-diffusion-v2-768-v",
    version="0.1.0",
    base_name="some/base",
    base_sha256="ab" * 32,
    prediction="v_prediction",
    zero_terminal_snr=True,
    rank=8,
    alpha=8.0,
    network={"method": "rslora", "targets": "cross"},
    resolution=(768, 512),
    images=16,
    steps=400,
    learning_rate=1e-3,
    seed=42,
    clip_skip=1,
    started_at=1_700_000_000.0,
    finished_at=1_700_000_090.5,
    tag_frequency=tag_frequency(["cat, ink style", "red apple, ink style", ""], "16_ink"),
    bucket_info=bucket_info([(768, 512), (512, 512), (768, 512)]),
    trigger="ink style",
    license="CC-BY-4.0",
    config={"base": {"source": "some/base"}},
)


def test_the_header_holds_what_other_tools_look_for() -> None:
    header = build(FACTS)
    assert all(isinstance(value, str) and value for value in header.values())
    expected = {
        "ss_output_name": "ink",
        "ss_base_model_version": "sd_v2_v",
        "ss_v2": "True",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "8",
        "ss_network_alpha": "8.0",
        "ss_resolution": "(768, 512)",
        "ss_num_train_images": "16",
        "ss_steps": "400",
        "ss_learning_rate": "0.001",
        "ss_seed": "42",
        "ss_clip_skip": "2",
        "ss_training_finished_at": "1700000090.5",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v2-768-v/lora",
        "modelspec.prediction_type": "v",
        "ss_v_parameterization": "True",
        "ss_zero_terminal_snr": "True",
        "modelspec.resolution": "768x512",
        "modelspec.date": "2023-11-14T22:14:50Z",
        "modelspec.trigger_phrase": "ink style",
        "modelspec.license": "CC-BY-4.0",
        "patina.base_sha256": "ab" * 32,
        "patina.version": "0.1.0",
    }
    assert {key: header[key] for key in expected} == expected
    assert "modelspec.author" not in header
    assert json.loads(header["ss_network_args"])["method"] == "rslora"
    assert json.loads(header["ss_tag_frequency"]) == {"16_ink": {"ink style": 2, "cat": 1, "red apple": 1}}
    assert json.loads(header["ss_bucket_info"]) == {
        "buckets": {"0": {"resolution": [512, 512], "count": 1}, "1": {"resolution": [768, 512], "count": 2}}
    }
    assert json.loads(header["patina.config"])["base"]["source"] == "some/base"


def test_layers_that_differ_are_called_dynamic() -> None:
    header = build(dataclasses.replace(FACTS, rank=None, alpha=None, clip_skip=0, family="sd1", prediction="epsilon"))
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("Dynamic", "Dynamic")
    assert (header["ss_clip_skip"], header["ss_v2"]) == ("None", "False")


def test_a_thumbnail_is_a_small_jpeg_in_a_data_url() -> None:
    url = thumbnail_url(Image.new("RGBA", (800, 400), "red"), side=64)
    kind, data = url.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 32))
    assert len(url) < 4000


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sd_v2_768_v"}, "sd2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux-1-dev/lora"),
        ({"ss_base_model_version": "sd_v1", "patina.family": "bundled"}, "bundled"),
        ({}, None),
    ],
)
def test_the_family_is_read_from_whatever_names_it(metadata: dict[str, str], family: str | None) -> None:
    assert family_of(metadata) == family


def test_another_base_of_the_family_is_a_note_and_another_family_is_refused() -> None:
    header = build(FACTS)
    assert check_base(header, base_sha256="ab" * 32, family="sd2") == []
    (note,) = check_base(header, base_sha256="cd" * 32, family="sd2")
    assert "some/base" in note
    with pytest.raises(
        AdapterFileError, match=r"ink was made for Stable Diffusion 2, but the base is Stable Diffusion XL"
    ):
        check_base(header, base_sha256="ab" * 32, family="sdxl")
    assert check_base({}, base_sha256="ab" * 32, family="sdxl") == []


def test_inspection_tells_what_is_in_a_file(unet: Any, awaken: Any, tmp_path: Path) -> None:
    bank = Bank({"unet": unet})
    bank.add("ink", "attention", rank=4, alpha=2, method="rslora", seed=0)
    awaken(bank, "ink")
    weights = bank.weights_of("ink")
    path = tmp_path / "ink.safetensors"
    write_style(path, weights, metadata=build(FACTS))
    found = inspect_file(path)
    assert (found.layout, found.targets, found.ranks, found.alphas, found.scales) == (
        "kohya",
        "attention",
        (4,),
        (4.0,),
        (1.0,),
    )
    assert (found.family, found.family_guessed, found.trigger) == ("Stable Diffusion 2", False, "ink style")
    assert found.models == {"unet": len(weights)}
    assert found.parameters == bank["ink"].size
    assert found.hash == sshs_model_hash(path) == found.stored_hash
    assert found.hash_matches is True
    assert found.finite
    for layer in found.layers:
        exact = (weights[layer.path].up @ weights[layer.path].down).norm() * layer.scale
        assert layer.norm == pytest.approx(float(exact), rel=1e-5)
    assert json.loads(json.dumps(found.to_dict()))["training"]["ss_steps"] == "400"


def test_inspection_reports_what_reading_refuses(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    write_style(path, {layer: LayerWeights(torch.full((2, 2048), 3.0), torch.ones(640, 2), 2.0)})
    raw = path.read_bytes()
    path.write_bytes(raw[:-4] + torch.tensor(float("nan")).numpy().tobytes())
    found = inspect_file(path)
    assert (found.family, found.family_guessed) == ("Stable Diffusion XL", True)
    assert found.hash_matches is False
    assert not found.finite
    assert found.to_dict()["layers"][0]["norm"] is None


def test_convolutions_have_norms_too(tmp_path: Path) -> None:
    path = tmp_path / "conv.safetensors"
    down, up = torch.randn(2, 3, 3, 3), torch.randn(5, 2, 1, 1)
    write_style(path, {"unet.conv_in": LayerWeights(down, up, 1.0)})
    (layer,) = inspect_file(path).layers
    expected = 0.5 * (up.flatten(1) @ down.flatten(1)).norm()
    assert layer.norm == pytest.approx(float(expected), rel=1e-5)
    assert inspect_file(path).targets == "custom: conv_in"
