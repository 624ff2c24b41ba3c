"""Hostile requests to a studio that is open: paths, origins, hosts, values, and every listener of the page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.reliability.rows import Row
from benchmarks.reliability.served import Served, served
from benchmarks.reliability.tiny import Bench, bench_at

MARK = "patina-secret-7f3a"
JSON = {"Content-Type": "application/json"}
Request = tuple[str, bytes | None, dict[str, str], str, str]
"""Path, body, headers, host, and what it is."""


def hostile_calls(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """No file from outside is shown, nothing is changed by a foreign page, no traceback is written."""
    secret = folder / "secret.txt"
    secret.write_text(MARK)
    bench, chance = bench_at(folder), random.Random(seed)
    with served(folder) as studio:
        (studio.home / "secret.txt").write_text(MARK)
        (studio.home / "runs" / "x").mkdir(parents=True, exist_ok=True)
        (studio.home / "runs" / "x" / "secret.toml").write_text(MARK)
        dependencies = json.loads(studio.ask("/config")[1])["dependencies"]
        kinds = [
            list(traversals(folder, studio)),
            list(foreign(studio)),
            list(values(bench)),
            list(listeners(chance, dependencies, max(1, count // 3))),
        ]
        requests = [each for kind in kinds for each in kind]
        # Each kind in turn, so that a short version has some of all.
        chance.shuffle(requests)
        while len(requests) < count:
            requests += requests[: count - len(requests)]
        before = _runs(studio)
        for path, body, headers, host, what in requests[:count]:
            try:
                status, text, answered = studio.ask(path, body, headers, host=host)
            except OSError as error:
                row.count(f"{what}: {path[:80]}: no answer ({error})")
                continue
            trouble = ""
            if MARK in text:
                trouble = "it shows a file that is nobody's business"
            elif status >= 500 and not _is_sentence(text):
                trouble = f"answered with {status}"
            elif "Traceback" in text:
                trouble = "answered with a traceback"
            elif what == "foreign" and status < 400:
                trouble = f"a foreign page was answered with {status}"
            elif (
                what == "foreign"
                and status not in (403, 421)
                and "evil" in str(answered.get("Access-Control-Allow-Origin"))
            ):
                trouble = "a foreign page was let in"
            row.add(f"answered_{status}")
            row.count(trouble and f"{what}: {path[:80]}: {trouble}")
        begun = [name for name in _runs(studio) - before if (studio.home / "runs" / name / "events.jsonl").exists()]
        if begun:
            row.failures.append(f"{begun[0]} was put to work")
        log = studio.log.read_text(encoding="utf-8", errors="replace")
        row.figures["tracebacks"] = log.count("Traceback")
        row.figures["log_lines"] = len(log.splitlines())
        if "Traceback" in log:
            row.failures.append("a traceback in the log")


def _is_sentence(text: str) -> bool:
    """Gradio answers with 500 when a call is refused, whatever the reason; the reason stands in the answer."""
    try:
        return bool(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return False


def _runs(studio: Served) -> set[str]:
    return {path.name for path in (studio.home / "runs").iterdir()}


def traversals(folder: Path, studio: Served) -> Iterator[Request]:
    """Paths that lead out of the folders that may be shown."""
    secret = (folder / "secret.txt").as_posix()
    targets = [secret, secret.lstrip("/"), "secret.txt", "runs/x/secret.toml", "studio.sqlite3", "etc/passwd"]
    ups = (
        "",
        "../",
        "../../",
        "..%2f..%2f",
        "%2e%2e/",
        "..\\",
        "....//",
        "%252e%252e%252f",
        "runs/x/../../",
        "./",
        "%00",
        "//",
    )
    for target in targets:
        for up in ups:
            for tail in ("", "%00.png", "?v=1&w=64", "/.", "%2f..%2f"):
                inside = up + (quote(target, safe="/") if "%" not in up else target)
                for start in ("/patina/pictures/", "/gradio_api/file="):
                    yield start + inside + tail, None, {}, "", "traversal"
    for start in (
        "/patina/static/",
        "/static/",
        "/assets/",
        "/gradio_api/upload_progress?upload_id=",
        "/patina/download/",
    ):
        for target in targets:
            for up in ("../", "..%2f", "%2e%2e%2f", ""):
                yield start + up + quote(target, safe=""), None, {}, "", "traversal"


def foreign(studio: Served) -> Iterator[Request]:
    """What a page elsewhere in the user's browser can send."""
    call = json.dumps({"data": [None, "x", "", {}, {}, True]}).encode()
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
    writing = [
        ("/gradio_api/call/create_run", call, JSON),
        ("/gradio_api/run/cancel", call, JSON),
        ("/gradio_api/queue/join", call, JSON),
        ("/gradio_api/upload", form, {"Content-Type": "multipart/form-data; boundary=x"}),
        ("/gradio_api/cancel", call, JSON),
        ("/gradio_api/reset", call, {"Content-Type": "text/plain"}),
        ("/login", b"username=a&password=b", {"Content-Type": "application/x-www-form-urlencoded"}),
    ]
    origins = (
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"https://127.0.0.1:{studio.port}.evil.example",
        "file://",
        "https://[",
    )
    for path, body, headers in writing:
        for origin in origins:
            yield path, body, {**headers, "Origin": origin}, "", "foreign"
        yield path, body, {**headers, "Sec-Fetch-Site": "cross-site"}, "", "foreign"
    for host in (
        "evil.example",
        f"evil.example:{studio.port}",
        "127.0.0.1.evil.example",
        "a@127.0.0.1",
        "[::",
        "10.1.2.3",
        "0",
    ):
        for path in ("/", "/config", "/gradio_api/info", "/patina/report", "/patina/download/x", "/patina/pictures/x"):
            yield path, None, {"Origin": f"http://{host}"}, host, "foreign"
        for path, body, headers in writing:
            yield path, body, headers, host, "foreign"


_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1e308,
        "",
        "x" * 5000,
        "../../etc/passwd",
        "\x00",
        "\ud800",
        "<script>alert(1)</script>",
        "run-1",
    ),
    *(
        [],
        {},
        [[[[]]]],
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        "²",
        "NaN",
    ),
    *(
        {"__type__": "update"},
        {"train.steps": "9" * 3000},
        {"a.b.c": {"d": []}},
        ["run-1", {"style": "../x", "step": -5}],
    ),
)


def values(bench: Bench) -> Iterator[Request]:
    """Values outside of what is allowed, for every public call."""
    inputs = {"create_run": 6, "status": 1, "cancel": 1, "pause": 1, "resume": 1, "sample": 6, "list": 0, "download": 2}
    for name, count in inputs.items():
        for place in range(max(1, count)):
            for odd in _ODD:
                if name == "sample" and place in (0, 3):
                    continue  # Any text is a prompt, and would be drawn.
                # An image that is none: nothing is begun however well the rest fits.
                data: list[Any] = [None] * count
                if name == "create_run":
                    data = [None, "x", "", {}, {}, False]
                if name == "sample":
                    data = ["x", ["run-nowhere"], [1], "", 0, {}]
                if count:
                    data[place] = odd
                for start in ("/gradio_api/run/", "/gradio_api/call/"):
                    if start.endswith("call/") and name not in ("status", "list"):
                        continue
                    yield start + name, json.dumps({"data": data}).encode(), JSON, "", "value"
    for body in (
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"data": 5}',
        b"\xff\xfe",
        b'{"data": ' + b"[" * 20_000,
        b'{"fn_index": -1}',
    ):
        for path in (
            "/gradio_api/run/status",
            "/gradio_api/queue/join",
            "/gradio_api/call/status",
            "/gradio_api/run/predict",
        ):
            yield path, body, JSON, "", "value"


def listeners(chance: random.Random, dependencies: list[dict[str, Any]], count: int) -> Iterator[Request]:
    """Every listener of the page, the private ones too, with nonsense in the right number and in a wrong one."""
    for number in range(count):
        each = dependencies[number % len(dependencies)]
        data = [chance.choice(_ODD) for _ in range(len(each["inputs"]) + chance.choice((0, 0, 0, 1, -1, 50)))]
        event = chance.choice(
            (
                None,
                {},
                {"act": "delete", "id": "../.."},
                {"act": "__class__"},
                {"files": [{"path": "/etc/passwd"}]},
                "x",
            )
        )
        body = {
            "data": data,
            "fn_index": each["id"],
            "session_hash": f"hostile{number % 7}",
            "event_data": event,
            "trigger_id": chance.choice((None, -1, each["id"])),
        }
        yield "/gradio_api/run/predict", json.dumps(body).encode(), JSON, "", "listener"
