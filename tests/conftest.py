"""What every test shares: no network, no chatter, a studio folder of its own, few threads.

The environment is set when this file is read, before any test module can import torch or a
Hugging Face library, because those read it once at import; worker processes inherit it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from trainer.bases.base import Base

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["DIFFUSERS_VERBOSITY"] = "error"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The models in the tests are too small to feed many cores; more threads make them slower.
os.environ.setdefault("OMP_NUM_THREADS", "2")

# The same few examples every time; what a test makes in its folder may be made again.
settings.register_profile(
    "patina",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("patina")

REPOSITORY = Path(__file__).resolve().parents[1]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of the Chromium that browser tests drive, or None.

    ``PATINA_CHROMIUM`` names one explicitly; otherwise the usual names on PATH are tried.
    """
    for candidate in (os.environ.get("PATINA_CHROMIUM", ""), *CHROMIUM_NAMES):
        if candidate and (found := shutil.which(candidate)):
            return found
    return None


TAKES_LONGER = {
    *("base", "bank", "bundled", "config", "file_base", "folder_base", "forms", "materials", "model", "model_folder"),
    *("pipeline", "sd1_folder", "sd_pipeline", "sdxl_pipeline", "studio", "trainer", "unet"),
    *("locked", "served"),
}
"""Fixtures behind which a model is loaded or trained, or a studio is served."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tier (no browser, training, model or served studio), and give whole jobs more time."""
    for item in items:
        markers = {marker.name for marker in item.iter_markers()}
        fixtures = set(getattr(item, "fixturenames", ()))
        folders = set(item.path.relative_to(REPOSITORY).parts)
        if not (markers & {"slow", "browser", "gpu", "model"} or fixtures & TAKES_LONGER or "e2e" in folders):
            item.add_marker(pytest.mark.quick)
        if "e2e" in folders and "timeout" not in markers:
            # Whole trainings, on machines that may be busy with other tests.
            item.add_marker(pytest.mark.timeout(600))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what this machine cannot run, and say why; in CI a missing browser is a failure."""
    if item.get_closest_marker("browser") and find_chromium() is None:
        reason = "no Chromium on PATH (install it, or name one in PATINA_CHROMIUM)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the browser tests: {reason}", pytrace=False)
        pytest.skip(reason)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A studio folder for fixtures that outlive one test, so that none touches the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATINA_HOME", str(tmp_path_factory.mktemp("session-home")))
        yield


@pytest.fixture(autouse=True)
def patina_home(_session_home: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's own studio folder, outside ``tmp_path`` so that tests may list that freely."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PATINA_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds ``pyproject.toml``."""
    return REPOSITORY


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Files made once by other programs, or by earlier versions of this one."""
    return REPOSITORY / "tests" / "fixtures"


@pytest.fixture(scope="session")
def bundled_dir() -> Path:
    """The base model that ships with the package, in Stable Diffusion's folder layout."""
    return REPOSITORY / "trainer" / "bases" / "bundled"


@pytest.fixture(scope="session")
def sample_data_dir() -> Path:
    """The two sample styles of the repository."""
    return REPOSITORY / "sample_data"


@pytest.fixture(scope="session")
def base() -> Base:
    """The bundled base on the CPU, loaded once in a process; whoever puts a bank on it takes it off again."""
    import torch

    from trainer.bases.open import load_base
    from trainer.config import BaseConfig

    return load_base(BaseConfig(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser, for tests marked ``browser``."""
    found = find_chromium()
    assert found is not None, "mark the test with pytest.mark.browser"
    return found
