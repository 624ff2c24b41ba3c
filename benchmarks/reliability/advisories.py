"""The pinned packages against published advisories, as ``pip-audit`` knows them or as a copy of their list has them.

``PATINA_ADVISORIES=FOLDER`` names a checkout of github.com/pypa/advisory-database, for a machine without the service.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

from benchmarks.reliability.rows import Row

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
COPY = "PATINA_ADVISORIES"


def advisories(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Every pin of ``constraints.txt``; says so where neither a copy nor pip-audit's service is there."""
    # A build's own mark, such as +cpu, is in no list of advisories.
    lines = [re.sub(r"\+\w+", "", line) for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    pinned = [line for line in lines if re.match(r"^[A-Za-z0-9._-]+==[^;]+$", line)][:count]
    copy = os.environ.get(COPY)
    found = copied(pinned, Path(copy)) if copy else audited(pinned, folder)
    for name, known in found.items():
        row.count(f"{name}: {', '.join(known)}" if known else "")
    row.figures["not_in_the_list"] = len(pinned) - len(found)


def audited(pinned: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Pin -> its advisories, by pip-audit's service; without the pins that it does not know.

    Raises:
        SystemExit: the service, or the package, is not there.
    """
    pins = folder / "pins.txt"
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
    return {f"{each['name']}=={each['version']}": [one["id"] for one in each.get("vulns", [])] for each in asked}


def copied(pinned: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Pin -> its advisories, by a checkout of the list.

    Raises:
        SystemExit: the folder holds no such list.
    """
    import yaml  # type: ignore[import-untyped]  # comes with huggingface_hub

    if not (folder / "vulns").is_dir():
        raise SystemExit(
            f"{folder} holds no folder vulns: {COPY} names a checkout of github.com/pypa/advisory-database."
        )
    found = {}
    for pin in pinned:
        name, _, version = pin.partition("==")
        place = folder / "vulns" / re.sub(r"[-_.]+", "-", name).lower()
        # Versions are text: 1.10 is no number. Plain text, lists and mappings are all that this loader makes.
        told = [yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader) for file in sorted(place.glob("*.yaml"))]
        found[pin] = [one["id"] for one in told if not one.get("withdrawn") and concerns(one, Version(version))]
    return found


def concerns(advisory: Mapping[str, Any], version: Version) -> bool:
    """Whether an advisory in OSV's format (ossf.github.io/osv-schema) is about a version: by its ranges, or named."""
    for affected in advisory.get("affected", ()):
        if str(version) in affected.get("versions", ()):
            return True
        for start, end, included in _spans(affected.get("ranges", ())):
            if start <= version and (end is None or version < end or (included and version == end)):
                return True
    return False


def _spans(ranges: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Version, Version | None, bool]]:
    """(first version, where it ends, whether that one is affected too) of each range of releases."""
    for each in ranges:
        if each["type"] != "ECOSYSTEM":
            continue
        start: Version | None = None
        for event in each["events"]:
            if "introduced" in event:
                start = Version(event["introduced"])
            elif start is not None and ("fixed" in event or "last_affected" in event):
                yield start, Version(event.get("fixed") or event["last_affected"]), "fixed" not in event
                start = None
        if start is not None:
            yield start, None, False
