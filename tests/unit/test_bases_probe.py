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
from trainer.bases.describe import describe
from trainer.bases.open import load_base
from trainer.bases.probe import ScheduleProbe, probe_prediction, probe_schedule
from trainer.bases.process import Diffusion
from trainer.config import BaseConfig
from trainer.errors import BaseError

pytestmark = pytest.mark.model

CPU = torch.device("cpu")


@pytest.fixture
def bundled() -> Base:
    return load_base(BaseConfig(source="bundled"), device=CPU, dtype=torch.float32)


def signal_of(base: Base) -> Tensor:
    """The share of the signal at each timestep."""
    assert isinstance(base.process, Diffusion)
    return base.process.alphas_cumprod


class Otherwise(nn.Module):
    """A model that answers in the other way: in v what it knows as the noise, or the other way round."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.denoiser, self.config, self.prediction = base.denoiser, base.denoiser.config, base.prediction
        self.alphas = signal_of(base)

    def forward(self, sample: Tensor, timestep: Tensor, **conditioning: Any) -> tuple[Tensor]:
        a = self.alphas[timestep].view(-1, 1, 1, 1)
        answer = self.denoiser(sample, timestep, **conditioning)[0]
        if self.prediction == "v_prediction":
            return (a.sqrt() * answer + (1 - a).sqrt() * sample,)
        clean = (sample - (1 - a).sqrt() * answer) / a.sqrt()
        return (a.sqrt() * answer - (1 - a).sqrt() * clean,)


def test_a_trained_model_is_recognised_and_so_is_the_same_model_speaking_the_other_way(bundled: Base) -> None:
    as_trained = probe_prediction(bundled)
    bundled.denoiser = Otherwise(bundled)
    otherwise = probe_prediction(bundled)
    found = {probe.prediction: probe.correlation for probe in (as_trained, otherwise)}
    assert as_trained.prediction == bundled.prediction
    assert as_trained.doubt(bundled.prediction) is None
    assert "set base.prediction to" in str(otherwise.doubt(bundled.prediction))
    assert found["epsilon"] > 0.9
    assert found["v_prediction"] < 0.3


class EndsBefore(nn.Module):
    """The bundled base as one of the usual schedule: at its end it answers as where as much of the picture is left."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.denoiser, self.config = base.denoiser, base.denoiser.config
        usual = Diffusion({**base.process.config, "rescale_betas_zero_snr": False}, "v_prediction", CPU)  # type: ignore[attr-defined]
        self.timestep = int((signal_of(base) - usual.alphas_cumprod[-1]).abs().argmin())

    def forward(self, sample: Tensor, timestep: Tensor, **conditioning: Any) -> tuple[Tensor]:
        answer: tuple[Tensor] = self.denoiser(sample, torch.full_like(timestep, self.timestep), **conditioning)
        return answer


def test_a_schedule_that_ends_in_pure_noise_is_told_from_one_that_does_not(bundled: Base) -> None:
    to_the_end = probe_schedule(bundled)
    bundled.denoiser = EndsBefore(bundled)
    before = probe_schedule(bundled)
    assert to_the_end is not None
    assert before is not None
    assert to_the_end.doubt(zero_terminal_snr=True) is None
    assert "set base.zero_terminal_snr to true" in str(to_the_end.doubt(zero_terminal_snr=False))
    assert before.doubt(zero_terminal_snr=False) is None
    assert "set base.zero_terminal_snr to false" in str(before.doubt(zero_terminal_snr=True))
    assert ScheduleProbe(-0.45).doubt(zero_terminal_snr=True) is None
    assert ScheduleProbe(-0.45).doubt(zero_terminal_snr=False) is None


def test_a_schedule_that_the_base_does_not_answer_to_is_warned_of_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors", markers=("v_pred",))
    settings = str(save_settings(model, tmp_path / "settings"))
    monkeypatch.setattr("trainer.bases.probe._FOLLOWS", torch.inf)
    monkeypatch.setattr("trainer.bases.probe._STAYS", -torch.inf)
    for told, way_out in ((None, "to true"), (True, "to false")):
        config = BaseConfig(source=str(path), config_folder=settings, zero_terminal_snr=told)
        (warning,) = load_base(config, device=CPU, dtype=torch.float32).warnings
        assert f"set base.zero_terminal_snr {way_out}" in warning
    epsilon = BaseConfig(source=str(path), config_folder=settings, prediction="epsilon")
    assert not any("snr" in each for each in load_base(epsilon, device=CPU, dtype=torch.float32).warnings)


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
    assert float(signal_of(base)[-1]) == pytest.approx(0, abs=1e-6)
    for name in ("ddim", "euler", "dpm++_2m", "unipc"):
        config: Any = base.process.sampler(name, 4).config
        assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
            "v_prediction",
            True,
            "trailing",
        )
    assert any("pure noise" in note for note in describe(str(path)).notes)


def test_the_marker_of_a_rescaled_schedule_alone_tells_the_prediction_too(tmp_path: Path) -> None:
    path = save_single_file(build("sdxl"), tmp_path / "m.safetensors", markers=("ztsnr",))
    assert describe(str(path)).prediction == "v_prediction"


def test_prediction_and_schedule_can_be_chosen_where_the_file_does_not_say_them(tmp_path: Path) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    chosen = BaseConfig(source=str(path), config_folder=settings, prediction="v_prediction", zero_terminal_snr=True)
    base = load_base(chosen, device=CPU, dtype=torch.float32)
    assert (base.prediction, base.process.zero_terminal_snr) == ("v_prediction", True)
    assert float(signal_of(base)[-1]) == 0
    with pytest.raises(BaseError, match=r"set base\.prediction to v_prediction"):
        load_base(chosen.model_copy(update={"prediction": "epsilon"}), device=CPU, dtype=torch.float32)


def test_a_base_that_answers_otherwise_than_it_is_said_to_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    model = build("sd1")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert base.prediction == "epsilon"
    assert base.notes == []
    (note,) = base.warnings
    assert "does not give the noise back" in note
    assert "set base.prediction to v_prediction" in note


def test_clip_skip_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    config = BaseConfig(source=str(path), config_folder=settings, clip_skip=1)
    with pytest.raises(BaseError, match=r"set base\.clip_skip to 0"):
        load_base(config, device=CPU, dtype=torch.float32)


def test_an_unmarked_sdxl_file_is_epsilon_with_its_usual_schedule(tmp_path: Path) -> None:
    model = build("sdxl")
    path = save_single_file(model, tmp_path / "m.safetensors")
    settings = str(save_settings(model, tmp_path / "settings"))
    base = load_base(BaseConfig(source=str(path), config_folder=settings), device=CPU, dtype=torch.float32)
    assert base.prediction == "epsilon"
    assert float(signal_of(base)[-1]) == pytest.approx(0.0047, abs=1e-4)


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
