"""The pins against a copy of the list of advisories: ranges as OSV writes them, and nothing that was withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from benchmarks.reliability.advisories import concerns, copied

FIXED = """
id: PYSEC-1
affected:
- package: {name: pillow, ecosystem: PyPI}
  ranges:
  - type: GIT
    events: [{introduced: '0'}]
  - type: ECOSYSTEM
    events: [{introduced: '0'}, {fixed: 9.0.1}, {introduced: 10.0.0}, {fixed: 10.2.0}]
  versions: [8.4.0]
"""
OPEN = """
id: PYSEC-2
affected:
- ranges:
  - type: ECOSYSTEM
    events: [{introduced: 12.0.0}]
"""
LAST = """
id: PYSEC-3
affected:
- ranges:
  - type: ECOSYSTEM
    events: [{introduced: '0'}, {last_affected: 1.5}]
"""


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (FIXED, "8.4.0", True),
        (FIXED, "9.0.0", True),
        (FIXED, "9.0.1", False),
        (FIXED, "10.1.0", True),
        (FIXED, "12.3.0", False),
        (OPEN, "11.9", False),
        (OPEN, "12.3.0", True),
        (LAST, "1.5", True),
        (LAST, "1.5.1", False),
    ],
)
def test_a_version_is_concerned_within_the_ranges_of_releases(text: str, version: str, expected: bool) -> None:
    import yaml  # type: ignore[import-untyped]

    assert concerns(yaml.load(text, yaml.BaseLoader), Version(version)) is expected


def test_a_copy_of_the_list_is_read_by_normal_names_and_without_what_was_withdrawn(tmp_path: Path) -> None:
    for name, file, text in (
        ("pillow", "one", OPEN),
        ("pillow", "two", OPEN + "withdrawn: '2024-01-01T00:00:00Z'\n"),
        ("huggingface-hub", "three", LAST),
    ):
        place = tmp_path / "vulns" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{file}.yaml").write_text(text, encoding="utf-8")
    pins = ["Pillow==12.3.0", "huggingface_hub==1.4", "gradio==6.31.0"]
    assert copied(pins, tmp_path) == {
        "Pillow==12.3.0": ["PYSEC-2"],
        "huggingface_hub==1.4": ["PYSEC-3"],
        "gradio==6.31.0": [],
    }
    with pytest.raises(SystemExit, match="advisory-database"):
        copied(pins, tmp_path / "vulns")
