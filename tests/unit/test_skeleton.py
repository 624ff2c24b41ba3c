"""The project's frame: pins that satisfy what the package asks for, and a start script that mends itself.

The start script runs against a Python that is a shell script: it makes a ``.venv`` of a few lines
and writes down how pip was called, so that these tests see every decision without installing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SIDE_BY_SIDE = "-n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder"
posix_only = pytest.mark.skipif(os.name == "nt", reason="patina.sh is for Linux and macOS")

FAKE_PYTHON = r"""#!/bin/sh
echo "$*" >>"$FAKE_LOG"
case "$*" in
*'import ensurepip'*) exit "${FAKE_ENSUREPIP:-0}" ;;
*'print('*version_info*) echo 3.12 ;;
*version_info*) exit "${FAKE_FITS:-0}" ;;
*importlib.metadata*) exit "${FAKE_TORCH:-1}" ;;
*urlopen*) exit "${FAKE_INDEX:-1}" ;;
'-m venv --clear --without-pip '*)
    if [ -n "${FAKE_KILL_CLEAR:-}" ]; then rm -f "$5/patina-installing"; kill -9 $PPID; exit; fi
    rm -rf "$5" && mkdir -p "$5/bin" && cp "$0" "$5/bin/python"
    printf '#!/bin/sh\npwd\nprintf "[%%s]" "$@"\n' >"$5/bin/patina"
    chmod +x "$5/bin/patina"
    ;;
'-m ensurepip') [ -z "${FAKE_KILL:-}" ] || kill -9 $PPID ;;
*--editable*)
    echo "Collecting a hundred packages"
    exit "${FAKE_PIP:-0}"
    ;;
esac
"""


@pytest.fixture(scope="session")
def project(repository: Path) -> dict[str, Any]:
    """The ``[project]`` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    return table


@pytest.fixture(scope="session")
def pins(repository: Path) -> dict[str, Requirement]:
    """constraints.txt by canonical name."""
    lines = (repository / "constraints.txt").read_text("utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def exact_version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} is not exact"
    return specifier.version


def test_every_requirement_has_an_exact_pin_that_satisfies_it(
    project: dict[str, Any], pins: dict[str, Requirement]
) -> None:
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(exact_version(pin)), f"{pin} does not fit {requirement}"


def test_no_two_test_files_have_one_name(repository: Path) -> None:
    """pytest imports them by that name alone, and stops at the second."""
    names = [path.name for path in (repository / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_pillow_is_as_new_as_gradio_allows(project: dict[str, Any]) -> None:
    """Pillow 13 mends holes in its decoders, and gradio pins it below: the day it allows 13, this fails."""
    asked = [Requirement(line) for line in metadata.requires("gradio") or []]
    (theirs,) = (each for each in asked if canonicalize_name(each.name) == "pillow")
    (ours,) = (each for each in map(Requirement, project["dependencies"]) if canonicalize_name(each.name) == "pillow")
    assert not theirs.specifier.contains("13.0"), "raise pillow to 13 in pyproject.toml and constraints.txt"
    assert not ours.specifier.contains("13.0")


def test_pins_name_no_machine_and_no_build_of_torch(repository: Path, pins: dict[str, Requirement]) -> None:
    for pin in pins.values():
        assert pin.url is None
        assert "+" not in exact_version(pin)
    text = (repository / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert "-e " not in text


def test_a_pin_for_one_platform_says_which(pins: dict[str, Requirement]) -> None:
    def applies(name: str, **environment: str) -> bool:
        marker = pins[name].marker
        assert marker is not None
        return marker.evaluate(dict(environment))  # the rest is this machine's own

    assert applies("colorama", sys_platform="win32")
    assert not applies("colorama", sys_platform="linux")
    assert applies("audioop-lts", python_version="3.13")
    assert not applies("audioop-lts", python_version="3.12")
    assert not applies("nvidia-ml-py", sys_platform="darwin")


def test_the_batch_file_has_windows_line_ends_and_every_label_it_jumps_to(repository: Path) -> None:
    raw = (repository / "patina.bat").read_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    text = raw.decode("ascii")
    labels = set(re.findall(r"^:(\w+)", text, flags=re.MULTILINE))
    jumps = set(re.findall(r"\bgoto (\w+)", text)) | set(re.findall(r"\bcall :(\w+)", text))
    assert jumps
    assert jumps <= labels


def test_the_scripts_name_no_package_index_but_pytorchs(repository: Path) -> None:
    for name in ("patina.sh", "patina.bat", ".ci/run"):
        addresses = re.findall(r"https?://[^\s\"]+", (repository / name).read_text("utf-8"))
        assert all(address.startswith("https://download.pytorch.org/whl") for address in addresses)


@dataclass
class Checkout:
    """A copy of what the start script needs, with a fake Python first on PATH."""

    root: Path
    elsewhere: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "patina.sh"), *arguments],
            cwd=self.elsewhere,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self) -> list[str]:
        """Command lines that Python got since the last look."""
        log = Path(self.environment["FAKE_LOG"])
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def installs(self) -> list[str]:
        return [line for line in self.calls() if " install " in line]


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Checkout:
    root = tmp_path / "a folder" / "patina"
    root.mkdir(parents=True)
    for name in ("patina.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, root / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in ("sh", "dirname", "cat", "cksum", "grep", "rm", "mkdir", "cp", "chmod", "date", "tail"):
        found = shutil.which(tool)
        assert found is not None
        (programs / tool).symlink_to(found)
    write_program(programs / "uname", "#!/bin/sh\necho Linux\n")
    write_program(programs / "nvidia-smi", '#!/bin/sh\nexit "${FAKE_NVIDIA:-1}"\n')
    write_program(programs / "python3.13", "#!/bin/sh\nexit 127\n")  # a version manager's dead name
    write_program(programs / "python3.12", FAKE_PYTHON)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return Checkout(root, elsewhere, {"PATH": str(programs), "FAKE_LOG": str(tmp_path / "log")})


@posix_only
def test_the_first_start_installs_and_hands_the_arguments_over_from_where_the_user_stands(
    checkout: Checkout,
) -> None:
    result = checkout.start("train", "my images", "--steps", "3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(checkout.elsewhere), "[train][my images][--steps][3]"]
    # What comes, how much of it, how long it takes, and when it is ready; what pip says is in a log.
    said = result.stderr.splitlines()
    assert all(line.startswith("patina: ") for line in said)
    assert [bool(re.search(words, result.stderr)) for words in ("GB to download", "minutes", "installed in")] == [
        True
    ] * 3
    assert "Collecting" not in result.stdout + result.stderr
    assert "Collecting" in (checkout.root / ".venv" / "patina-install.log").read_text("utf-8")
    torch, rest = checkout.installs()
    assert "torch==" in torch
    assert "--constraint" in rest
    assert rest.endswith(f"--editable {checkout.root}")


@posix_only
def test_the_second_start_calls_neither_pip_nor_python(checkout: Checkout) -> None:
    checkout.start("--help")
    checkout.calls()
    assert checkout.start("--help").returncode == 0
    assert checkout.calls() == []


@posix_only
def test_without_arguments_the_studio_starts_in_safe_path_mode(checkout: Checkout) -> None:
    assert checkout.start().returncode == 0
    assert checkout.calls()[-1] == "-P -m app"


@posix_only
def test_test_installs_the_development_tools_once_and_runs_every_gate_in_order(checkout: Checkout) -> None:
    checkout.start("--help")
    checkout.calls()
    assert checkout.start("test", "-m", "not slow").returncode == 0
    calls = checkout.calls()
    assert sum(call.endswith(f"--editable {checkout.root}[dev]") for call in calls) == 1
    assert calls[-4:] == ["-m ruff check", "-m ruff format --check", "-m mypy", f"-m pytest {SIDE_BY_SIDE} -m not slow"]
    checkout.start("test")
    checkout.start("--help")
    assert not [call for call in checkout.calls() if "pip" in call]


@posix_only
def test_test_quick_lints_and_runs_the_quick_tests(checkout: Checkout) -> None:
    assert checkout.start("test", "quick", "-x").returncode == 0
    lint, form, tests = checkout.calls()[-3:]
    assert (lint, form) == ("-m ruff check", "-m ruff format --check")
    assert tests == f"-m pytest {SIDE_BY_SIDE} -m quick -x"


@posix_only
@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_project_file_installs_again_into_the_same_environment(checkout: Checkout, changed: str) -> None:
    checkout.start("--help")
    checkout.calls()
    with (checkout.root / changed).open("a", encoding="utf-8") as file:
        file.write("# a change\n")
    assert checkout.start("--help", FAKE_TORCH="0").returncode == 0
    calls = checkout.calls()
    assert not any("venv" in call and "--clear" in call for call in calls)
    assert sum(" install " in call for call in calls) == 1, "torch is there already"


@posix_only
def test_a_failed_install_says_so_and_the_next_start_begins_anew(checkout: Checkout) -> None:
    failed = checkout.start("--help", FAKE_PIP="1")
    assert failed.returncode == 1
    assert "run this again" in failed.stderr
    assert "Collecting a hundred packages" in failed.stderr, "what pip said last"
    assert failed.stdout == ""
    checkout.calls()
    assert checkout.start("--help").returncode == 0
    assert any(call.startswith("-m venv --clear") for call in checkout.calls())


@posix_only
def test_a_start_killed_while_pip_is_unpacked_is_begun_anew(checkout: Checkout) -> None:
    assert checkout.start("--help", FAKE_KILL="yes").returncode == -signal.SIGKILL
    checkout.calls()
    assert checkout.start("--help").returncode == 0
    assert any(call.startswith("-m venv --clear") for call in checkout.calls())


@posix_only
def test_a_start_killed_while_the_old_environment_is_cleared_is_begun_anew(checkout: Checkout) -> None:
    checkout.start("--help")
    (checkout.root / ".venv" / "patina-installing").touch()
    assert checkout.start("--help", FAKE_KILL_CLEAR="yes").returncode == -signal.SIGKILL
    checkout.calls()
    assert checkout.start("--help").returncode == 0
    assert any(call.startswith("-m venv --clear") for call in checkout.calls())


@posix_only
def test_an_environment_left_without_pip_or_python_is_made_anew(checkout: Checkout) -> None:
    bin_folder = checkout.root / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    write_program(bin_folder / "python", "#!/bin/sh\ncase $1 in -m) exit 1;; esac\n")
    assert checkout.start("--help").returncode == 0
    assert any(call.startswith("-m venv --clear") for call in checkout.calls())


@posix_only
def test_a_moved_folder_is_installed_again(checkout: Checkout) -> None:
    checkout.start("--help")
    checkout.calls()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.start("--help").returncode == 0
    assert checkout.installs()


@posix_only
def test_no_python_is_one_sentence_that_says_which_versions(checkout: Checkout) -> None:
    result = checkout.start("--help", FAKE_FITS="1")
    assert result.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 was found" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (checkout.root / ".venv").exists()


@posix_only
def test_a_python_without_venv_names_the_package_to_install(checkout: Checkout) -> None:
    result = checkout.start("--help", FAKE_ENSUREPIP="1")
    assert result.returncode == 1
    assert "apt install python3.12-venv" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@posix_only
@pytest.mark.parametrize(
    ("nvidia", "reachable", "index_used"),
    [
        pytest.param("1", "0", True, id="no card, index reachable"),
        pytest.param("1", "1", False, id="no card, index unreachable"),
        pytest.param("0", "0", False, id="a card takes the default CUDA build"),
    ],
)
def test_pytorchs_cpu_index_is_used_only_without_a_card_and_when_it_answers(
    checkout: Checkout, nvidia: str, reachable: str, index_used: bool
) -> None:
    assert checkout.start("--help", FAKE_NVIDIA=nvidia, FAKE_INDEX=reachable).returncode == 0
    torch, rest = checkout.installs()
    assert ("--index-url https://download.pytorch.org/whl/cpu torch==" in torch) is index_used
    assert rest.endswith("[gpu]") is (nvidia == "0")


@posix_only
def test_a_chosen_torch_index_goes_before_everything(checkout: Checkout) -> None:
    assert checkout.start("--help", PATINA_TORCH_INDEX="https://rocm.example/whl", FAKE_NVIDIA="0").returncode == 0
    torch, _ = checkout.installs()
    assert "--index-url https://rocm.example/whl torch==" in torch
