"""The pinned packages against published advisories, as ``pip-audit`` knows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.reliability.rows import Row

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def advisories(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Every pin of ``constraints.txt``; says so where the package pip-audit or its service is not there."""
    pins = folder / "pins.txt"
    # A build's own mark, such as +cpu, is in no list of advisories.
    pinned = [re.sub(r"\+\w+", "", line) for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    pinned = [line for line in pinned if re.match(r"^[A-Za-z0-9._-]+==[^;]+$", line)][:count]
    pins.write_text("\n".join(pinned))
    run = subprocess.run(
        [sys.executable, "-m", "pip_audit", "-r", str(pins), "--no-deps", "--disable-pip", "-f", "json"],
        capture_output=True,
        text=True,
    )
    try:
        found = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (run.stderr.strip().splitlines() or ["no answer"])[-1]
        raise SystemExit(f"The advisories could not be asked for: {last[:300]}") from None
    asked = [package for package in found if "skip_reason" not in package]
    if not asked:
        raise SystemExit(f"The advisories could not be asked for: {found[0]['skip_reason'] if found else 'no pins'}")
    row.figures["not_in_the_list"] = len(found) - len(asked)
    for package in asked:
        known = [each["id"] for each in package.get("vulns", [])]
        row.count(f"{package['name']} {package['version']}: {', '.join(known)}" if known else "")
