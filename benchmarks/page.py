"""What a page that shows a training costs the machine: processor time of the browser and of the studio's app.

    python -m benchmarks.page [--seconds 20] [--steps 3000] [--threads 1]

Starts the studio as a process with a folder of its own, trains the bundled base on a few pictures, and opens the page
of the run in a Chromium without a graphics card, which paints on the processor. Printed are processor seconds per
second, 1 being one core: they count work and not waiting, so that other programs hardly disturb them. Twice: before
the first samples are there, and with samples. What the page does per second is counted, too. Needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.studio import CHROMIUM, Follower, browser, pictures, running_studio

SETTLE = 6.0
"""Seconds from the first curve on the page until it is measured: opening a page costs more than having it open."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each row is measured")
    parser.add_argument("--steps", type=int, default=3000, help="length of the runs; they are cancelled in the end")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training")
    options = parser.parse_args(arguments)
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        print("There is no Chromium on this machine.")
        return 1
    with tempfile.TemporaryDirectory() as folder, running_studio(Path(folder) / "studio") as (address, _):
        images = pictures(Path(folder) / "images")
        for name, samples in (("before the first samples", 0), ("with samples", 25)):
            settings = {"train.steps": options.steps, "train.threads": options.threads, "samples.every": samples}
            drawn = {"samples.steps": 2} if samples else {}
            measure(address, images, {**settings, **drawn}, name, chromium, options.seconds)
    return 0


def measure(
    address: str, images: Sequence[Path], settings: Mapping[str, object], name: str, chromium: str, seconds: float
) -> None:
    """Train through the public calls, look at it, and print a row."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    files = [handle_file(str(path)) for path in images]
    made = client.predict(files, name, "bench style", {}, dict(settings), True, api_name="/create_run")
    follow = Follower(client, made["run"])
    while follow.status()["step"] < 5:
        time.sleep(0.2)
    alone = shares(time.sleep, seconds).get("app", 0.0)
    with browser(chromium) as page:
        page.goto(f"{address}?run={made['run']}")
        page.wait_for_selector(".loss polyline")
        if settings["samples.every"]:
            page.wait_for_selector(".newest img")
        page.wait_for_timeout(SETTLE * 1000)
        asked: Counter[str] = Counter()
        page.on("request", lambda request: asked.update([request.resource_type]))
        spent = shares(lambda seconds: page.wait_for_timeout(1000 * seconds), seconds)
    client.predict(made["run"], api_name="/cancel")
    browsers = {kind: share for kind, share in spent.items() if kind not in OURS}
    parts = ", ".join(f"{kind} {share:.3f}" for kind, share in sorted(browsers.items()) if share >= 0.001)
    print(f"{name:26} browser {sum(browsers.values()):.3f} of a core ({parts})")
    print(f"{'':26} app {spent['app']:.3f} of a core ({alone:.3f} while no page is open)")
    print(
        f"{'':26} a second: {', '.join(f'{count / seconds:.1f} {kind}' for kind, count in asked.items())}", flush=True
    )


OURS = {"app": "-m app", "worker": "trainer.studio.worker"}
"""The studio's own processes, by a part of their command lines."""


def shares(wait: Callable[[float], object], seconds: float) -> dict[str, float]:
    """Processor seconds per second by kind of process, while ``wait`` lasts for these seconds."""
    before, began = _spent(), time.perf_counter()
    wait(seconds)
    after, passed = _spent(), time.perf_counter() - began
    found: defaultdict[str, float] = defaultdict(float)
    for process, (kind, spent) in after.items():
        found[kind] += (spent - before.get(process, (kind, 0.0))[1]) / passed
    return {kind: share for kind, share in found.items() if kind != "worker"}


def _spent() -> dict[int, tuple[str, float]]:
    """Kind and processor seconds of each process of studio and browser."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command, times = process.cmdline(), process.cpu_times()
        except psutil.Error:
            continue
        if (kind := _kind(command)) is not None:
            found[process.pid] = (kind, times.user + times.system)
    return found


def _kind(command: Sequence[str]) -> str | None:
    line = " ".join(command)
    ours = next((kind for kind, part in OURS.items() if part in line), None)
    if ours is not None or not command or "chrom" not in command[0]:
        return ours
    named = next((word for word in command if word.startswith("--type=")), "--type=browser")
    return named.removeprefix("--type=")


if __name__ == "__main__":
    sys.exit(main())
