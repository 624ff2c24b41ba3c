"""A disk that fills up at any write of a training on the command line: a sentence, nothing lost, and on from there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.config import parse
from trainer.styles.metadata import sshs_model_hash
from trainer.training.run import create
from trainer.training.run_folder import RunFolder


class Disk:
    """Counts what is opened for writing below a folder, and from one write on refuses all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.writes, self.full_from = folder, 0, 10**9
        self.real_open = open

    def open(self, file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        ours = isinstance(file, str | Path) and self.folder in Path(file).parents
        if ours and set(mode) & set("wxa"):
            self.writes += 1
            if self.writes >= self.full_from:
                raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return self.real_open(file, mode, *rest, **more)


@contextmanager
def disk_below(folder: Path) -> Iterator[Disk]:
    disk = Disk(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.io.open", disk.open)
        yield disk


def resumed(folder: RunFolder) -> Result:
    return CliRunner().invoke(app, ["train", "--resume", str(folder.path)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_at_any_write_costs_nothing(settings: dict, tmp_path: Path) -> None:
    settings["samples"]["every"] = 2
    whole = create(parse(settings), tmp_path / "whole")
    with disk_below(whole.path) as disk:
        assert resumed(whole).exit_code == 0
    assert disk.writes > 30
    for part in range(4):
        folder = create(parse(settings), tmp_path / f"full-{part}")
        with disk_below(folder.path) as full:
            full.full_from = 1 + (disk.writes - 1) * part // 3
            said = resumed(folder)
        assert said.exit_code == 2, said.output
        sentence = said.output.splitlines()[-1]
        assert sentence.startswith("patina: "), said.output
        assert "disk is full" in sentence or "No space left" in sentence
        assert "Traceback" not in said.output
        again = resumed(folder)
        assert again.exit_code == 0, again.output
        assert sshs_model_hash(folder.adapter_file) == sshs_model_hash(whole.adapter_file)
        assert not [path for path in folder.path.rglob(".*") if path.is_file()], "nothing is left of what failed"
