"""``python -m benchmarks.reliability ROW``: measure one row of the table; see the package's docstring."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.rows import Row


@dataclass(frozen=True)
class Entry:
    """Where a row's function is, and how many trials its full version has."""

    module: str
    function: str
    count: int
    title: str


ROWS = {
    "kill-cli": Entry(
        "kills", "kill_cli", 200, "kill -9 at random moments, half of them inside a checkpoint's writing"
    ),
    "kill-studio": Entry("studio_kills", "kill_studio", 100, "app, worker or both killed while the studio trains"),
    "disk-cli": Entry(
        "studio_kills", "full_disk_cli", 50, "a full disk from each of the first writes on, command line"
    ),
    "disk-studio": Entry("studio_kills", "full_disk_studio", 50, "a disk filled at each of the first writes, studio"),
    "calls": Entry("calls", "hostile_calls", 1_500, "hostile requests to an open studio, every listener among them"),
    "clients": Entry("load", "many_clients", 1_000, "50 clients at once while the studio trains"),
    "life": Entry("load", "long_life", 3_000, "polls, with 200 pictures and 50 short runs"),
    "names": Entry("names", "hostile_names", 60, "hostile names, captions and file names in a browser"),
    "advisories": Entry("advisories", "advisories", 1_000, "the pinned packages against published advisories"),
    "images": Entry("images", "mutated_images", 20_000, "malformed and mutated images of every format"),
    "adapters": Entry("adapters", "mutated_adapters", 30_000, "mutated and hand-made style files"),
    "recover": Entry("recoveries", "recover", 40, "memory runs out or a loss is no number, at moments of a whole run"),
    "sigterm": Entry("kills", "sigterm", 50, "SIGTERM at random moments"),
}


def measure(name: str, count: int, folder: Path, report: Path | None = None, seed: int = 0) -> Row:
    """Run a row with so many trials, with its files below ``folder``."""
    entry = ROWS[name]
    module = importlib.import_module(f"benchmarks.reliability.{entry.module}")
    function: Callable[[Row, Path, int, int], None] = getattr(module, entry.function)
    row = Row(name, entry.count, report=report)
    function(row, folder, count, seed)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument(
        "row", nargs="?", choices=ROWS, metavar="ROW", help="; ".join(f"{k}: {e.title}" for k, e in ROWS.items())
    )
    parser.add_argument("--count", type=int, default=None, help="trials; without it those of the full version")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn by chance")
    parser.add_argument("--report", type=Path, default=None, help="a file that holds the figures as they stand")
    options = parser.parse_args(arguments)
    if options.row is None:
        for name, entry in ROWS.items():
            print(f"{name:14} {entry.count:6}  {entry.title}")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="patina-reliability-") as folder:
        os.environ["PATINA_HOME"] = str(Path(folder) / "home")
        count = options.count or ROWS[options.row].count
        row = measure(options.row, count, Path(folder), options.report, options.seed)
    print(row.line())
    return 1 if row.failures else 0


if __name__ == "__main__":
    sys.exit(main())
