"""A model hub on this machine: the few answers of the hub's protocol that the real client asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from local_server import Quiet, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds and what it was asked for.

    Attributes:
        models: repository id to the folder that is served as its ``main``.
        gated: repositories whose files are refused without permission.
        failing: whether it answers every question with error 500.
        sent: files whose content was downloaded, as ``owner/name/path``.
    """

    models: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    failing: bool = False
    sent: list[str] = field(default_factory=list)
    address: str = ""

    def files(self, repo: str) -> dict[str, Path]:
        folder = self.models[repo]
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a `Hub` on a free local port until the block ends."""
    hub = Hub()

    class Answer(Quiet, BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if hub.failing:
                return self.reply(500, b"", {}, with_body)
            if parts[:2] == ["api", "models"]:
                return self.about("/".join(parts[2:4]), parts[4:], with_body)
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)

        def about(self, repo: str, rest: list[str], with_body: bool) -> None:
            if repo not in hub.models:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
            files = hub.files(repo)
            if rest[:1] == ["tree"]:
                listed: object = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _tag(path)}
                    for name, path in files.items()
                ]
            else:
                siblings = [{"rfilename": name, "size": path.stat().st_size} for name, path in files.items()]
                listed = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False}
            body = json.dumps(listed).encode()
            return self.reply(200, body, {"Content-Type": "application/json"}, with_body)

        def file(self, repo: str, revision: str, name: str, with_body: bool) -> None:
            if repo in hub.gated:
                return self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
            path = hub.files(repo).get(name) if repo in hub.models else None
            if path is None:
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
            if with_body:
                hub.sent.append(f"{repo}/{name}")
            return self.reply(200, path.read_bytes(), {"ETag": f'"{_tag(path)}"', "X-Repo-Commit": COMMIT}, with_body)

        def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    with serving(Answer) as hub.address:
        yield hub


def settings(address: str, cache: Path) -> dict[str, str]:
    """Variables by which the hub's client asks this hub and keeps what it fetches in ``cache``."""
    return {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }


def _tag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
