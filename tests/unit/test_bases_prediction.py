"""Prediction type and noise schedule: stated, marked, or asked of the model by one step on noise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_families import build, save_settings, save_single_file
from torch import Tensor, nn

from trainer.bases.base import Base
from trainer.bases.load import load_base
from trainer.bases.prediction import probe_prediction
from trainer.bases.probe import describe
from trainer.config import BaseConfig

CPU = torch.device("cpu")


@pytest.fixture
def bundled() -> Base:
    return load_base(BaseConfig(source="bundled"), device=CPU, dtype=torch.float32)


class AsVelocity(nn.Module):
    """An epsilon model that answers in v: v = sqrt(a) e - sqrt(1 - a) x0, with x0 from the same e."""

    def __init__(self, unet: Any, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.unet, self.alphas, self.config = unet, alphas_cumprod, unet.config

    def forward(self, sample: Tensor, timestep: int, **conditioning: Any) -> tuple[Tensor]:
        a = self.alphas[timestep].view(-1, 1, 1, 1)
        noise = self.unet(sample, timestep, **conditioning)[0]
        clean = (sample - (1 - a).sqrt() * noise) / a.sqrt()
        return (a.sqrt() * noise - (1 - a).sqrt() * clean,)


def test_a_trained_epsilon_model_is_recognised(bundled: Base) -> None:
    found = probe_prediction(bundled)
    assert found.prediction == "epsilon"
    assert found.correlation > 0.9


def test_the_same_model_speaking_in_v_is_recognised(bundled: Base) -> None:
    bundled.denoiser = AsVelocity(bundled.denoiser, bundled.process.alphas_cumprod)
    found = probe_prediction(bundled)
    assert found.prediction == "v_prediction"
    assert found.correlation < 0.3


def test_a_single_sd2_file_is_probed_and_the_answer_is_a_note(tmp_path: Path) -> None:
    model = build("sd2")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert base.prediction == probe_prediction(base).prediction
    assert any("set base.prediction" in note for note in base.notes)
    told = load_base(
        BaseConfig(source=str(path), config_folder=settings, prediction="v_prediction"), device=CPU, dtype=torch.float32
    )
    assert (told.prediction, told.notes) == ("v_prediction", [])


@pytest.mark.parametrize(
    "metadata",
    [{"modelspec.prediction_type": "v"}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}],
    ids=["prediction_type", "architecture"],
)
def test_what_the_files_metadata_say_is_believed(tmp_path: Path, metadata: dict[str, str]) -> None:
    model = build("sd2")
    path = save_single_file(model, tmp_path / "m.safetensors", metadata=metadata)
    info = describe(str(path))
    assert (info.prediction, info.prediction_sure, info.resolution) == ("v_prediction", True, 768)
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert (base.prediction, base.notes) == ("v_prediction", [])


def test_sdxl_markers_are_honoured(tmp_path: Path) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors", markers=("v_pred", "ztsnr"))
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert base.prediction == "v_prediction"
    assert float(base.process.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    for name in ("ddim", "euler", "dpm++_2m"):
        config: Any = base.process.sampler(name, 4).config
        assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
            "v_prediction",
            True,
            "trailing",
        )
    assert any("pure noise" in note for note in describe(str(path)).notes)


def test_an_unmarked_sdxl_file_is_epsilon_with_its_usual_schedule(tmp_path: Path) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert base.prediction == "epsilon"
    assert float(base.process.alphas_cumprod[-1]) == pytest.approx(0.0047, abs=1e-4)


class Overflowing(nn.Module):
    """A VAE whose arithmetic leaves fp16's range, as SDXL's first one does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 300.0, dtype=torch.float16))
        self.config = SimpleNamespace(get=lambda name, default=None: default, scaling_factor=1.0)
        self.device = CPU

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        big = latents * self.weight * self.weight
        return (big / 90_000.0,)


def test_a_picture_that_overflows_in_half_precision_is_drawn_again_in_fp32(bundled: Base) -> None:
    bundled.vae = Overflowing()
    picture = bundled.decode(torch.full((1, 3, 2, 2), 0.9))
    assert bundled.vae.dtype == torch.float32
    assert picture.unique().tolist() == [242]
