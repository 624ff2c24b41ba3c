"""What a user may type as base, and the sentence for everything that cannot be one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_families import build, original_tensors, save_folder, save_single_file

from trainer.bases.describe import describe
from trainer.bases.families import BUNDLED
from trainer.bases.folder import check_manifest
from trainer.bases.open import load_base
from trainer.bases.sources import BUNDLED_FOLDER, parse_source
from trainer.bases.weight_files import choose_weights
from trainer.config import BaseConfig
from trainer.config.schedulers import able
from trainer.errors import BaseError


def problem_of(source: Path | str) -> str:
    """The sentence, which looking at a base and loading it must share."""
    info = describe(str(source), offline=True)
    assert info.problem is not None
    with pytest.raises(BaseError) as caught:
        load_base(BaseConfig(source=str(source)), device=torch.device("cpu"), dtype=torch.float32, offline=True)
    assert str(caught.value) == info.problem
    return info.problem


def edit_json(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


@pytest.fixture(scope="module")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(build("sd1"), tmp_path_factory.mktemp("sd1") / "model")


@pytest.fixture
def folder(sd1_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sd1_folder, tmp_path / "model")


def test_each_kind_of_source_is_told(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.touch()
    assert parse_source("bundled").kind == "bundled"
    assert parse_source("owner/name-1.5_x").kind == "hub"
    assert parse_source(str(folder)).kind == "folder"
    assert parse_source(str(file)).kind == "file"


def test_a_name_with_a_nul_character_is_no_source() -> None:
    with pytest.raises(BaseError, match="is not known"):
        parse_source("bad\0name")


def test_a_path_that_exists_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse_source("owner/name").kind == "folder"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("bundle", "did you mean 'bundled'?"),
        ("dreamshaper", "write 'bundled', a Hugging Face id"),
        ("a b/c d", "is not known"),
        ("./nothing/here", "does not exist"),
        ("models\\sd.safetensors", "does not exist"),
        ("sd.safetensors", "does not exist"),
        ("x.ckpt", "does not exist"),
        ("https://example.org/owner/name/tree/main", "write the model's id alone, such as 'owner/name'"),
    ],
)
def test_what_cannot_be_a_base_is_said_in_a_sentence(typed: str, expected: str) -> None:
    assert expected in problem_of(typed)


def test_a_near_miss_of_a_file_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "dreamshaper_8.safetensors").touch()
    assert "Did you mean" in problem_of(tmp_path / "dreamshapr_8.safetensors")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"\x80\x02")
    assert "pickled checkpoint" in problem_of(path)
    assert ".safetensors" in problem_of(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.touch()
    assert "is no .safetensors file" in problem_of(path)


@pytest.mark.parametrize("content", [b"", b"\x01", b"hello world, no header", (10**15).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert re.search("is empty|is not a safetensors file, or only its beginning", problem_of(path))


def test_a_download_that_stopped_half_way_is_told_by_its_size(tmp_path: Path) -> None:
    path = save_single_file(build("sd1"), tmp_path / "model.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is cut short" in problem_of(path)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["lora_unet_down_blocks_0_attentions_0.lora_down.weight"], "is a style file (LoRA)"),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "is a style file (LoRA)"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet"),
        (["down_blocks.0.resnets.0.conv1.weight"], "one part of a diffusers model"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "is a Stable Diffusion 3 model"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is a Flux model"),
        (["conditioner.embedders.0.model.ln_final.weight"], "is the SDXL refiner"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "has no text encoder inside"),
        (["something.else"], "is no checkpoint that Patina knows"),
    ],
)
def test_files_that_are_mistaken_for_a_base_are_named(tmp_path: Path, keys: list[str], expected: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(2, 2) for key in keys}, path)
    assert expected in problem_of(path)


def test_an_inpainting_checkpoint_is_refused(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in original_tensors(build("sd1")).items()}
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, 9, 3, 3)
    save_file(tensors, tmp_path / "inpaint.safetensors")
    assert "is an inpainting model" in problem_of(tmp_path / "inpaint.safetensors")


def test_a_checkpoint_without_its_vae_is_refused(tmp_path: Path) -> None:
    tensors = {
        name: tensor.contiguous()
        for name, tensor in original_tensors(build("sd1")).items()
        if not name.startswith("first_stage_model.")
    }
    save_file(tensors, tmp_path / "no_vae.safetensors")
    assert "has no VAE inside" in problem_of(tmp_path / "no_vae.safetensors")


def test_text_encoder_names_of_old_merges_are_read(tmp_path: Path) -> None:
    model = build("sd1")
    old = {n.replace("transformer.text_model.", "transformer."): t for n, t in original_tensors(model).items()}
    save_file({name: tensor.contiguous() for name, tensor in old.items()}, tmp_path / "old.safetensors")
    from tiny_families import save_settings

    settings = save_settings(model, tmp_path / "settings")
    config = BaseConfig(source=str(tmp_path / "old.safetensors"), config_folder=str(settings))
    base = load_base(config, device=torch.device("cpu"), dtype=torch.float32)
    ours = base.text_encoders["te"].state_dict()
    assert all(torch.equal(ours[name], t) for name, t in model.text_encoders["text_encoder"].state_dict().items())


def test_a_folder_without_model_index_points_to_the_checkpoint_in_it(tmp_path: Path) -> None:
    assert "has no model_index.json" in problem_of(tmp_path)
    (tmp_path / "sd.safetensors").touch()
    assert f"Did you mean {str(tmp_path / 'sd.safetensors')!r}?" in problem_of(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("StableDiffusionInpaintPipeline", "is an inpainting model"),
        ("StableDiffusionXLImg2ImgPipeline", "is a StableDiffusionXLImg2ImgPipeline"),
        ("FluxPipeline", "is a FluxPipeline"),
    ],
)
def test_other_pipelines_are_refused(folder: Path, pipeline: str, expected: str) -> None:
    edit_json(folder / "model_index.json", _class_name=pipeline)
    assert expected in problem_of(folder)


def test_the_refiners_folder_is_refused(folder: Path) -> None:
    edit_json(
        folder / "model_index.json",
        _class_name="StableDiffusionXLImg2ImgPipeline",
        text_encoder=[None, None],
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
    )
    assert "is the SDXL refiner" in problem_of(folder)


def test_a_folder_with_nine_input_channels_is_an_inpainting_model(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", in_channels=9)
    assert "is an inpainting model" in problem_of(folder)


def test_a_prediction_type_that_cannot_be_trained_is_refused(folder: Path) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "predicts 'sample'" in problem_of(folder)


def test_a_folder_with_only_pickled_weights_is_refused(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "offers its unet only as a pickle" in problem_of(folder)


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "has no weights for its vae" in problem_of(folder)
    shutil.rmtree(folder / "scheduler")
    assert "scheduler_config.json is missing" in problem_of(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("{", encoding="utf-8")
    assert "config.json is no readable JSON file" in problem_of(folder)


def test_a_variant_that_is_not_there_is_said_with_those_that_are(folder: Path) -> None:
    config = BaseConfig(source=str(folder), variant="fp16")
    with pytest.raises(BaseError, match=r"no variant 'fp16' of its unet; base\.variant can be 'none'"):
        load_base(config, device=torch.device("cpu"), dtype=torch.float32)


def test_split_weights_count_only_when_complete() -> None:
    names = [
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    with pytest.raises(BaseError, match="no weights for its unet"):
        choose_weights(names, "unet", None, "x")
    names.append("unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors")
    chosen = choose_weights(names, "unet", None, "x")
    assert (chosen.variant, len(chosen.files), chosen.index) == ("fp16", 2, names[1])


def test_split_weights_are_read(folder: Path) -> None:
    from diffusers import UNet2DConditionModel

    whole = load_base(BaseConfig(source=str(folder)), device=torch.device("cpu"), dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    split = load_base(BaseConfig(source=str(folder)), device=torch.device("cpu"), dtype=torch.float32)
    assert split.identity == whole.identity


def test_the_bundled_base_names_what_it_draws_well_and_shows_styles_on_that() -> None:
    info = describe("bundled")
    assert info.zero_snr
    assert len(info.subjects) == 297
    assert set(BUNDLED.prompts) <= set(info.subjects)


@pytest.mark.parametrize(
    ("content", "subjects"),
    [('["fox", 3, "owl"]', ("fox", "owl")), ('{"fox": 1}', ()), ("no JSON", ()), (None, ())],
)
def test_a_folder_may_list_what_it_draws_well(folder: Path, content: str | None, subjects: tuple[str, ...]) -> None:
    if content is not None:
        (folder / "subjects.json").write_text(content, encoding="utf-8")
    assert describe(str(folder), offline=True).subjects == subjects


def test_a_base_that_ends_in_pure_noise_says_so_and_which_schedulers_are_left(folder: Path) -> None:
    assert not describe(str(folder), offline=True).zero_snr
    edit_json(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    assert describe(str(folder), offline=True).zero_snr
    assert set(able(zero_terminal_snr=False)) - set(able(zero_terminal_snr=True)) == {"dpm++_2m_karras", "pndm"}


def test_the_bundled_base_is_as_it_was_sealed() -> None:
    check_manifest(BUNDLED_FOLDER)
    assert describe("bundled").problem is None


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_changed_bundled_base_is_noticed(tmp_path: Path, change: str) -> None:
    copy = shutil.copytree(BUNDLED_FOLDER, tmp_path / "bundled")
    victim = copy / "unet" / "config.json"
    if change == "gone":
        victim.unlink()
    else:
        victim.write_text(victim.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(BaseError, match=r"unet.config\.json of the bundled base (was changed|is missing)"):
        check_manifest(copy)


def test_looking_at_a_base_imports_no_model_library(sd1_folder: Path) -> None:
    program = (
        "import sys; from trainer.bases.describe import describe; "
        f"assert describe({str(sd1_folder)!r}).problem is None; describe('bundled'); "
        "print(sorted({'torch', 'diffusers', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_loading_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str], sd1_folder: Path) -> None:
    load_base(BaseConfig(source=str(sd1_folder)), device=torch.device("cpu"), dtype=torch.float32)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_clips_vocabulary_is_complete(tmp_path: Path) -> None:
    """Token numbers of the public model, for a text that every CLIP example uses."""
    from transformers import CLIPTokenizer

    from trainer.bases.single_file import CLIP_TOKENIZER

    tokenizer = CLIPTokenizer.from_pretrained(CLIP_TOKENIZER, local_files_only=True)
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


# Numbers of weights of the public models: UNet, VAE, text encoders.
PUBLIC_SIZES = {
    "sd1": (859_520_964, 83_653_863, 123_060_480),
    "sd2": (865_910_724, 83_653_863, 340_387_840),
    "sd2_v": (865_910_724, 83_653_863, 340_387_840),
    "sdxl": (2_567_463_684, 83_653_863, 123_060_480 + 694_659_840),
}


@pytest.mark.parametrize("key", PUBLIC_SIZES)
def test_shipped_configurations_have_the_public_models_sizes(key: str) -> None:
    """Counted on the meta device, without making the weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from trainer.bases.detect import read_json
    from trainer.bases.single_file import CONFIGS

    def settings(part: str) -> dict[str, object]:
        return read_json(CONFIGS / key / part / "config.json")

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(settings("unet"))
        vae = AutoencoderKL.from_config(settings("vae"))
        encoders = [CLIPTextModel(CLIPTextConfig(**settings("text_encoder")))]
        if key == "sdxl":
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**settings("text_encoder_2"))))
    counts = [sum(p.numel() for m in modules for p in m.parameters()) for modules in ([unet], [vae], encoders)]
    assert tuple(counts) == PUBLIC_SIZES[key]
