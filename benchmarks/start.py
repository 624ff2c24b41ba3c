"""How long everything takes to start: the command line, the library, the studio's page, the bundled base.

    python -m benchmarks.start [--rounds 7]

Each line is a fresh process, and all lines are measured in turn, round by round, so that a busy moment of the machine
hits all of them. Printed are medians in seconds: *wall* is what a person waits; *CPU* is what the process and its
children computed, which other programs hardly disturb. A first round is not counted: it fills the disk's cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE_TIMEOUT = 120.0
"""Seconds to wait for the studio's page."""

LOAD_BASE = (
    "import torch; from trainer.bases.open import load_base; from trainer.config import BaseConfig\n"
    "load_base(BaseConfig(), device=torch.device('cpu'), dtype=torch.float32)"
)


@dataclass
class Line:
    """One row of the table: what is started, and seconds of each round."""

    name: str
    start: Callable[[], float]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, *, counted: bool) -> None:
        before = _children_cpu()
        seconds = self.start()
        if counted:
            self.wall.append(seconds)
            self.cpu.append(_children_cpu() - before)


def ended(*arguments: str) -> Callable[[], float]:
    """Seconds until a Python process with these arguments has ended."""

    def start() -> float:
        before = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - before

    return start


def page_answered() -> float:
    """Seconds from ``python -m app`` on an empty studio folder to its whole page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        before = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "--home", home, "--no-browser"],
            cwd=ROOT,
            env=_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = next((line for line in process.stdout if "http://" in line), None)
            if said is None:
                raise RuntimeError(f"the studio ended with code {process.wait()}")
            address = next(word for word in said.split() if word.startswith("http://"))
            with urllib.request.urlopen(address, timeout=PAGE_TIMEOUT) as answer:
                answer.read()
            return time.perf_counter() - before
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PAGE_TIMEOUT)


def lines() -> list[Line]:
    """What is measured; the empty process and the bare imports are there to compare with."""
    return [
        Line("an empty Python process", ended("-c", "pass")),
        Line("`import trainer`", ended("-c", "import trainer")),
        Line("`patina --help`", ended("-m", "trainer", "--help")),
        Line("`patina train --help`", ended("-m", "trainer", "train", "--help")),
        Line("`import gradio` alone", ended("-c", "import gradio")),
        Line("`python -m app` to its first answered page", page_answered),
        Line("`import torch, diffusers, transformers` alone", ended("-c", "import torch, diffusers, transformers")),
        Line("a process that loads the bundled base", ended("-c", LOAD_BASE)),
    ]


def table(measured: list[Line]) -> str:
    """The medians as a Markdown table."""
    rows = [
        f"| {line.name} | {statistics.median(line.wall):.2f} | {statistics.median(line.cpu):.2f} |" for line in measured
    ]
    return "\n".join(["| started | wall, s | CPU, s |", "| --- | ---: | ---: |", *rows])


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def _children_cpu() -> float:
    """CPU seconds of all processes that were started from here and have ended; 0 on Windows, which does not count."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Start-up times.")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    rounds = max(1, parser.parse_args().rounds)
    measured = lines()
    for number in range(rounds + 1):
        for line in measured:
            line.measure(counted=number > 0)
    print(f"Medians of {rounds} rounds, Python {platform.python_version()}, {os.cpu_count()} cores.\n")
    print(table(measured))


if __name__ == "__main__":
    main()
