"""A hub on this machine that can be written to: the answers that the real client asks for when it makes a commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from local_server import Quiet, serving

TOKEN = "hf_of_a_test"
OID = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".png")
"""Endings of files that go to the large-file storage."""
KNOWN_LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "creativeml-openrail-m", "other"}


@dataclass
class Hub:
    """What was written.

    Attributes:
        repos: id -> what it was made with.
        files: id -> path -> content, after commits.
        asked: every request as (method, path).
    """

    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


def problems_of(card: str) -> list[str]:
    """What the hub objects to in a model card's front matter, by its published rules."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if match is None:
        return ["no front matter"]
    said = yaml.safe_load(match[1])
    problems = []
    if "license" in said and said["license"] not in KNOWN_LICENSES:
        problems.append('"license" must be one of the known ones')
    if said.get("license") == "other" and not re.fullmatch(r"[a-z0-9-.]+", said.get("license_name", "-")):
        problems.append('"license_name" must be lower case, digits, dots and hyphens')
    if "base_model" in said and not re.fullmatch(r"[\w.-]+/[\w.-]+", said["base_model"]):
        problems.append('"base_model" must be a model id')
    if not all(isinstance(tag, str) for tag in said.get("tags", [])):
        problems.append('"tags" must be texts')
    for example in said.get("widget", []):
        if not (isinstance(example.get("text"), str) and isinstance(example["output"]["url"], str)):
            problems.append('"widget" must hold texts and outputs')
    return problems


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a `Hub` on a free local port until the block ends."""
    hub = Hub()

    class Answer(Quiet, BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            hub.asked.append(("PUT", self.path))
            content = self.body()
            oid = self.path.rsplit("/", 1)[1]
            assert hashlib.sha256(content).hexdigest() == oid
            hub.stored[oid] = content
            self.reply(200, {})

        def do_GET(self) -> None:
            hub.asked.append(("GET", self.path))
            self.reply(404, {"error": "not found"})

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(("POST", path))
            body = self.body()
            if path == "/api/validate-yaml":
                problems = problems_of(json.loads(body)["content"])
                answer = {"errors": [{"message": text} for text in problems], "warnings": []}
                return self.reply(400 if problems else 200, answer)
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.reply(401, {"error": "Invalid username or password."})
            if path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                if repo in hub.repos:
                    return self.reply(409, {"error": "exists", "url": f"{hub.address}/{repo}"})
                hub.repos[repo] = asked
                return self.reply(200, {"url": f"{hub.address}/{repo}"})
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {
                        "oid": o["oid"],
                        "size": o["size"],
                        "actions": {"upload": {"href": f"{hub.address}/lfs/{o['oid']}"}},
                    }
                    for o in json.loads(body)["objects"]
                ]
                return self.reply(200, {"transfer": "basic", "objects": objects})
            repo, _, what = path.removeprefix("/api/models/").partition("/preupload/")
            if what:
                files = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
                return self.reply(200, {"files": files})
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            held = hub.files.setdefault(repo, {})
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    held[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    held[value["path"]] = hub.stored[value["oid"]]
            return self.reply(
                200, {"success": True, "commitOid": OID, "commitUrl": f"{hub.address}/{repo}/commit/{OID}"}
            )

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                parts = []
                while length := int(self.rfile.readline().strip() or b"0", 16):
                    parts.append(self.rfile.read(length))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def reply(self, status: int, answer: object) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Answer) as hub.address:
        yield hub
