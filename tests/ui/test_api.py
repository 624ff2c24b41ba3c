"""The API of the studio, used as a program uses it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from safetensors import safe_open
from waiting import until

from tests.ui.conftest import TINY_RUN, Served


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served.url, verbose=False)


def test_only_the_documented_calls_are_public(client: Client, repository: Path) -> None:
    described: dict[str, Any] = client.view_api(return_format="dict", print_info=False)  # type: ignore[assignment]
    public = set(described["named_endpoints"])
    documented = set(re.findall(r"^\| `(/\w+)`", (repository / "docs" / "api.md").read_text("utf-8"), re.MULTILINE))
    assert public == documented
    assert documented == {
        "/create_run", "/status", "/cancel", "/pause", "/resume", "/sample", "/list", "/download",
    }  # fmt: skip
    assert not described["unnamed_endpoints"]


def test_a_mistake_arrives_as_its_sentence(client: Client, pictures: list[Path]) -> None:
    with pytest.raises(AppError, match=r"adapter\.rank is 0"):
        client.predict(images=[handle_file(pictures[0])], settings={"adapter.rank": 0}, api_name="/create_run")
    with pytest.raises(AppError, match=r"nothing\.png"):
        client.predict(images=[handle_file(pictures[0])], captions={"nothing.png": "x"}, api_name="/create_run")
    with pytest.raises(AppError, match="brightness"):
        client.predict(prompt="a cat", settings={"brightness": 2}, api_name="/sample")
    with pytest.raises(AppError, match="layout"):
        client.predict(style="none", layout="pickle", api_name="/download")
    assert client.predict(api_name="/list") == {"runs": [], "styles": []}


def test_captions_come_from_files_or_from_the_call(client: Client, pictures: list[Path], tmp_path: Path) -> None:
    beside = tmp_path / "apple.txt"
    beside.write_text("a round apple", encoding="utf-8")
    made = client.predict(
        images=[handle_file(path) for path in (*pictures[:2], beside)],
        captions={"boat.png": "a boat at sea"},
        start=False,
        api_name="/create_run",
    )
    assert made["images"] == 2
    assert made["refused"] == []
    assert client.predict(run=made["run"], api_name="/status")["state"] == "draft"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_of_the_documentation_runs(
    client: Client, served: Served, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repository / "docs" / "api.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    source = program.group(1)
    for documented, here in (
        ("http://127.0.0.1:7860", served.url),
        ('"sample_data/', f'"{repository.as_posix()}/sample_data/'),
        ('{"train.preset": "quick"}', repr(TINY_RUN)),
        ("seed=7,", 'seed=7, settings={"steps": 2},'),
    ):
        assert documented in source
        source = source.replace(documented, here)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/api.md", "exec"), names)

    base, half, full = (Path(picture).read_bytes() for picture in names["pictures"])
    assert len({base, half, full}) == 3
    assert names["status"]["verified"]
    file = Path(client.predict(style=names["run"], api_name="/download"))
    assert file.name == "Bold_outlines.safetensors"
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["ss_output_name"] == "Bold outlines"
        assert all(name.startswith("lora_unet_") for name in opened.keys())  # noqa: SIM118
    other = Path(client.predict(style=names["run"], layout="diffusers", api_name="/download"))
    with safe_open(other, "pt") as opened:
        assert all(name.startswith("unet.") for name in opened.keys())  # noqa: SIM118


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_can_be_paused_resumed_and_cancelled(client: Client, pictures: list[Path]) -> None:
    settings = {**TINY_RUN, "train.steps": 2000, "samples.every": 2000}
    made = client.predict(
        images=[handle_file(path) for path in pictures[:3]], name="Long", settings=settings, api_name="/create_run"
    )

    def status() -> dict[str, Any]:
        answer: dict[str, Any] = client.predict(run=made["run"], api_name="/status")
        return answer

    until(lambda: status()["step"] > 2)
    client.predict(run=made["run"], api_name="/pause")
    until(lambda: status()["state"] == "paused")
    reached = status()["step"]
    client.predict(run=made["run"], api_name="/resume")
    until(lambda: status()["state"] == "training" and status()["step"] > reached)
    client.predict(run=made["run"], api_name="/cancel")
    until(lambda: status()["state"] == "cancelled")
