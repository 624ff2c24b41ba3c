"""Models from the hub, by the real client from a hub on this machine: downloads, and each failure's sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_hub import Hub, running_hub
from model_hub import settings as hub_settings
from tiny_families import build, save_folder

REPO = "studio/tiny-sd"
# The client reads its address and cache folder once, at import, so each question is asked in a process of its own.
ASK = """
import json, sys
from trainer.bases.hub import fetch
from trainer.bases.describe import describe
from trainer.errors import BaseError

question, options = sys.argv[1], json.loads(sys.argv[2])
if question == "describe":
    print(json.dumps(describe(**options).to_dict()))
else:
    said = []
    try:
        fetched = fetch(**options, report=said.append)
        print(json.dumps({"folder": str(fetched.folder), "notes": fetched.notes, "said": said}))
    except BaseError as error:
        print(json.dumps({"problem": str(error)}))
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As repositories really are: every variant, pickles, pictures, other tools' files."""
    model = build("sd1")
    folder = save_folder(model, tmp_path_factory.mktemp("hub") / "model")
    save_folder(model, folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"big")
    (folder / "everything.ckpt").write_bytes(b"pickle")
    (folder / "README.md").write_text("A model.", encoding="utf-8")
    return folder


@pytest.fixture
def hub(model_folder: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.models[REPO] = model_folder
        yield hub


class Client:
    """Asks one hub, with one cache folder."""

    def __init__(self, address: str, cache: Path) -> None:
        self.cache = cache
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **hub_settings(address, cache),
        }

    def ask(self, question: str, **options: object) -> dict[str, Any]:
        command = [sys.executable, "-W", "ignore", "-c", ASK, question, json.dumps(options)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def fetch(self, repo: str = REPO, **options: object) -> dict[str, Any]:
        return self.ask("fetch", repo=repo, **options)


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub.address, tmp_path / "cache")


def test_only_what_loading_needs_is_downloaded_once_and_then_works_offline(hub: Hub, client: Client) -> None:
    looked = client.ask("describe", source=REPO)
    assert (looked["problem"], looked["kind"], looked["family"]) == (None, "hub", "sd1")
    assert looked["download_bytes"] > looked["size_bytes"] > 0
    assert not any(name.endswith(".safetensors") for name in hub.sent)

    got = client.fetch()
    weights = sorted(name.removeprefix(f"{REPO}/") for name in hub.sent if name.endswith(".safetensors"))
    assert weights == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert not any(name.endswith((".bin", ".ckpt", ".md")) for name in hub.sent)
    assert [sentence.split(":")[0] for sentence in got["said"]] == [f"Downloading {REPO!r}"]

    before = len(hub.sent)
    again = client.fetch()
    assert (again["folder"], again["said"], len(hub.sent)) == (got["folder"], [], before)
    assert client.fetch(offline=True)["folder"] == got["folder"]
    known = client.ask("describe", source=REPO, offline=True)
    assert (known["problem"], known["download_bytes"], known["size_bytes"]) == (None, 0, looked["size_bytes"])

    hub.failing = True
    without = client.fetch()
    assert without["folder"] == got["folder"]
    assert "did not answer" in without["notes"][0]


def test_a_named_variant_and_revision_are_respected(hub: Hub, client: Client) -> None:
    assert "no variant 'bf16'" in client.fetch(variant="bf16")["problem"]
    assert "has no revision 'v9'" in client.fetch(revision="v9")["problem"]
    assert "folder" in client.fetch(revision="main", variant="fp16")


def test_a_missing_or_private_model_is_said(client: Client) -> None:
    assert "There is no model 'studio/tiny-sdd'" in client.fetch("studio/tiny-sdd")["problem"]
    assert "There is no model" in client.ask("describe", source="studio/tiny-sdd")["problem"]


def test_a_gated_model_says_how_to_get_in(hub: Hub, client: Client) -> None:
    hub.gated.add(REPO)
    problem = client.fetch()["problem"]
    assert "is gated" in problem
    assert "hf auth login" in problem


def test_a_model_that_cannot_be_trained_is_refused_before_its_weights_are_downloaded(
    hub: Hub, client: Client, model_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(model_folder, tmp_path / "inpaint")
    index = copy / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8").replace("DiffusionPipeline", "DiffusionInpaintPipeline"))
    hub.models[REPO] = copy
    assert "is an inpainting model" in client.fetch()["problem"]
    assert not any(name.endswith(".safetensors") for name in hub.sent)


def test_a_repository_without_diffusers_layout_points_to_its_checkpoint(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "style_v3.safetensors").write_bytes(b"weights")
    hub.models["studio/one-file"] = tmp_path / "repo"
    assert "Download 'style_v3.safetensors' from it" in client.fetch("studio/one-file")["problem"]


def test_no_network_is_said(tmp_path: Path) -> None:
    client = Client("http://127.0.0.1:9", tmp_path / "cache")
    assert "cannot be reached" in client.fetch()["problem"]


def test_a_hub_in_trouble_is_said(hub: Hub, client: Client) -> None:
    hub.failing = True
    assert "error 500" in client.fetch()["problem"]


def test_half_a_download_is_said_offline_and_completed_online(client: Client) -> None:
    folder = Path(client.fetch()["folder"])
    part = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    part.resolve().unlink()
    part.unlink()
    problem = client.fetch(offline=True)["problem"]
    assert "Only a part of 'studio/tiny-sd' is on this machine" in problem
    assert "Go online and start again" in problem
    assert client.fetch()["folder"] == str(folder)
    assert part.is_file()


def test_a_model_that_was_never_downloaded_is_said_offline(client: Client) -> None:
    assert "stay offline" in client.fetch(offline=True)["problem"]
