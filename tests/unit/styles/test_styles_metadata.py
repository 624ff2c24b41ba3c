"""What a style file says about itself, and what is made of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trainer import safetensors_file
from trainer.adapters.bank import Bank
from trainer.adapters.weights import LayerWeights
from trainer.bases.sources import public_name
from trainer.errors import AdapterFileError
from trainer.styles.inspect import inspect_file
from trainer.styles.metadata import (
    Provenance,
    bucket_info,
    build,
    check_base,
    checkpoint_hashes,
    family_of,
    sshs_model_hash,
    tag_frequency,
    thumbnail_url,
)
from trainer.styles.read import read_style
from trainer.styles.write import write_style

FACTS = Provenance(
    name="ink",
    family="sd2",
    v2=True,
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
    further={"optimizer": "adamw"},
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
        "modelspec.implementation": "diffusers",
        "modelspec.implementation_version": "Patina/0.1.0",
        "modelspec.encoder_layer": "2",
        "ss_optimizer": "adamw",
    }
    assert {key: header[key] for key in expected} == expected
    assert "modelspec.author" not in header
    assert json.loads(header["ss_network_args"])["method"] == "rslora"
    assert json.loads(header["ss_tag_frequency"]) == {"16_ink": {"ink style": 2, "cat": 1, "red apple": 1}}
    assert json.loads(header["ss_dataset_dirs"]) == {"16_ink": {"n_repeats": 1, "img_count": 16}}
    assert json.loads(header["ss_bucket_info"]) == {
        "buckets": {"0": {"resolution": [512, 512], "count": 1}, "1": {"resolution": [768, 512], "count": 2}}
    }
    assert json.loads(header["patina.config"])["base"]["source"] == "some/base"


def test_layers_that_differ_are_called_dynamic() -> None:
    header = build(dataclasses.replace(FACTS, rank=None, alpha=None, clip_skip=0, v2=False, prediction="epsilon"))
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


def test_a_base_is_named_as_all_the_world_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "private" / "my-model").mkdir(parents=True)
    file = tmp_path / "private" / "photoreal.safetensors"
    file.write_bytes(b"x")
    assert public_name(str(tmp_path / "private" / "my-model")) == "my-model"
    assert public_name(str(file)) == "photoreal.safetensors"
    file.unlink()
    assert public_name(str(file)) == "photoreal.safetensors", "gone since"
    assert public_name("C:\\Users\\me\\photoreal.safetensors") == "photoreal.safetensors"
    assert public_name("some/base") == "some/base"
    assert public_name("bundled") == "bundled"


def test_hashes_are_those_that_model_sites_and_web_uis_look_up(tmp_path: Path) -> None:
    """Against the definitions: SHA-256 of the file, of its second MiB's first 64 KiB, of the bytes after the header."""
    checkpoint = tmp_path / "base.safetensors"
    content = bytes(range(256)) * 5000
    checkpoint.write_bytes(content)
    old, new = checkpoint_hashes(checkpoint)
    assert new == hashlib.sha256(content).hexdigest()
    assert old == hashlib.sha256(content[1 << 20 : (1 << 20) + (1 << 16)]).hexdigest()[:8]

    style = tmp_path / "style.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    weights = {layer: LayerWeights(torch.randn(256, 1024), torch.randn(1024, 256), 256.0)}
    write_style(style, weights, metadata=build(FACTS))
    data = style.read_bytes()
    weights_hash = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    header = read_style(style).metadata
    assert header["sshs_model_hash"] == weights_hash
    assert header["modelspec.hash_sha256"] == f"0x{weights_hash}"
    found = inspect_file(style)
    assert found.auto_v2 == hashlib.sha256(data).hexdigest()[:10].upper()
    assert found.auto_v3 == weights_hash[:12].upper()

    ours = {key: value for key, value in header.items() if key.startswith("ss_")}
    safetensors_file.write(tmp_path / "bare.safetensors", load_file(style), ours)
    bare = (tmp_path / "bare.safetensors").read_bytes()
    size = int.from_bytes(bare[:8], "little")
    table = json.loads(bare[8 : 8 + size])
    for key in ("sshs_model_hash", "sshs_legacy_hash"):
        table["__metadata__"].pop(key)
    head = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    stripped = len(head).to_bytes(8, "little") + head + bare[8 + size :]
    window = stripped[1 << 20 : (1 << 20) + (1 << 16)]
    assert header["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]
