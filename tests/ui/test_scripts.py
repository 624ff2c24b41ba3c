"""The page's scripts: they parse, they find each other, and their own tests pass (node's test runner, no packages)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.scripts import STATIC

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(STATIC.rglob("*.js"))
TESTS = sorted((REPOSITORY / "tests" / "js").glob("*.test.js"))


@pytest.fixture(scope="module")
def node() -> str:
    """Path of node, version 20 or later; without it the tests are skipped, or fail when CI=true."""
    found = shutil.which("node")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("node is missing (Debian: apt install nodejs)")
        pytest.skip("node is missing")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_scripts_own_tests_pass(node: str) -> None:
    assert TESTS
    said = run(node, "--test", "--test-reporter=tap", *map(str, TESTS))
    assert re.search(r"^# pass [1-9]", said, re.MULTILINE), said


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_script_parses(node: str, script: Path) -> None:
    run(node, "--check", str(script))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_script_s_imports_exist_and_are_used(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    for names, other in re.findall(r'^import \{(.*?)\} from "(.*?)";$', source, re.MULTILINE | re.DOTALL):
        exported = (script.parent / other).read_text(encoding="utf-8")
        for name in (entry.strip() for entry in names.split(",") if entry.strip()):
            theirs, _, mine = name.partition(" as ")
            assert re.search(rf"^export (const|let|class|function|async function) {theirs}\b", exported, re.MULTILINE)
            assert len(re.findall(rf"\b{mine or theirs}\b", source)) > 1, f"{name} is imported and not used"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_script_makes_no_element_from_text(script: Path) -> None:
    # What users and files are named would run.
    source = script.read_text(encoding="utf-8")
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function)\b", source)
