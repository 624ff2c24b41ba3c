"""What is published of a style: everything that a site wants, nothing that is private, and only when it is wanted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image, PngImagePlugin
from publish_hub import TOKEN, problems_of, running_hub
from safetensors.torch import save_file
from typer.testing import CliRunner

from trainer.adapters.weights import LayerWeights
from trainer.cli import app
from trainer.config import RunConfig
from trainer.errors import AdapterFileError, PublishError, RunError
from trainer.events import Finished, Sampled
from trainer.publishing.card import card, license_of
from trainer.publishing.parcel import Choices, pack
from trainer.publishing.push import check_repo
from trainer.publishing.subject import Subject, of_file, of_run
from trainer.safetensors_file import read_header
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.privacy import public_metadata
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.training.run_folder import RunFolder

HOME = "/home/anna"
SECRETS = ("anna", "grandmother", "holiday.jpg", "my pictures")
PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
runner = CliRunner()


def written_style(path: Path, **metadata: str) -> Path:
    layers = {f"unet.{PATH}": LayerWeights(torch.ones(2, 16), torch.ones(16, 2), 2.0)}
    write_style(path, layers, metadata={key.replace("__", "."): value for key, value in metadata.items()})
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run as training leaves it, of a base that was opened from a hub id."""
    folder = RunFolder(tmp_path / "run")
    config = RunConfig.model_validate(
        {
            "name": "Ink & wash",
            "trigger": "ink style",
            "base": {"source": "someone/some-base"},
            "data": {"images": f"{HOME}/my pictures/ink"},
            "export": {"license": "CC BY 4.0", "author": "A. N."},
        }
    )
    folder.write_config(config)
    written_style(
        folder.adapter_file,
        ss_output_name="Ink & wash",
        ss_sd_model_name=f"{HOME}/models/secret.safetensors",
        ss_tag_frequency=json.dumps({"my pictures": {"grandmother": 3}}),
        ss_dataset_dirs=json.dumps({"my pictures": {"img_count": 3}}),
        ss_steps="300",
        ss_num_train_images="12",
        modelspec__trigger_phrase="ink style",
        modelspec__license="CC BY 4.0",
        modelspec__author="A. N.",
        patina__family="sd1",
        patina__config=json.dumps({"base": {"source": f"{HOME}/b.safetensors"}, "steps": 3, "file": "C:\\anna\\x.png"}),
    )
    for step in (100, 200, 300):
        for index in range(2):
            name = f"samples/{step:06d}-{index}.png"
            text = PngImagePlugin.PngInfo()
            text.add_text("parameters", f"a cat, ink style\nSteps: 20, Seed: {index}")
            (folder.path / "samples").mkdir(exist_ok=True)
            Image.new("RGB", (96, 64), (step // 2, 0, 0)).save(folder.path / name, pnginfo=text)
            folder.append(Sampled(step=step, index=index, prompt=f"a cat {index}, ink style", path=name))
    Image.new("RGB", (64, 64)).save(folder.sheet_file)
    folder.append(
        Finished(step=300, adapter="a", sheet="s", verified=(), seconds=1.0, picked_step=200, picked_strength=0.75)
    )
    folder.judgement_file.write_text(
        json.dumps({"candidates": [], "step": 200, "strength": 0.75, "confidence": 1, "sentence": "like holiday.jpg"})
    )
    (folder.path / "dataset.json").write_text('{"examples": ["holiday.jpg", "grandmother"]}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_sites_and_tools_want_is_there(run: RunFolder, tmp_path: Path) -> None:
    parcel = pack(of_run(run), tmp_path / "out")
    assert list(parcel.files) == [
        "Ink_wash.safetensors",
        "Ink_wash.json",
        "Ink_wash.png",
        "README.md",
        "config.toml",
        "samples/000.png",
        "samples/001.png",
        "samples/sheet.png",
    ]
    assert parcel.files == {name: len(data) for name, data in contents(tmp_path / "out").items()}
    said = json.loads((tmp_path / "out" / "Ink_wash.json").read_text())
    assert said["activation text"] == "ink style"
    assert said["preferred weight"] == 0.75, "what judging picked"
    assert said["sd version"] == "SD1"
    with Image.open(tmp_path / "out" / "samples" / "001.png") as picture:
        assert picture.text["parameters"].endswith("Seed: 1")  # type: ignore[attr-defined]
        assert picture.getpixel((0, 0)) == (100, 0, 0), "of the step whose weights the file holds"
    style = tmp_path / "out" / "Ink_wash.safetensors"
    assert sshs_model_hash(style) == sshs_model_hash(run.adapter_file)
    assert read_style(style).metadata["ss_sd_model_name"] == "someone/some-base"
    assert read_style(style).metadata["ss_steps"] == "300"


def test_nothing_private_is_published_unless_it_is_asked_for(run: RunFolder, tmp_path: Path) -> None:
    pack(of_run(run), tmp_path / "out")
    for name, data in contents(tmp_path / "out").items():
        for secret in SECRETS:
            assert secret.encode() not in data, (name, secret)
    parcel = pack(of_run(run), tmp_path / "kept", Choices(keep_private=True))
    kept = contents(tmp_path / "kept")
    assert b"grandmother" in kept["Ink_wash.safetensors"]
    assert b"my pictures" in kept["config.toml"]
    assert not any("private" in note for note in parcel.notes)


def test_paths_are_cut_and_everything_else_is_left_as_it_is() -> None:
    metadata = {
        "a": "/home/anna/x y/model.safetensors",
        "b": "D:\\anna\\model.ckpt",
        "c": "someone/some-base",
        "d": "a cat / a dog, and/or both",
        "e": json.dumps({"f": ["~/anna/b", 3, "plain"]}),
        "g": "data:image/jpeg;base64,/9j/4AAQ/x/y",
        "h": f"trained in {Path.home()}/runs today",
        "i": "(512, 512)",
        "j": "models/anna/base",
        "modelspec.thumbnail": "data:image/jpeg;base64,/9j/4AAQ",
        "ss_tag_frequency": "{}",
    }
    assert public_metadata(metadata) == {
        "a": "model.safetensors",
        "b": "model.ckpt",
        "c": "someone/some-base",
        "d": "a cat / a dog, and/or both",
        "e": json.dumps({"f": ["b", 3, "plain"]}),
        "g": "data:image/jpeg;base64,/9j/4AAQ/x/y",
        "h": "trained in ~/runs today",
        "i": "(512, 512)",
        "j": "base",
        "modelspec.thumbnail": "data:image/jpeg;base64,/9j/4AAQ",
    }


def test_the_card_is_one_that_the_hub_takes(run: RunFolder, tmp_path: Path) -> None:
    pack(of_run(run), tmp_path / "out", Choices(repo="me/ink"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert problems_of(text) == []
    data = ModelCard(text).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["library_name"] == "diffusers"
    assert data["base_model"] == "someone/some-base"
    assert data["instance_prompt"] == "ink style"
    assert data["widget"][0] == {"text": "a cat 0, ink style", "output": {"url": "samples/000.png"}}
    assert {"lora", "stable-diffusion", "text-to-image"} <= set(data["tags"])
    assert "<Gallery />" in text
    assert "# Ink &amp; wash" in text
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(snippet, "README.md", "exec")
    assert "load_lora_weights('me/ink', weight_name='Ink_wash.safetensors'" in snippet
    assert "set_adapters('style', 0.75)" in snippet


@pytest.mark.parametrize("names", [["emb_params"], ["clip_l", "clip_g"]])
def test_the_card_of_an_embedding_shows_how_words_are_loaded(names: list[str], tmp_path: Path) -> None:
    family = "sd1" if len(names) == 1 else "sdxl"
    save_file({name: torch.ones(2, 8) for name in names}, tmp_path / "ink.safetensors", {"patina.family": family})
    subject = Subject(read_header(tmp_path / "ink.safetensors", AdapterFileError), "ink", "ink style", family)
    text = card(subject, [], file="ink.safetensors", repo="me/ink")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(snippet, "README.md", "exec")
    assert snippet.count("load_textual_inversion(") == len(names)
    assert "pipeline('a cat, <ink>')" in snippet
    assert "textual_inversion" in ModelCard(text).data.tags
    assert "folder for embeddings, where `ink` stands in prompts for `ink style`" in text


def test_what_somebody_wrote_cannot_break_the_card(tmp_path: Path) -> None:
    nasty = '"]\n---\n<script>alert(1)</script> `x` | # *bold*'
    style = written_style(
        tmp_path / "a.safetensors", modelspec__trigger_phrase=nasty, modelspec__license="My own; ask!", ss_steps=nasty
    )
    subject = of_file(style, "<b>a</b>")
    text = card(subject, [("a.png", nasty)], file="a.safetensors")
    assert problems_of(text) == []
    body = re.sub(r"```.*?```|`[^`\n]*`", "", text.split("\n---\n\n", 1)[1], flags=re.DOTALL)
    assert "<script>" not in body
    assert "<b>" not in body
    assert "\n---\n" not in body
    data = ModelCard(text).data.to_dict()
    assert data["instance_prompt"] == data["widget"][0]["text"] == nasty
    assert data["license"] == "other"
    assert "base_model" not in data


def test_a_base_that_is_a_path_is_never_named(run: RunFolder, tmp_path: Path) -> None:
    config = run.config()
    config.base.source = f"{HOME}/models/v1-5.safetensors"
    run.write_config(config)
    parcel = pack(of_run(run), tmp_path / "out")
    assert "base_model" not in (tmp_path / "out" / "README.md").read_text()
    assert any("give its id" in note for note in parcel.notes)
    assert b"anna" not in b"".join(contents(tmp_path / "out").values())
    pack(of_run(run), tmp_path / "named", Choices(base="someone/v1-5"))
    assert "base_model: someone/v1-5" in (tmp_path / "named" / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", {}),
        ("CC0-1.0", {"license": "cc0-1.0"}),
        ("Apache 2.0", {"license": "apache-2.0"}),
        ("Do as you like", {"license": "other", "license_name": "do-as-you-like"}),
    ],
)
def test_a_licence_is_named_as_the_hub_names_it(text: str, said: dict[str, str]) -> None:
    assert license_of(text) == said


def test_what_cannot_be_published_is_said(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(PublishError, match="not empty"):
        pack(of_run(run), tmp_path / "full")
    for wrong in ("ink", "a/b/c", "a b/c", "/x"):
        with pytest.raises(PublishError, match="USER/NAME"):
            check_repo(wrong)
    run.adapter_file.unlink()
    with pytest.raises(RunError, match="has no style yet"):
        of_run(run)


# ---- the command


def test_a_zip_and_a_folder_hold_the_same(run: RunFolder, tmp_path: Path) -> None:
    done = runner.invoke(
        app, ["publish", str(run.path), "--zip", str(tmp_path / "ink.zip"), "--folder", str(tmp_path / "ink")]
    )
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(tmp_path / "ink.zip") as archive:
        packed = {name.removeprefix("ink/"): archive.read(name) for name in archive.namelist()}
    assert packed == contents(tmp_path / "ink")
    assert "because it is private: patina.config, ss_dataset_dirs" in done.output


def test_a_style_file_is_published_in_another_layout(tmp_path: Path) -> None:
    style = written_style(tmp_path / "ink.safetensors", patina__family="sd1")
    out = tmp_path / "out"
    done = runner.invoke(app, ["publish", str(style), "--folder", str(out), "--format", "diffusers"])
    assert done.exit_code == 0, done.output
    assert read_style(out / "ink.safetensors").layout == "diffusers"
    assert "No licence is named" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say where it goes"),
        (["--to", "ink"], "should be USER/NAME"),
        (["--zip", "ink.tar"], "should end in .zip"),
        (["--zip", "a.zip", "--private-info", "some"], "should be strip or keep"),
        (["--zip", "a.zip", "--base-model", "/models/x.safetensors"], "does not exist"),
    ],
)
def test_a_wrong_wish_is_said_before_anything_is_written(run: RunFolder, arguments: list[str], said: str) -> None:
    done = runner.invoke(app, ["publish", str(run.path), *arguments])
    assert done.exit_code == 2
    assert said in done.output


def send(run: RunFolder, address: str, tmp_path: Path, *more: str, token: str = TOKEN, answer: str = "") -> Any:
    """Run the command as a process of its own: the hub's client reads its address once, at import."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")} | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-m", "trainer", "publish", str(run.path), "--to", "me/ink", *more]
    return subprocess.run(command, env=environment, input=answer, capture_output=True, text=True, timeout=120)


def test_a_push_sends_what_was_shown_and_only_when_it_is_agreed_to(run: RunFolder, tmp_path: Path) -> None:
    with running_hub() as hub:
        done = send(run, hub.address, tmp_path, answer="n\n")
        assert (done.returncode, hub.repos, hub.asked) == (0, {}, [])
        assert "Send these 8 files" in done.stderr
        assert "Nothing was sent." in done.stderr

        done = send(run, hub.address, tmp_path, "--private", answer="y\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("/me/ink")
        assert hub.repos["me/ink"]["visibility"] == "private"
        expected = pack(of_run(run), tmp_path / "out", Choices(repo="me/ink"))
        sent = dict(hub.files["me/ink"])
        sent.pop(".gitattributes", None)
        assert sent == contents(expected.folder)
        assert ("POST", "/api/validate-yaml") in hub.asked

        done = send(run, hub.address, tmp_path, "--yes", token="hf_wrong")
        assert done.returncode == 2
        assert "does not let you write to 'me/ink'" in done.stderr
    done = send(run, hub.address, tmp_path, "--yes")
    assert done.returncode == 2, "the hub is gone"
    assert "cannot be reached" in done.stderr
