"""The studio while it trains: does the page answer, do many pages lose anything, and does the training get its time?

    python -m benchmarks.studio [--calls 200] [--sessions 20] [--steps 300]

Starts the studio as a process with a folder of its own, trains the bundled base on a few pictures through the public
calls, and meanwhile measures from outside: the time of ``status`` calls one after the other, then many sessions at
once that each follow the run and compare what they saw in the end, and the steps per second of the training while
nobody looks, while everybody does, and while a browser shows the page on the same machine. Then a browser does what a
visitor does, and the times are those that a person waits. Without Chromium that part is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

START_SECONDS = 60.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="status calls, one after the other")
    parser.add_argument("--sessions", type=int, default=20, help="sessions that poll at once")
    parser.add_argument("--polls", type=int, default=20, help="polls of each session, one a second")
    parser.add_argument("--steps", type=int, default=100_000, help="length of the run; it is cancelled in the end")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, running_studio(Path(folder) / "studio") as (address, started):
        print(f"studio up after                {started:6.2f} s")
        measure(address, Path(folder), options)
    return 0


def measure(address: str, folder: Path, options: argparse.Namespace) -> None:
    """Train through the public calls and measure from outside."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    images = [handle_file(str(path)) for path in pictures(folder / "images")]
    settings = {"train.steps": options.steps, "samples.every": 0, "train.checkpoint_every": 10_000}
    made = client.predict(images, "Bench", "bench style", {}, settings, True, api_name="/create_run")
    run = made["run"]
    follow = Follower(client, run)
    while follow.status()["step"] < 5:
        time.sleep(0.2)

    alone = follow.rate(seconds=10)
    times = sorted(follow.timed() for _ in range(options.calls))
    print(f"status, p50 of {options.calls} calls        {statistics.median(times) * 1000:6.0f} ms")
    print(f"status, p95                    {times[int(0.95 * (len(times) - 1))] * 1000:6.0f} ms")
    print(f"status, slowest                {times[-1] * 1000:6.0f} ms")

    sessions = [Follower(Client(address, verbose=False), run) for _ in range(options.sessions)]
    before, began = follow.status()["step"], time.perf_counter()
    threads = [threading.Thread(target=session.poll, args=(options.polls,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = (follow.status()["step"] - before) / (time.perf_counter() - began)
    answered = sum(len(session.steps) for session in sessions)
    backwards = sum(1 for session in sessions if session.steps != sorted(session.steps))
    times = sorted(spent for session in sessions for spent in session.times)
    print(f"{options.sessions} sessions: polls answered     {answered:6d} of {options.sessions * options.polls}")
    print(f"  sessions that saw a step go back {backwards:2d}")
    print(f"  p95 of a poll                {times[int(0.95 * (len(times) - 1))] * 1000:6.0f} ms")
    print(f"training, nobody looks         {alone:6.2f} steps/s")
    print(f"training, all sessions look    {together:6.2f} steps/s")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        client.predict(run, api_name="/cancel")
        print("Without Chromium nothing is measured in a browser.")
        return
    with browser(chromium) as page:
        page.goto(f"{address}?run={run}")
        page.wait_for_selector(".loss polyline")
        beside = follow.rate(seconds=10)
        print(f"training, a browser looks      {beside:6.2f} steps/s ({beside / alone:.0%} of alone)")
        client.predict(run, api_name="/cancel")
        as_a_visitor(page, address)


@contextmanager
def browser(program: str) -> Iterator[Any]:
    """A page of a Chromium on this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        yield page
        chromium.close()


def as_a_visitor(page: Any, address: str) -> None:
    """Train a sample style, stop it early, and look at what it learned; prints what each step takes."""

    def took(what: str, began: float) -> None:
        print(f"{what:30} {time.perf_counter() - began:6.2f} s")

    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(address)
    page.get_by_role("button", name="New style", exact=True).first.click()
    page.wait_for_selector(".offers button.offer")
    took("first page", began)
    began = time.perf_counter()
    page.locator(".offers button.offer").first.click()
    page.wait_for_selector(".newest img")
    took("click to first sample", began)
    page.wait_for_function("/^[1-9]\\d* of/.test(document.querySelector('.numbers')?.textContent ?? '')")
    began = time.perf_counter()
    page.get_by_role("button", name="Stop and keep").click()
    page.get_by_role("link", name="Download").wait_for()
    took("Stop and keep to file", began)
    page.get_by_role("button", name="Open in Preview").click()
    page.wait_for_selector(".viewer-after[src]")
    page.wait_for_function("document.querySelectorAll('.viewer-frame img').length >= 5")
    page.locator("#preview-prompt textarea, #preview-prompt input").fill("a boat")
    before = page.locator(".viewer-after").get_attribute("src")
    began = time.perf_counter()
    page.get_by_role("button", name="Make picture").click()
    page.wait_for_function(
        "before => { const now = document.querySelector('.viewer-after'); return now.complete &&"
        " now.getAttribute('src') !== before && !document.querySelector('.viewer-stage.old'); }",
        arg=before,
    )
    took("new picture", began)
    page.wait_for_function("document.querySelectorAll('.viewer-frame img').length >= 5")
    times = sorted(page.evaluate(SLIDE))
    print(f"{'slider on made frames':30} {times[len(times) // 2]:6.1f} ms (slowest {times[-1]:.1f} ms)")


SLIDE = """async () => {
  const slider = document.querySelector(".viewer-strength"), picture = document.querySelector(".viewer-after");
  const made = [...document.querySelectorAll(".viewer-frame:has(img)")].map((frame) => frame.dataset.strength);
  const times = [];
  for (const strength of [...made, ...made].reverse()) {
    const before = picture.getAttribute("src"), began = performance.now();
    slider.value = strength;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await picture.decode().catch(() => null);
    if (picture.getAttribute("src") !== before) times.push(performance.now() - began);
    await new Promise((then) => setTimeout(then, 50));
  }
  return times.length ? times : [NaN];
}"""
"""Milliseconds from moving the slider over each frame that is made to its picture, decoded."""


class Follower:
    """One session that follows a run."""

    def __init__(self, client: Any, run: str) -> None:
        self.client, self.run = client, run
        self.steps: list[int] = []
        self.times: list[float] = []

    def status(self) -> dict[str, Any]:
        """Where the run stands."""
        answer: dict[str, Any] = self.client.predict(self.run, api_name="/status")
        return answer

    def timed(self) -> float:
        """Seconds of one status call."""
        began = time.perf_counter()
        self.status()
        return time.perf_counter() - began

    def rate(self, seconds: float) -> float:
        """Steps per second over some seconds in which nobody asks."""
        before, began = self.status()["step"], time.perf_counter()
        time.sleep(seconds)
        return (self.status()["step"] - before) / (time.perf_counter() - began)

    def poll(self, times: int) -> None:
        """Ask once a second, as a page does."""
        for _ in range(times):
            began = time.perf_counter()
            self.steps.append(self.status()["step"])
            self.times.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1.0 - self.times[-1]))


@contextmanager
def running_studio(home: Path) -> Iterator[tuple[str, float]]:
    """The studio as a process: its address, and the seconds until its page answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--home", str(home), "--port", str(port), "--no-browser"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise SystemExit("The studio did not start.")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        process.wait(60)


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pictures(folder: Path) -> list[Path]:
    """Eight simple drawings."""
    folder.mkdir(parents=True)
    files = []
    for index in range(8):
        image = Image.new("RGB", (128, 128), "white")
        box = (8 + 6 * index, 10 + 3 * index, 90 + 3 * index, 80 + 5 * index)
        ImageDraw.Draw(image).ellipse(box, fill=(30 * index, 90, 200), outline="black", width=4)
        files.append(folder / f"ball {index}.png")
        image.save(files[-1])
    return files


if __name__ == "__main__":
    sys.exit(main())
