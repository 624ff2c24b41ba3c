"""Many clients at once, and a long life: is anything lost, and does anything grow?"""

from __future__ import annotations

import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.reliability.rows import Row
from benchmarks.reliability.served import Served, served
from benchmarks.reliability.tiny import Bench, bench_at

JSON = {"Content-Type": "application/json"}
CLIENTS = 50


class Caller:
    """The public calls of a studio, as a program without a session makes them."""

    def __init__(self, studio: Served) -> None:
        self.studio = studio

    def __call__(self, name: str, *data: Any) -> Any:
        """The answer of a call; a refusal is a `ValueError` with its sentence."""
        status, text, _ = self.studio.ask(f"/gradio_api/run/{name}", json.dumps({"data": list(data)}).encode(), JSON)
        answer = json.loads(text)
        if status != 200:
            raise ValueError(answer.get("error"))
        return answer["data"][0]

    def upload(self, files: list[Path]) -> list[dict[str, Any]]:
        """Files as a call takes them."""
        parts = b"".join(
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % file.name.encode()
            + file.read_bytes()
            + b"\r\n"
            for file in files
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        _, text, _ = self.studio.ask("/gradio_api/upload", parts + b"--x--\r\n", headers)
        return [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in json.loads(text)]

    def train(self, bench: Bench, **changes: Any) -> str:
        """Begin a run; returns its id."""
        settings = bench.settings(**changes)
        made = self(
            "create_run", self.upload(bench.images), settings.pop("name"), settings.pop("trigger"), {}, settings, True
        )
        return str(made["run"])


def many_clients(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Clients at once that each ask for the status of a run in training, and each name a draft of their own."""
    bench = bench_at(folder)
    with served(folder) as studio:
        call = Caller(studio)
        run = call.train(bench, **{"train.steps": 100_000, "train.checkpoint_every": 50_000})
        _until(lambda: call("status", run)["step"] > 2, "the first steps")
        each = max(1, count // CLIENTS)
        times: list[float] = []
        troubles: list[str] = []
        made: list[str] = []

        def client(number: int) -> None:
            last = -1
            for turn in range(each):
                began = time.perf_counter()
                try:
                    if turn == each // 2:
                        made.append(call("create_run", None, f"client {number}", "", {}, {}, False)["run"])
                        trouble = ""
                    else:
                        step = call("status", run)["step"]
                        trouble = f"client {number} saw step {step} after {last}" if step < last else ""
                        last = step
                except (OSError, ValueError) as error:
                    trouble = f"client {number}: {error}"
                times.append(time.perf_counter() - began)
                troubles.append(trouble)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for trouble in troubles:
            row.count(trouble)
        names = [entry["name"] for entry in call("list")["runs"] if entry["name"].startswith("client ")]
        if sorted(names) != sorted(f"client {number}" for number in range(CLIENTS)) or len(set(made)) != CLIENTS:
            row.failures.append(f"{len(names)} drafts of {CLIENTS} clients")
        times.sort()
        row.figures |= {
            "p50_ms": round(1000 * statistics.median(times)),
            "p99_ms": round(1000 * times[int(0.99 * (len(times) - 1))]),
            "drafts": len(names),
        }
        call("cancel", run)


def long_life(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Polls, pictures and short runs, 3,000 to 200 to 50: memory, descriptors and processes of the studio stay flat."""
    bench = bench_at(folder)
    pictures, runs = max(1, count * 200 // 3000), max(1, count * 50 // 3000)
    with served(folder) as studio:
        call = Caller(studio)
        tiny = {"train.steps": 2, "train.checkpoint_every": 2}
        style = _trained(call, bench, tiny)
        _drawn(call, style, 0)
        for _ in range(20):
            call("status", style)
        begun = usage(studio)
        for number in range(runs):
            _trained(call, bench, tiny)
            for turn in range(number * pictures // runs, (number + 1) * pictures // runs):
                _drawn(call, style, turn + 1)
            for _ in range(count // runs):
                row.count("" if call("status", style)["state"] == "finished" else "another state")
            row.figures["runs"] = number + 1
        row.figures["pictures"] = pictures
        ended = usage(studio)
        for name in begun:
            row.figures[name] = f"{begun[name]} -> {ended[name]}"
        if ended["app_mib"] - begun["app_mib"] > 50 or ended["worker_mib"] - begun["worker_mib"] > 50:
            row.failures.append("memory grew by more than 50 MiB")
        if ended["descriptors"] > begun["descriptors"] + 10 or ended["processes"] > begun["processes"]:
            row.failures.append("descriptors or processes grew")


def usage(studio: Served) -> dict[str, int]:
    """Memory of app and worker, open descriptors, processes, and files that lie in the temporary places."""
    app = psutil.Process(studio.pid)
    family = [app, *app.children(recursive=True)]
    workers = [each for each in family if "trainer.studio.worker.main" in each.cmdline()]
    return {
        "app_mib": app.memory_info().rss >> 20,
        "worker_mib": max((each.memory_info().rss >> 20 for each in workers), default=0),
        "descriptors": sum(each.num_fds() for each in (app, *workers)),
        "processes": len(family),
        "uploads": sum(1 for path in (studio.home / "uploads").rglob("*") if path.is_file()),
    }


def _trained(call: Caller, bench: Bench, changes: dict[str, Any]) -> str:
    run = call.train(bench, **changes)
    _until(lambda: call("status", run)["state"] in ("finished", "failed"), "a short run")
    said = call("status", run)
    if said["state"] != "finished":
        raise SystemExit(f"A short run failed: {said['error']}")
    return run


def _drawn(call: Caller, style: str, seed: int) -> None:
    settings = {"steps": 1, "width": 64, "height": 64}
    call("sample", "a ball", [style], [0.5 + seed / 1000], "", seed, settings)


def _until(true: Any, what: str, seconds: float = 900.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.1)
