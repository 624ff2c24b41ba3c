"""What to send along when something went wrong: the installation, the machine, what was found, the ends of logs.

Nothing in it tells who somebody is or opens a door: tokens, passwords, addresses and the names of user, machine and
folders are taken out of every line. Images, style files and the list of runs are not in it.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import socket
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.atomic import write_file
from trainer.errors import StudioError
from trainer.studio.folder import StudioFolder
from trainer.studio.health import Space, Trouble
from trainer.studio.machine import best_device
from trainer.training.run_folder import RunFolder
from trainer.version import __version__

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "gradio", "pillow", "numpy")
"""Those that a fault is most often about; others are checked and named only when something is wrong with them."""
TAIL_BYTES = 64 * 1024
RECENT_RUNS = 5
_GIB = 2**30


@dataclass(frozen=True)
class Installation:
    """What is installed, and what is wrong with it.

    Attributes:
        versions: of Python, Patina and `PACKAGES`; "missing" where one is.
        device: what training would take by itself.
        troubles: a sentence each.
    """

    versions: Mapping[str, str]
    device: str
    troubles: tuple[str, ...]


def installation() -> Installation:
    """Look at what is installed; loads none of it."""
    versions = {"patina": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) or "missing" for name in PACKAGES}
    troubles = []
    for wanted in _required():
        found = _version(wanted.name)
        if found is None:
            troubles.append(f"The package {wanted.name} is missing: run patina.sh again, it repairs the installation.")
        elif not wanted.specifier.contains(found, prereleases=True):
            troubles.append(
                f"The package {wanted.name} is {found}, but Patina needs {wanted.specifier}: run patina.sh again."
            )
    card, build = best_device(), torch_build()
    if card.kind == "cuda" and build == "":
        troubles.append(
            f"There is a graphics card ({card.name}), but the PyTorch that is installed works on the processor alone: "
            "remove the folder .venv and run patina.sh again, which picks the build for the card."
        )
    return Installation(versions, f"{card.name}, {card.total / _GIB:.1f} GB", tuple(troubles))


def torch_build() -> str | None:
    """The CUDA version that the installed PyTorch was built for, empty for none; None where it cannot be told.

    Read from its files: loading it takes seconds.
    """
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        spec = importlib.util.find_spec("torch")
        text = (Path(str(spec.origin)).parent / "version.py").read_text(encoding="utf-8")  # type: ignore[union-attr]
        said = re.search(r"^cuda[^=]*=\s*(None|'[^']*'|\"[^\"]*\")", text, re.MULTILINE)
        if said is not None:
            return "" if said[1] == "None" else said[1].strip("'\"")
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required() -> list[Any]:
    """What Patina asks for, from its own metadata or, in a checkout, from ``pyproject.toml``."""
    import tomllib

    from packaging.requirements import Requirement

    asked: Iterable[str] = ()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        asked = importlib.metadata.requires("patina") or ()
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not asked and project.is_file():
        asked = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = [Requirement(each) for each in asked]
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


# ---- without secrets

_SECRETS = (
    # Tokens by their shape: Hugging Face, GitHub, OpenAI and others, AWS, Google, Slack, JSON web tokens.
    r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bAKIA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
    # Whatever stands behind a word for a secret, up to the end of the value.
    r"(?i:(?<=bearer ))[^\s\"',;]+",
    r"(?i:(?<=basic ))[A-Za-z0-9+/=]{8,}",
    r"(?i:(?<=token)|(?<=secret)|(?<=passwd)|(?<=password)|(?<=api_key)|(?<=apikey)|(?<=patina_auth)|(?<=cookie))"
    r"[\"']?\s*[=:]\s*[\"']?[^\s\"',;&]+",
    r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)",
    r"(?<=access-token-)[^\s;]+",
)
_SECRET = re.compile("|".join(f"(?:{pattern})" for pattern in _SECRETS))
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
_ADDRESS = re.compile(r"\b(?!127\.)(?!0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b")
_WORDS_FOR_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "AUTH", "CREDENTIAL")


class Redacted:
    """Takes out of a text what tells who or where somebody is, or opens a door.

    Args:
        home: the studio folder; it becomes ``STUDIO``.
        environment: whose values under names such as ``HF_TOKEN`` are secrets, wherever they stand.
    """

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._secrets = sorted(
            (value for name, value in environment.items() if _is_secret(name) and len(value) >= 6),
            key=len,
            reverse=True,
        )
        self._names: list[tuple[str, str]] = [(str(home), "STUDIO"), (str(home.resolve()), "STUDIO")]
        with contextlib.suppress(RuntimeError):
            self._names += [(str(Path.home()), "~"), (str(Path.home().resolve()), "~")]
        self._whole: list[tuple[str, str]] = []
        with contextlib.suppress(OSError, KeyError, ImportError):
            self._whole.append((getpass.getuser(), "USER"))
        with contextlib.suppress(OSError):
            self._whole.append((socket.gethostname(), "HOST"))

    def __call__(self, text: str) -> str:
        """The text without."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = _SECRET.sub(lambda found: "=[secret]" if found[0].lstrip("\"' ")[:1] in "=:" else "[secret]", text)
        for name, stands_for in self._names:
            # A path in JSON or on Windows has its backslashes doubled.
            for spelled in {name, name.replace("\\", "\\\\"), name.replace("\\", "/")}:
                if len(spelled) > 1:
                    text = text.replace(spelled, stands_for)
        text = re.sub(r"(?i)((?:/home/|/Users/|\\\\?Users\\\\?))[^/\\\s\"':]+", r"\1USER", text)
        for name, stands_for in self._whole:
            # A name of one or two letters stands in too many words; "root" tells nobody apart.
            if len(name) > 2 and name not in ("root", "localhost"):
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", stands_for, text)
        return _ADDRESS.sub("[address]", _MAIL.sub("[mail]", text))


def _is_secret(name: str) -> bool:
    return any(word in name.upper() for word in _WORDS_FOR_SECRETS)


# ---- the bundle


def facts(home: StudioFolder, found: Iterable[Trouble], space: Space | None) -> dict[str, Any]:
    """All that was found, as plain data; nothing is taken out of it."""
    looked = installation()
    return {
        "versions": dict(looked.versions),
        "system": platform.platform(),
        "device": looked.device,
        "installation": list(looked.troubles),
        "studio": [{"what": each.what, "repair": each.repair} for each in found],
        "space_bytes": None if space is None else asdict(space),
        "folder": str(home.path),
    }


def bundle(home: StudioFolder, found: Mapping[str, Any]) -> bytes:
    """A zip archive of text files.

    Args:
        found: what `facts` gave.
    """
    content, clean = io.BytesIO(), Redacted(home.path)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"found.json": json.dumps(found, indent=1, ensure_ascii=False), **_texts(home)}.items():
            archive.writestr(clean(name), clean(text))
    return content.getvalue()


def write_report(home: StudioFolder, found: Mapping[str, Any], target: Path) -> None:
    """Write the `bundle` into a new file.

    Raises:
        StudioError: the file exists already, or its folder does not.
        OSError: the disk refuses.
    """
    if target.exists():
        raise StudioError(f"{target} exists already: choose another name for the report.")
    if not target.absolute().parent.is_dir():
        raise StudioError(f"The folder {target.absolute().parent} does not exist: make it first.")
    write_file(target.absolute(), bundle(home, found))


def report_name() -> str:
    """A name for a report that was not given one."""
    return f"patina-report-{time.strftime('%Y%m%d-%H%M%S')}.zip"


def _texts(home: StudioFolder) -> dict[str, str]:
    """The ends of the logs, and what the runs that were changed last say of themselves."""
    files = {f"logs/{path.name}": path for path in _newest(home.logs.glob("*.log"), 6)}
    for path in _newest(home.runs.glob("*/events.jsonl"), RECENT_RUNS):
        run = RunFolder(path.parent)
        for each in (run.config_file, run.events_file, run.recovery_file, run.path / "crash.log"):
            files[f"runs/{run.path.name}/{each.name}"] = each
    texts = {}
    for name, path in files.items():
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            texts[name] = file.read().decode("utf-8", "replace")
    return texts


def log_ends(home: StudioFolder, lines: int) -> dict[str, str]:
    """The last lines of the studio's logs by name, without what `Redacted` takes out."""
    clean = Redacted(home.path)
    ends = {}
    for path in _newest(home.logs.glob("*.log"), 6):
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
            if text:
                ends[path.name] = clean(text)
    return ends


def _newest(paths: Iterable[Path], count: int) -> list[Path]:
    def when(path: Path) -> float:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    return sorted(paths, key=when, reverse=True)[:count]
