"""The studio's list: brought up to date from every version there was, and read without being touched."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from studio_parts import Parts, put_together

from trainer.errors import StudioError
from trainer.studio.database import MIGRATIONS, Database
from trainer.studio.store import State, Wish

SCHEMAS = Path(__file__).resolve().parents[2] / "fixtures" / "schemas"


def old_list(path: Path, version: int) -> Path:
    """A list as a version left it, with a row in each table."""
    connection = sqlite3.connect(path)
    connection.executescript((SCHEMAS / f"{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    return path


def tables(database: Database) -> set[tuple[str, str]]:
    rows = database.all("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {(row["name"], " ".join(str(row["sql"]).split())) for row in rows}


def test_there_is_a_list_of_every_version() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.sql")} == {str(number + 1) for number in range(len(MIGRATIONS))}


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_list_of_every_version_is_brought_up_to_date_with_what_is_in_it(tmp_path: Path, version: int) -> None:
    fresh, old = Database(tmp_path / "fresh.sqlite3"), Database(old_list(tmp_path / "old.sqlite3", version))
    try:
        assert tables(old) == tables(fresh)
        assert old.one("PRAGMA user_version")[0] == len(MIGRATIONS)
        for table in ("runs", "images", "styles", "jobs", "pictures", "past_runs"):
            assert old.one(f"SELECT count(*) FROM {table}")[0] == 1, table
        assert old.one("SELECT seconds_per_step FROM past_runs")[0] == 0.5
    finally:
        fresh.close()
        old.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_studio_of_every_version_shows_its_runs(tmp_path: Path, version: int) -> None:
    home = tmp_path / "studio"
    home.mkdir()
    old_list(home / "studio.sqlite3", version)
    parts = put_together(home)
    try:
        (run,) = parts.runs.all()
        assert (run.name, run.state) == ("Ink", State.FINISHED)
        assert [image.name for image in parts.images.images("run-1")] == ["apple.png"]
    finally:
        parts.store.db.close()


def test_an_upgrade_that_is_cut_off_leaves_the_old_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_list(tmp_path / "old.sqlite3", 1)
    monkeypatch.setattr("trainer.studio.database.MIGRATIONS", (MIGRATIONS[0], MIGRATIONS[1] + ";\nNONSENSE;\n"))
    with pytest.raises(StudioError):
        Database(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM leases").fetchone()[0] == 1
    connection.close()


def test_a_list_that_is_only_read_stays_as_it_is(tmp_path: Path) -> None:
    path = old_list(tmp_path / "old.sqlite3", 1)
    before = path.read_bytes()
    database = Database(path, read_only=True)
    assert database.one("SELECT name FROM runs")[0] == "Ink"
    with pytest.raises(sqlite3.OperationalError):
        database.write("DELETE FROM runs")
    database.close()
    assert path.read_bytes() == before
    with pytest.raises(StudioError, match="cannot be opened"):
        Database(tmp_path / "none.sqlite3", read_only=True)


def test_a_clock_that_jumps_back_and_forth_changes_no_order_and_loses_no_work(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    queued = []
    for jump in (0.0, -(10 * 365 * 86400.0), 50 * 365 * 86400.0, -3600.0):
        shift = jump
        run = parts.drafts.create({"name": f"at {jump:.0f}"})
        parts.store.enqueue(run)
        queued.append(run)
    assert [run.id for run in parts.store.in_state(State.QUEUED)] == queued
    assert parts.store.claim(queued[1])
    parts.store.wish(queued[1], Wish.PAUSE)
    parts.store.hand_back(queued[1], State.QUEUED)
    assert parts.store.get(queued[1]).state is State.PAUSED
