"""The whole job on a tiny model of each family: told, loaded, trained, paused, resumed, exported, reloaded, drawn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from tiny_families import FAMILIES, build, save_folder, save_settings, save_single_file
from typer.testing import CliRunner

from trainer.adapters.bank import Bank
from trainer.bases.open import load_base
from trainer.config import BaseConfig, parse
from trainer.events import Event, Finished, Notice, Phase, Planned
from trainer.preview.generate import generate
from trainer.preview.order import PreviewRow, PreviewSettings
from trainer.styles.fit import attach
from trainer.styles.read import read_style
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder

ARCHITECTURES = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-512/lora",
    "sd2_v": "stable-diffusion-v2-768-v/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
}
VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sd2_v": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}


@dataclass(frozen=True)
class Forms:
    """One tiny model as a folder, and as a single file with its settings."""

    key: str
    folder: Path
    file: Path
    settings: Path

    @property
    def single(self) -> dict[str, Any]:
        """As a user opens it; the one that predicts v on a schedule that ends in pure noise."""
        chosen = {"prediction": "v_prediction", "zero_terminal_snr": True} if self.key == "sd2_v" else {}
        return {"source": str(self.file), "config_folder": str(self.settings), "prediction": "epsilon", **chosen}


@pytest.fixture(scope="module", params=FAMILIES)
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return forms_of(request.param, tmp_path_factory.mktemp(request.param))


def forms_of(key: str, place: Path) -> Forms:
    model = build(key)
    return Forms(
        key,
        save_folder(model, place / "folder"),
        save_single_file(model, place / "model.safetensors"),
        save_settings(model, place / "settings"),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(4):
        picture = Image.new("RGB", (80 + 16 * (index % 2), 80), "white")
        ImageDraw.Draw(picture).ellipse((10, 12 + 5 * index, 70, 60), outline="black", width=4)
        picture.save(folder / f"shape-{index}.png")
        (folder / f"shape-{index}.txt").write_text(f"round shape number {index}", encoding="utf-8")
    return folder


def settings_of(base: dict[str, Any], images: Path) -> dict[str, Any]:
    return {
        "name": "ink",
        "trigger": "ink style",
        "base": base,
        "data": {"images": str(images), "buckets": False},
        "adapter": {"rank": 2},
        "optim": {"batch_size": 2, "warmup_steps": 0, "learning_rate": 1e-3},
        "train": {"steps": 4, "threads": 1, "checkpoint_every": 2},
        "samples": {"prompts": ["a fox"], "steps": 1, "every": 0},
    }


class PauseAt:
    """Pauses a training when it stands at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def between_steps(self, session: Session) -> Signal:
        return Signal.PAUSE if session.step >= self.step else Signal.GO


@pytest.fixture(scope="module")
def finished(forms: Forms, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[Event]]:
    """Trained from the single file, without a break."""
    events: list[Event] = []
    folder = create(parse(settings_of(forms.single, images)), tmp_path_factory.mktemp("run") / "whole")
    outcome = train(folder, emit=events.append, control=Uncontrolled())
    assert outcome.state == "finished"
    return folder, events


def test_the_run_ends_with_a_verified_file_that_says_what_it_fits(
    forms: Forms, finished: tuple[RunFolder, list[Event]]
) -> None:
    folder, events = finished
    ended = next(event for event in events if isinstance(event, Finished))
    assert any(tick.startswith("same picture") for tick in ended.verified)
    file = read_style(folder.adapter_file)
    assert file.metadata["modelspec.architecture"] == ARCHITECTURES[forms.key]
    assert file.metadata["ss_base_model_version"] == VERSIONS[forms.key]
    base = load_base(BaseConfig(source=str(forms.folder)), device=torch.device("cpu"), dtype=torch.float32)
    assert file.metadata["patina.base_sha256"] == base.identity
    assert any(float(layer.up.abs().max()) > 0 for layer in file.layers.values())
    assert file.layout == ("kohya, original names" if forms.key == "sdxl" else "kohya")
    assert file.metadata["ss_v2"] == str(forms.key.startswith("sd2"))
    said = [file.metadata[f"ss_{name}"] for name in ("v_parameterization", "zero_terminal_snr")]
    assert said == [str(forms.key == "sd2_v")] * 2
    assert file.metadata["modelspec.prediction_type"] == ("v" if forms.key == "sd2_v" else "epsilon")
    whole = hashlib.sha256(forms.file.read_bytes()).hexdigest()
    assert (file.metadata["ss_sd_model_name"], file.metadata["ss_new_sd_model_hash"]) == ("model.safetensors", whole)
    assert len(file.metadata["ss_sd_model_hash"]) == 8
    assert not [key for key, value in file.metadata.items() if str(forms.file.parent) in value]


@pytest.mark.parametrize("forms", ["sdxl"], indirect=True, scope="module")
def test_a_run_that_was_paused_and_resumed_ends_with_the_same_bytes(
    forms: Forms, images: Path, finished: tuple[RunFolder, list[Event]], tmp_path: Path
) -> None:
    folder = create(parse(settings_of(forms.single, images)), tmp_path / "broken")
    first = train(folder, emit=lambda event: None, control=PauseAt(2))
    assert (first.state, first.step) == ("paused", 2)
    assert train(folder, emit=lambda event: None, control=Uncontrolled()).state == "finished"
    whole, broken = read_style(finished[0].adapter_file), read_style(folder.adapter_file)
    assert broken.metadata["sshs_model_hash"] == whole.metadata["sshs_model_hash"]


class Seen(Exception):
    """The base is open, and what there is to say of it was said."""


def test_what_a_base_says_of_its_prediction_is_doubted_before_anything_is_prepared(
    images: Path, tmp_path: Path
) -> None:
    model = build("sdxl")
    settings = str(save_settings(model, tmp_path / "settings"))

    def warnings_of(name: str, *markers: str) -> list[str]:
        file = save_single_file(model, tmp_path / f"{name}.safetensors", markers=markers)
        said: list[str] = []

        def emit(event: Event) -> None:
            if isinstance(event, Notice) and event.level == "warning":
                said.append(event.text)
            if isinstance(event, Phase) and event.name == "reading":
                raise Seen

        base = {"source": str(file), "config_folder": settings}
        with pytest.raises(Seen):
            train(create(parse(settings_of(base, images)), tmp_path / name), emit=emit, control=Uncontrolled())
        return said

    assert warnings_of("marked", "v_pred", "ztsnr") == []
    # The same weights without their markers are taken for a model that predicts the noise, as most are.
    (doubt,) = warnings_of("unmarked")
    assert "set base.prediction to v_prediction" in doubt


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two pictures, whose values lie between 0 and 1."""
    return float((one - other).abs().max())


def test_the_file_changes_the_picture_that_diffusers_draws_from_the_folder(
    forms: Forms, finished: tuple[RunFolder, list[Event]]
) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(forms.folder, local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        options = {"num_inference_steps": 1, "height": 64, "width": 64, "output_type": "pt", "generator": generator}
        picture: torch.Tensor = pipeline("a fox, ink style", **options).images
        return picture

    # diffusers promises no bits from one call to the next, and some processors' matrix products give other ones.
    plain, again = draw(), draw()
    path = finished[0].adapter_file
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    styled = draw()
    assert torch.isfinite(styled).all()
    noise = max(apart(plain, again), 1e-6)
    assert apart(plain, styled) > 20 * noise
    pipeline.unload_lora_weights()
    assert apart(plain, draw()) < apart(plain, styled) / 10


def test_a_preview_on_the_folder_shows_the_style_and_strength_0_is_the_base(
    forms: Forms, finished: tuple[RunFolder, list[Event]]
) -> None:
    base = load_base(BaseConfig(source=str(forms.folder)), device=torch.device("cpu"), dtype=torch.float32)
    settings = PreviewSettings(steps=2, scheduler="euler")
    bare = Bank(base.roots)
    [plain] = generate(base, bare, [PreviewRow(prompt="a fox", seed=1)], settings, max_batch=1)
    bare.detach()
    bank = Bank(base.roots)
    attach(bank, "ink", read_style(finished[0].adapter_file))
    rows = [PreviewRow(prompt="a fox", seed=1, strengths=(strength,)) for strength in (0.0, 3.0)]
    zero, strong = generate(base, bank, rows, settings, max_batch=1)
    assert zero.tobytes() == plain.tobytes()
    assert strong.tobytes() != plain.tobytes()


def test_the_command_line_trains_on_a_single_file(images: Path, tmp_path: Path) -> None:
    from trainer.cli import app

    single = forms_of("sd2_v", tmp_path / "forms").single
    command = ["train", str(images), "--base", single["source"], "--prediction", single["prediction"], "--json"]
    command += ["--steps", "2", "--rank", "2", "--batch-size", "2", "--prompt", "a fox", "--sample-every", "0"]
    command += ["--out", str(tmp_path / "run")]
    for setting in (f"base.config_folder='{single['config_folder']}'", "train.threads=1", "samples.steps=1"):
        command += ["--set", setting]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "finished"
    metadata = read_style(RunFolder(tmp_path / "run").adapter_file).metadata
    assert metadata["modelspec.architecture"] == ARCHITECTURES["sd2_v"]
    assert metadata["modelspec.prediction_type"].startswith("v")


def test_the_plan_names_the_base_and_its_size(forms: Forms, finished: tuple[RunFolder, list[Event]]) -> None:
    plan = next(event for event in finished[1] if isinstance(event, Planned))
    assert plan.resolution == 64
    assert plan.base.startswith("model.safetensors (Stable Diffusion")
