"""Styles that go into bases, and styles that come out of them, over every family and both layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_families import TinyModel, build, save_folder, save_settings, save_single_file
from tiny_styles import roots_of, updates

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge as merge_into
from trainer.bases.folder import read_folder
from trainer.bases.single_file import read_single_file
from trainer.errors import AdapterFileError, BaseError, ConfigError
from trainer.styles.file import StyleFile
from trainer.styles.fit import attach
from trainer.styles.read import read_style
from trainer.workbench.bake import KEY, bake
from trainer.workbench.base_files import open_base_files
from trainer.workbench.diff import diff
from trainer.workbench.extract import extract, flatten
from trainer.workbench.merge import Ingredient

Tiny = Callable[[str], TinyModel]
Make = Callable[..., StyleFile]


def saved(model: TinyModel, folder: Path, layout: str) -> Path:
    if layout == "folder":
        return save_folder(model, folder / "base")
    return save_single_file(model, folder / "base.safetensors")


def opened(path: Path, model: TinyModel, tmp_path: Path) -> dict[str, Any]:
    """The models of a base that was written, by root."""
    if path.is_dir():
        parts = read_folder(path)
    else:
        parts = read_single_file(path, save_settings(model, tmp_path / "settings"))
    return {"unet": parts.denoiser, **parts.text_encoders}


def weights_with(model: TinyModel, *uses: tuple[StyleFile, float]) -> dict[str, torch.Tensor]:
    """The weights that the bank changes when it merges styles into a tiny base, by the models' own paths."""
    bank = Bank(roots_of(model))
    for number, (file, _) in enumerate(uses):
        attach(bank, str(number), file)
    merge_into(bank, {str(number): strength for number, (_, strength) in enumerate(uses)})
    found = {path: layer.weight.clone() for path, layer in bank.layers.items()}
    bank.detach()
    return found


@pytest.mark.parametrize(("key", "layout"), [("sd1", "folder"), ("sd1", "file"), ("sd2", "file"), ("sdxl", "file")])
def test_baked_is_what_the_bank_merges_and_extraction_gives_it_back(
    tiny: Tiny, family_style: Make, tmp_path: Path, key: str, layout: str
) -> None:
    model, style = tiny(key), family_style(key)
    base = open_base_files(str(saved(model, tmp_path, layout)))
    target = tmp_path / ("new" if layout == "folder" else "new.safetensors")
    baked = bake([Ingredient(style, 0.8)], base, target)
    assert (baked.layers, baked.lost) == (len(style.layers), pytest.approx(0, abs=1e-4))
    merged = weights_with(model, (style, 0.8))
    models = opened(target, model, tmp_path)
    pristine = roots_of(model)
    for root, whole in models.items():
        names = dict(pristine[root].named_parameters())
        for name, parameter in whole.named_parameters():
            path = f"{root}.{name.removesuffix('.weight')}"
            expected = merged.get(path, names[name])
            torch.testing.assert_close(parameter, expected.reshape(parameter.shape), rtol=1e-6, atol=1e-7)
            assert path not in merged or not torch.equal(parameter, names[name])

    given_back = extract(open_base_files(str(target)), base, rank=2)
    given_back.write(tmp_path / "back.safetensors")
    found = diff(style, read_style(tmp_path / "back.safetensors"))
    assert not found.only_first
    assert not found.only_second
    assert found.angle < 1e-3
    assert found.norms[1] == pytest.approx(0.8 * found.norms[0], rel=1e-3)
    assert given_back.lost < 1e-6


def test_a_style_is_baked_in_once(tiny: Tiny, family_style: Make, tmp_path: Path) -> None:
    style = family_style("sd1")
    base = save_folder(tiny("sd1"), tmp_path / "base")
    bake([Ingredient(style)], open_base_files(str(base)), tmp_path / "once")
    with pytest.raises(AdapterFileError, match="holds sd1 already"):
        bake([Ingredient(style, 0.5)], open_base_files(str(tmp_path / "once")), tmp_path / "twice")
    with pytest.raises(AdapterFileError, match="holds sd1 already"):
        bake([Ingredient(style), Ingredient(style)], open_base_files(str(base)), tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    with safe_open(tmp_path / "once" / "unet" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        inside = json.loads(file.metadata()[KEY])
    assert [(entry["name"], entry["strength"]) for entry in inside] == [("sd1", 1.0)]


def test_a_base_in_half_precision_stays_so_and_says_what_rounding_took(
    tiny: Tiny, family_style: Make, tmp_path: Path
) -> None:
    style, model = family_style("sd1"), tiny("sd1")
    base = open_base_files(str(save_folder(model, tmp_path / "base", variant="fp16")))
    baked = bake([Ingredient(style, 0.1)], base, tmp_path / "new")
    assert 1e-4 < baked.lost < 0.1
    file = tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors"
    with safe_open(file, framework="pt") as stored:
        path = next(path for path in style.layers if path.startswith("unet."))
        weight = stored.get_tensor(f"{path.removeprefix('unet.')}.weight")
    layer, old = style.layers[path], base.parameters[f"{path}.weight"].read()
    update = 0.1 * layer.scale * (layer.up.flatten(1) @ layer.down.flatten(1)).view(old.shape)
    assert torch.equal(weight, (old.float() + update).half())


def test_what_is_baked_opens_in_diffusers(tiny: Tiny, family_style: Make, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    base = save_folder(tiny("sd1"), tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text())
    (base / "safety_checker").mkdir()
    (base / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle")
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (base / "model_index.json").write_text(json.dumps(index))
    (base / ".cache").mkdir()
    (base / ".cache" / "secret").write_text("not to be copied")
    baked = bake([Ingredient(family_style("sd1"))], open_base_files(str(base)), tmp_path / "new")
    assert baked.notes == ["safety_checker is left out, because it is there only as a pickle."]
    assert not (tmp_path / "new" / ".cache").exists()
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "new", local_files_only=True, safety_checker=None)
    assert pipeline.unet.config.cross_attention_dim == 32


def test_what_cannot_be_baked_is_refused_before_anything_is_written(
    tiny: Tiny, family_style: Make, make_style: Make, tmp_path: Path
) -> None:
    base = open_base_files(str(save_folder(tiny("sd1"), tmp_path / "base")))
    style = family_style("sd1")
    for target, said in (("base", "exists already"), ("new.safetensors", "should be a folder"), ("a/b", "no folder")):
        with pytest.raises(ConfigError, match=said):
            bake([Ingredient(style)], base, tmp_path / target)
    with pytest.raises(ConfigError, match="except 0"):
        bake([Ingredient(style, 0.0)], base, tmp_path / "new")
    with pytest.raises(AdapterFileError, match="was made for Stable Diffusion XL"):
        bake([Ingredient(family_style("sdxl"))], base, tmp_path / "new")
    with pytest.raises(AdapterFileError, match="does not fit"):
        bake([Ingredient(make_style("tiny"))], base, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_dora_becomes_a_plain_lora_for_its_base(tiny: Tiny, family_style: Make, tmp_path: Path) -> None:
    model, dora = tiny("sd1"), family_style("sd1", "dora")
    base = open_base_files(str(save_folder(model, tmp_path / "base")))
    made = flatten(dora, base, energy=1.0)
    made.write(tmp_path / "plain.safetensors")
    plain = read_style(tmp_path / "plain.safetensors")
    assert {layer.method for layer in plain.layers.values()} == {"lora"}
    merged = {path.replace("te.", "te.text_model."): w for path, w in weights_with(model, (dora, 1.0)).items()}
    for path, update in updates(plain).items():
        old = base.parameters[f"{path}.weight"].read()
        whole = old.double().flatten(1) + update
        torch.testing.assert_close(whole, merged[path].double().flatten(1), rtol=1e-5, atol=1e-6)
    assert 0.0 < flatten(dora, base, rank=2).lost < 0.9


def test_what_no_lora_holds_is_counted(tiny: Tiny, tmp_path: Path) -> None:
    tuned = build("sd1", seed=0)
    with torch.no_grad():
        tuned.unet.conv_in.weight.add_(0.1)
        tuned.unet.conv_in.bias.add_(0.1)
        tuned.unet.conv_norm_out.weight.add_(0.1)
    paths = (save_folder(tuned, tmp_path / "tuned"), save_folder(tiny("sd1"), tmp_path / "base"))
    files = [open_base_files(str(path)) for path in paths]
    made = extract(files[0], files[1], energy=0.9)
    assert list(made.layers) == ["unet.conv_in"]
    assert made.metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (made.metadata["ss_output_name"], made.metadata["ss_sd_model_name"]) == ("tuned", "base")
    assert "2 biases, norms and embeddings differ too" in " ".join(made.notes)
    with pytest.raises(BaseError, match="do not differ"):
        extract(files[0], files[1], energy=0.9, targets="cross")
    with pytest.raises(ConfigError, match="matches no layer"):
        extract(files[0], files[1], energy=0.9, targets="nothing")
    other = open_base_files(str(save_folder(tiny("sd2"), tmp_path / "sd2")))
    with pytest.raises(BaseError, match="of one family"):
        extract(other, files[1], rank=2)
