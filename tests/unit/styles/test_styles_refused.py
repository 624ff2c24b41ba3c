"""Files that are no style for this base are refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.adapters.weights import LayerWeights
from trainer.errors import AdapterFileError
from trainer.styles import peft_config, read
from trainer.styles.fit import attach
from trainer.styles.read import read_style
from trainer.styles.write import write_style

PLACE = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
DOWN, UP = torch.randn(4, 16), torch.randn(16, 4)


def with_parts(**changes: Tensor) -> Callable[[Path], None]:
    parts = {f"lora_unet_{PLACE}.lora_down.weight": DOWN, f"lora_unet_{PLACE}.lora_up.weight": UP}
    stem = f"lora_unet_{PLACE}"
    for key, value in changes.items():
        parts[f"{stem}.{key.replace('__', '.')}"] = value
    return lambda path: save_file({k: v.contiguous() for k, v in parts.items() if v.numel()}, path)


def parts_of(**parts: Tensor) -> Callable[[Path], None]:
    named = {f"lora_unet_{PLACE}.{key.replace('__', '.')}": value for key, value in parts.items()}
    return lambda path: save_file(named, path)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape)


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


def with_settings(settings: str | dict[str, Any]) -> Callable[[Path], None]:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    parts = {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP}
    return lambda path: save_file(parts, path, {peft_config.KEY: text})


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
    "half a LoHa": (only(f"lora_unet_{PLACE}.hada_w1_a"), "is incomplete: .* has no hada_w1_b"),
    "half a LoKr": (only(f"lora_unet_{PLACE}.lokr_w1"), "is incomplete: .* has no whole lokr_w2"),
    "half a GLoRA": (only(f"lora_unet_{PLACE}.a1.weight"), "is incomplete: .* has no a2"),
    "one core of LoHa": (
        parts_of(
            hada_w1_a=ones(2, 16),
            hada_w1_b=ones(2, 4),
            hada_w2_a=ones(2, 16),
            hada_w2_b=ones(2, 4),
            hada_t1=ones(2, 2, 3, 3),
        ),
        "only one of hada_t1 and hada_t2",
    ),
    "halves of LoHa differ": (
        parts_of(hada_w1_a=ones(16, 2), hada_w1_b=ones(2, 16), hada_w2_a=ones(16, 2), hada_w2_b=ones(2, 9)),
        "do not go together",
    ),
    "LoHa of no rank": (
        parts_of(hada_w1_a=ones(16, 0), hada_w1_b=ones(0, 16), hada_w2_a=ones(16, 0), hada_w2_b=ones(0, 16)),
        "is damaged: hada_w1_[ab] of .* is empty",
    ),
    "LoKr over one's head": (
        parts_of(lokr_w1=ones(400, 1), lokr_w2_a=ones(200, 1), lokr_w2_b=ones(1, 1000)),
        "80000 x 1000 values, more than any layer",
    ),
    "LoKr twice": (parts_of(lokr_w1=ones(4, 4), lokr_w2=ones(4, 4), lokr_w2_a=ones(4, 1)), "do not go together"),
    "GLoRA of two ranks": (
        parts_of(a1__weight=ones(16, 2), a2__weight=ones(3, 16), b1__weight=ones(16, 2), b2__weight=ones(2, 16)),
        "do not go together",
    ),
    "GLoRA with a core": (
        parts_of(
            a1__weight=ones(16, 2),
            a2__weight=ones(2, 16),
            b1__weight=ones(16, 2),
            b2__weight=ones(2, 16),
            bm__weight=ones(2, 2),
        ),
        "Tucker core beside GLoRA",
    ),
    "DoRA on LoHa": (
        parts_of(
            hada_w1_a=ones(16, 2),
            hada_w1_b=ones(2, 16),
            hada_w2_a=ones(16, 2),
            hada_w2_b=ones(2, 16),
            dora_scale=ones(16, 1),
        ),
        "DoRA's magnitudes on LoHa",
    ),
    "DoRA on LoKr": (
        parts_of(lokr_w1=ones(4, 4), lokr_w2=ones(4, 4), dora_scale=ones(16, 1)),
        "DoRA's magnitudes on LoKr",
    ),
    "two forms at once": (with_parts(hada_w1_a=ones(16, 2)), "lora_down.weight beside LoHa"),
    "a difference of three sides": (parts_of(diff=ones(2, 2, 2)), "do not go together"),
    "norms alone": (parts_of(w_norm=ones(16), b_norm=ones(16)), "nothing but 1 normalisation layers"),
    "DoRA over inputs": (with_parts(dora_scale=torch.ones(1, 24)), "one value for each of 16 outputs, or of 16 inputs"),
    "DoRA of another layer": (with_parts(dora_scale=torch.ones(9, 1)), "one value for each of 16 outputs"),
    "DoRA without B": (only(f"unet.{PATH}.lora_A.weight", f"unet.{PATH}.lora_magnitude_vector"), "has no up matrix"),
    "VeRA": (only(f"unet.{PATH}.vera_lambda_b"), "made with VeRA"),
    "OFT": (parts_of(oft_blocks=ones(4, 8, 8)), "made with OFT"),
    "BOFT": (parts_of(oft_blocks=ones(2, 4, 8, 8)), "made with BOFT"),
    "IA3": (parts_of(on_input=ones(1), weight=ones(16)), "made with IA3"),
    "a core that does not fit": (with_parts(lora_mid__weight=ones(4, 4)), "do not go together"),
    "a bias of another size": (with_parts(diff_b=ones(3)), "diff_b is [(]3,[)], but should hold one value for each"),
    "a bias on DoRA": (with_parts(dora_scale=ones(16, 1), diff_b=ones(16)), "bias .* beside DoRA"),
    "FLUX": (
        only(
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight",
        ),
        "made for FLUX",
    ),
    "a LyCORIS wrapper of FLUX": (only("lycoris_transformer_blocks_0_attn_to_q.lokr_w1"), "such as FLUX"),
    "ComfyUI's FLUX": (only("diffusion_model.double_blocks.0.img_attn.qkv.lora_up.weight"), "made for FLUX"),
    "ComfyUI's video": (only("diffusion_model.blocks.0.ffn.0.lora_up.weight"), "not Stable Diffusion 1, 2 or XL"),
    "FLUX, diffusers": (
        only("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"),
        "made for FLUX",
    ),
    "SD3": (
        only("lora_unet_joint_blocks_0_x.lora_down.weight", "lora_unet_joint_blocks_0_x.lora_up.weight"),
        "Stable Diffusion 3",
    ),
    "whole model": (only("model.diffusion_model.input_blocks.0.0.weight"), "a whole model"),
    "textual inversion": (only("emb_params"), "does not say which words it stands for"),
    "old textual inversion": (only("string_to_param", "name"), "textual inversion"),
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
    "alpha is zero": (with_parts(alpha=torch.tensor(0.0)), "alpha of .* is 0, but should be a number other than 0"),
    "alpha is huge": (with_parts(alpha=torch.tensor(1e30)), "at most 1e[+]06"),
    "alpha is a list": (with_parts(alpha=torch.ones(3)), "should be one number"),
    "alpha is a truth value": (with_parts(alpha=torch.tensor(True)), "keeps alpha of .* as BOOL"),
    "whole numbers": (with_parts(lora_down__weight=torch.ones(4, 16).to(torch.int8)), "as I8; weights must be float"),
    "truth values": (with_parts(lora_up__weight=torch.ones(16, 4).bool()), "as BOOL; weights must be float"),
    "rank above the layer's size": (
        with_parts(lora_down__weight=torch.ones(20, 16), lora_up__weight=torch.ones(16, 20)),
        "has rank 20 in .* room for 16 at most",
    ),
    "settings without end": (with_settings("[" * 100_000), "LoRA settings .* cannot be read"),
    "alpha is no table": (with_settings({"unet.alpha_pattern": [1]}), "alpha_pattern .* should be a table"),
    "alpha of zero in the settings": (with_settings({"unet.lora_alpha": 0}), "alpha is '0' in its LoRA settings"),
    "endless alpha in the settings": (with_settings('{"unet.lora_alpha": Infinity}'), "alpha is 'inf'"),
    "huge alpha in the settings": (with_settings('{"unet.lora_alpha": 1' + "0" * 999 + "}"), "alpha is '1000"),
    "alpha as a table": (with_settings({"unet.lora_alpha": {}}), "alpha is '{}'"),
    "alpha as a truth value": (with_settings({"unet.lora_alpha": True}), "alpha is 'True'"),
    "zero in the pattern": (with_settings({"unet.alpha_pattern": {PATH: 0}}), "alpha is '0'"),
    "alpha by a wild pattern": (
        lambda path: save_file(
            {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP},
            path,
            {peft_config.KEY: json.dumps({"unet.alpha_pattern": {"(?=a)": 1}})},
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
        read_style(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_header_shows_to_be_wrong_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "read_tensors", lambda *_, **__: pytest.fail("tensors were read"))
    for kind in ("rank above the layer's size", "whole numbers", "ranks differ", "alpha is no table"):
        make, sentence = BAD[kind]
        make(tmp_path / "bad.safetensors")
        with pytest.raises(AdapterFileError, match=sentence):
            read_style(tmp_path / "bad.safetensors")


@pytest.mark.model
def test_checking_a_large_layer_takes_less_memory_than_twice_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with_parts(
        lora_down__weight=torch.zeros(64, 400_000, dtype=torch.half), lora_up__weight=torch.zeros(64, 64).half()
    )(path)
    code = (
        "import resource, sys; from trainer.styles.read import read_style;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; read_style(sys.argv[1]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    kibibytes = int(done.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kibibytes * 1024 < 2 * path.stat().st_size


def test_pickles_are_refused_by_their_ending_too(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"whatever is in here")
    with pytest.raises(AdapterFileError, match=r"as \.safetensors"):
        read_style(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("width", "family"), [(768, "1"), (1024, "2"), (2048, "XL"), (192, None)])
def test_a_file_for_another_base_is_refused_with_both_shapes(
    make_unet: Any, tmp_path: Path, width: int, family: str | None
) -> None:
    path = PATH.replace("to_q", "to_k")
    write_style(
        tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(torch.randn(4, width), torch.randn(320, 4), 4)}
    )
    unet = make_unet()
    modules = dict(unet.named_modules())
    with pytest.raises(AdapterFileError) as caught:
        attach(Bank({"unet": unet}), "a", read_style(tmp_path / "a.safetensors"))
    made_for = f"made for Stable Diffusion {family}." if family else "text features of width 192."
    for part in (path, f"{width} to 320", "24 to 16", made_for):
        assert part in str(caught.value)
    assert dict(unet.named_modules()) == modules


def test_a_layer_that_the_base_lacks_is_named(make_unet: Any, tmp_path: Path) -> None:
    path = PATH.replace("down_blocks.0", "down_blocks.3")
    write_style(tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(DOWN, UP, 4)})
    names = [name for name, _ in make_unet().named_modules()]
    with pytest.raises(AdapterFileError, match="the base has no layer"):
        read_style(tmp_path / "a.safetensors", {"unet": names})
    with pytest.raises(AdapterFileError, match="the base has no layer"):
        attach(Bank({"unet": make_unet()}), "a", read_style(tmp_path / "a.safetensors"))


def test_an_sdxl_file_on_a_smaller_base_says_what_it_was_made_for(make_unet: Any, tmp_path: Path) -> None:
    stem = "lora_unet_input_blocks_7_1_transformer_blocks_5_attn2_to_k"
    parts = {f"{stem}.lora_down.weight": torch.randn(4, 2048), f"{stem}.lora_up.weight": torch.randn(1280, 4)}
    save_file(parts, tmp_path / "a.safetensors")
    names = [name for name, _ in make_unet().named_modules()]
    with pytest.raises(AdapterFileError, match=f"no layer {stem}. It seems to be made for Stable Diffusion XL."):
        read_style(tmp_path / "a.safetensors", {"unet": names})


def test_one_by_one_convolutions_and_linear_layers_stand_for_each_other(make_unet: Any, tmp_path: Path) -> None:
    path = "mid_block.attentions.0.proj_in"
    for linear in (False, True):
        unet = make_unet(use_linear_projection=linear)
        down, up = torch.randn(2, 32), torch.randn(32, 2)
        if linear:
            down, up = down[:, :, None, None], up[:, :, None, None]
        write_style(tmp_path / "a.safetensors", {f"unet.{path}": LayerWeights(down, up, 2)})
        bank = Bank({"unet": unet})
        attach(bank, "a", read_style(tmp_path / "a.safetensors"))
        assert bank.state_dict_of("a")[f"unet.{path}.down"].dim() == unet.get_submodule(path).weight.dim()


def test_a_whole_model_is_told_from_its_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only("model.diffusion_model.input_blocks.0.0.weight")(tmp_path / "a.safetensors")
    monkeypatch.setattr(read, "read_tensors", lambda *_: pytest.fail("tensors were read"))
    with pytest.raises(AdapterFileError, match="whole model"):
        read_style(tmp_path / "a.safetensors")


def test_light_modules_import_no_torch() -> None:
    modules = "trainer.adapters.targets, trainer.styles.metadata, trainer.styles.names"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
