"""A studio served by its own process, and requests to it as they are."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 300.0


@dataclass
class Served:
    """A studio process that serves its page on this machine."""

    home: Path
    port: int
    log: Path
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        method: str = "",
        host: str = "",
    ) -> tuple[int, str, Any]:
        """One request with whatever it says of itself: status, text and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read(2**20).decode("utf-8", "replace"), answer.headers
        finally:
            connection.close()


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """A studio with a folder of its own below ``folder``, ended afterwards."""
    home, log = folder / "served", folder / "served.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-W", "ignore", "-m", "app", "--home", str(home), "--port", str(port), "--no-browser"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out, env=dict(os.environ))
    studio = Served(home, port, log, process.pid)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                studio.ask("/gradio_api/startup-events")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"The studio did not start: {log.read_text(encoding='utf-8')[-500:]}") from None
                time.sleep(0.2)
        yield studio
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
