"""The list of runs: states, queue, and who may work on what."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from trainer.errors import DiskFull, StudioError
from trainer.studio import database as databases
from trainer.studio.database import MIGRATIONS, Database
from trainer.studio.store import MAX_CRASHES, TRANSITIONS, State, Store, Wish


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "studio.sqlite3")
    yield Store(database)
    database.close()


def add(store: Store, *names: str, state: State = State.DRAFT) -> None:
    for name in names:
        store.add(name, name, {"name": name}, state)


def put(store: Store, run: str, state: State) -> None:
    """Bring a run into a state by force."""
    store.db.write("UPDATE runs SET state = ?, position = 0 WHERE id = ?", (state, run))


def queue(store: Store) -> list[str]:
    return [run.id for run in store.in_state(State.QUEUED)]


# ---- states


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_a_state_changes_only_along_the_listed_transitions(store: Store, before: State, after: State) -> None:
    add(store, "a")
    put(store, "a", before)
    if after in TRANSITIONS[before]:
        assert store.move_to("a", after).state is after
    else:
        with pytest.raises(StudioError, match=f"is {before} and cannot become {after}"):
            store.move_to("a", after)
        assert store.get("a").state is before


def test_a_finished_run_stays_finished() -> None:
    assert TRANSITIONS[State.FINISHED] == frozenset()


def test_the_database_itself_refuses_an_unknown_state(store: Store) -> None:
    add(store, "a")
    with pytest.raises(sqlite3.IntegrityError):
        store.db.write("UPDATE runs SET state = 'asleep' WHERE id = 'a'")


def test_settings_change_only_while_a_run_is_a_draft(store: Store) -> None:
    add(store, "a")
    store.set_settings("a", {"name": "Ink", "train": {"steps": 5}})
    assert store.get("a").name == "Ink"
    store.enqueue("a")
    with pytest.raises(StudioError, match="Duplicate it"):
        store.set_settings("a", {"name": "Other"})
    assert store.get("a").settings == {"name": "Ink", "train": {"steps": 5}}


def test_an_unknown_run_is_a_sentence(store: Store) -> None:
    with pytest.raises(StudioError, match="no run 'nothing'"):
        store.get("nothing")
    with pytest.raises(StudioError, match="no run 'nothing'"):
        store.rename("nothing", "name")


# ---- queue


def test_the_queue_is_first_come_first_served_and_can_be_reordered(store: Store) -> None:
    add(store, "a", "b", "c", "d")
    for name in "abcd":
        store.enqueue(name)
    assert queue(store) == ["a", "b", "c", "d"]
    store.reorder("d", 0)
    store.reorder("a", 2)
    assert queue(store) == ["d", "b", "a", "c"]
    store.reorder("d", 99)
    assert queue(store) == ["b", "a", "c", "d"]


def test_a_run_can_be_put_at_the_head(store: Store) -> None:
    add(store, "a", "b", "c")
    store.enqueue("a")
    store.enqueue("b")
    store.enqueue("c", first=True)
    assert queue(store) == ["c", "a", "b"]


def test_a_run_outside_the_queue_cannot_be_reordered(store: Store) -> None:
    add(store, "a")
    with pytest.raises(StudioError, match="does not wait in the queue"):
        store.reorder("a", 0)


def test_deleting_takes_a_run_out_of_lists_and_queue_and_can_be_undone(store: Store) -> None:
    add(store, "a", "b")
    store.enqueue("a")
    store.trash("a", deleted=True)
    assert [run.id for run in store.all()] == ["b"]
    assert queue(store) == []
    assert store.known() == {"a", "b"}
    store.trash("a", deleted=False)
    assert store.get("a").state is State.CANCELLED
    assert {run.id for run in store.all()} == {"a", "b"}


def test_a_run_in_training_cannot_be_deleted(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a")
    with pytest.raises(StudioError, match="Pause or cancel it first"):
        store.trash("a", deleted=True)


# ---- one worker a run


def test_a_run_is_claimed_once(store: Store) -> None:
    add(store, "a")
    assert not store.claim("a")
    store.enqueue("a")
    assert store.claim("a")
    assert store.get("a").state is State.TRAINING
    assert not store.claim("a")
    assert not store.claim("nothing")


def _claim(path: Path, start: multiprocessing.synchronize.Event, won: multiprocessing.Queue[int]) -> None:
    database = Database(path)
    start.wait()
    if Store(database).claim("a"):
        won.put(os.getpid())
    time.sleep(0.5)
    database.close()


def test_of_many_processes_that_claim_a_run_at_once_one_gets_it(store: Store, tmp_path: Path) -> None:
    add(store, "a")
    store.enqueue("a")
    context = multiprocessing.get_context("spawn")
    start, won = context.Event(), context.Queue()
    path = tmp_path / "studio.sqlite3"
    processes = [context.Process(target=_claim, args=(path, start, won)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        process.close()
    assert won.get(timeout=60) > 0
    assert won.empty()
    won.close()
    won.join_thread()


def test_a_run_whose_worker_died_goes_to_the_head_of_the_queue(store: Store) -> None:
    add(store, "a", "b")
    store.enqueue("a")
    store.enqueue("b")
    assert store.claim("a")
    assert store.recover("a", step=4, crashed=True).state is State.QUEUED
    assert queue(store) == ["a", "b"]
    assert store.claim("a")


def test_a_run_that_was_handed_back_in_the_meantime_is_not_recovered(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a")
    store.hand_back("a", State.FINISHED)
    assert store.recover("a", step=4, crashed=True).state is State.FINISHED


def die(store: Store, step: int, *, crashed: bool = True) -> State:
    assert store.claim("a")
    return store.recover("a", step, crashed=crashed).state


def test_a_worker_that_was_asked_to_end_never_counts_as_a_crash(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    assert {die(store, 0, crashed=False) for _ in range(3 * MAX_CRASHES)} == {State.QUEUED}
    assert store.get("a").crashes == 0


def test_a_run_that_keeps_dying_without_getting_further_fails_with_a_sentence(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    assert [die(store, 10) for _ in range(MAX_CRASHES - 1)] == [State.QUEUED] * (MAX_CRASHES - 1)
    assert die(store, 10) is State.FAILED
    assert "died 3 times without getting further than step 10" in store.get("a").message


def test_a_run_that_gets_further_between_deaths_goes_on(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    assert {die(store, step) for step in range(0, 100, 10)} == {State.QUEUED}


def test_resuming_a_failed_run_forgets_its_crashes(store: Store) -> None:
    add(store, "a")
    store.enqueue("a")
    for _ in range(MAX_CRASHES):
        die(store, 10)
    store.enqueue("a")
    assert die(store, 10) is State.QUEUED


@pytest.mark.parametrize(
    ("wish", "state"),
    [
        (Wish.NONE, State.QUEUED),
        (Wish.STOP, State.QUEUED),
        (Wish.PAUSE, State.PAUSED),
        (Wish.CANCEL, State.CANCELLED),
    ],
)
def test_a_wish_outlives_the_worker_that_should_have_fulfilled_it(store: Store, wish: Wish, state: State) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a")
    store.wish("a", wish)
    run = store.recover("a", step=3, crashed=True)
    assert run.state is state
    assert run.wish is (Wish.STOP if wish is Wish.STOP else Wish.NONE)


def test_work_ends_with_its_state(store: Store) -> None:
    add(store, "a", "b")
    for name, state in (("a", State.FINISHED), ("b", State.FAILED)):
        store.enqueue(name)
        assert store.claim(name)
        store.hand_back(name, state, "why")
        assert store.get(name).state is state


def test_work_that_nobody_does_cannot_end(store: Store) -> None:
    add(store, "a")
    with pytest.raises(StudioError, match="cannot become"):
        store.hand_back("a", State.FINISHED)
    assert store.get("a").state is State.DRAFT


# ---- the file


def test_everything_is_there_after_opening_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "studio.sqlite3"
    database = Database(path)
    add(Store(database), "a")
    database.close()
    database = Database(path)
    assert Store(database).get("a").name == "a"
    database.close()


def test_an_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "studio.sqlite3"
    database = Database(path)
    add(Store(database), "a")
    database.close()
    added = "ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'green';\nCREATE TABLE extra (x INTEGER) STRICT;"
    monkeypatch.setattr(databases, "MIGRATIONS", (*MIGRATIONS, added))
    database = Database(path)
    assert database.one("SELECT colour FROM runs")["colour"] == "green"
    assert database.one("PRAGMA user_version")[0] == len(MIGRATIONS) + 1
    database.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "studio.sqlite3"
    Database(path).close()
    broken = "CREATE TABLE extra (x INTEGER) STRICT;\nCREATE TABLE runs (id TEXT);"
    monkeypatch.setattr(databases, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(StudioError):
        Database(path)
    monkeypatch.undo()
    database = Database(path)
    assert database.one("SELECT name FROM sqlite_master WHERE name = 'extra'") is None
    database.close()


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "studio.sqlite3"
    database = Database(path)
    database.write("PRAGMA user_version = 999")
    database.close()
    with pytest.raises(StudioError, match="later version of Patina"):
        Database(path)


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "studio.sqlite3"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StudioError, match="damaged or no database"):
        Database(path)


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    add(store, "a")

    def half() -> None:
        with store.db.transaction():
            store.rename("a", "changed")
            with store.db.transaction():
                store.enqueue("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert (store.get("a").name, store.get("a").state) == ("a", State.DRAFT)


def fill(database: Database) -> None:
    """Leave this connection no room to grow the file, as a full disk would."""
    database.write(f"PRAGMA max_page_count = {database.one('PRAGMA page_count')[0]}")


def test_a_full_disk_is_a_sentence_and_the_connection_goes_on_when_there_is_room(store: Store) -> None:
    fill(store.db)
    with pytest.raises(DiskFull, match="Free some space"):
        store.add("large", "x" * 1_000_000, {})
    store.db.write("PRAGMA max_page_count = 1000000")
    add(store, "after")
    assert store.get("after").name == "after"


def test_a_transaction_that_a_full_disk_ended_leaves_nothing_and_the_next_one_begins(store: Store) -> None:
    fill(store.db)

    def too_much() -> None:
        with store.db.transaction():
            for number in range(1000):
                store.add(f"run-{number}", "x" * 1000, {})

    with pytest.raises(DiskFull):
        too_much()
    store.db.write("PRAGMA max_page_count = 1000000")
    with store.db.transaction():
        add(store, "after")
    assert [run.id for run in store.all()] == ["after"]
