"""The documents keep up with the code: their links lead somewhere, and what they name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:app|benchmarks|docs|sample_data|tests|tools|trainer|\.ci)/[\w./-]*)`")
_HOP = re.compile(r"^(\d+)\. `([\w./]+)` `([\w.]+)`: \S", re.M)


def names_in(path: Path) -> set[str]:
    """What a source file defines at its top, and its classes' methods as ``Class.method``."""
    text = path.read_text("utf-8")
    if path.suffix == ".js":
        return set(re.findall(r"^(?:export )?const (\w+) =", text, re.M))
    names = set()
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names.add(name)
                names |= {f"{name}.{inner.name}" for inner in body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(document.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = [path for path in _PATH.findall(document.read_text("utf-8")) if not re.search("NAME|CODE", path)]
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_both_ways_through_the_program_name_functions_that_exist() -> None:
    hops = _HOP.findall(ARCHITECTURE.read_text("utf-8"))
    starts = [index for index, (number, _, _) in enumerate(hops) if number == "1"]
    assert len(starts) == 2
    assert [int(number) for number, _, _ in hops] == [*range(1, starts[1] + 1), *range(1, len(hops) - starts[1] + 1)]
    assert [f"{path}: {name}" for _, path, name in hops if name not in names_in(REPOSITORY / path)] == []


def test_files_named_beside_another_one_are_there() -> None:
    """`hub.py` after `trainer/bases/open.py` is `trainer/bases/hub.py`."""
    missing = []
    for line in ARCHITECTURE.read_text("utf-8").splitlines():
        folder = None
        for name in re.findall(r"`([\w./]+\.py)`", line) if line.startswith("|") else []:
            if "/" in name:
                folder = (REPOSITORY / name).parent
            elif folder is None or not (folder / name).exists():
                missing.append(name)
    assert missing == []
