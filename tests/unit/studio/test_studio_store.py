"""The list of runs: states, queue, leases, and who may work on what."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import psutil
import pytest

from trainer.errors import StudioError
from trainer.studio import database as databases
from trainer.studio.database import MIGRATIONS, Database
from trainer.studio.lease import STALE_SECONDS, Leases, Owner, this_process
from trainer.studio.store import MAX_CRASHES, TRANSITIONS, State, Store, Wish


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "studio.sqlite3")
    yield Store(database)
    database.close()


@pytest.fixture
def dead() -> Owner:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    owner = Owner(platform.node(), process.pid, psutil.Process(process.pid).create_time())
    process.wait()
    return owner


@pytest.fixture
def living() -> Iterator[Owner]:
    """A process that is not this one and lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield Owner(platform.node(), process.pid, psutil.Process(process.pid).create_time())
    process.communicate()


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
    assert store.claim("a", this_process())
    with pytest.raises(StudioError, match="Pause or cancel it first"):
        store.trash("a", deleted=True)


# ---- one worker a run


def test_a_run_is_claimed_once(store: Store, living: Owner) -> None:
    add(store, "a")
    assert not store.claim("a", this_process())
    store.enqueue("a")
    assert store.claim("a", this_process())
    assert store.get("a").state is State.TRAINING
    assert not store.claim("a", living)
    assert not store.claim("a", this_process())
    assert not store.claim("nothing", this_process())


def _claim(path: Path, start: multiprocessing.synchronize.Event, won: multiprocessing.Queue[int]) -> None:
    database = Database(path)
    start.wait()
    if Store(database).claim("a", this_process()):
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
    assert won.get(timeout=5) > 0
    assert won.empty()
    won.close()
    won.join_thread()


def test_a_run_whose_worker_died_is_abandoned_and_goes_to_the_head_of_the_queue(store: Store, dead: Owner) -> None:
    add(store, "a", "b")
    store.enqueue("a")
    store.enqueue("b")
    put(store, "a", State.TRAINING)
    store.db.write(
        "INSERT INTO leases VALUES ('run:a', ?, ?, ?, ?, '')", (dead.host, dead.pid, dead.started, time.time())
    )
    assert [run.id for run in store.abandoned()] == ["a"]
    assert store.recover("a", step=4).state is State.QUEUED
    assert queue(store) == ["a", "b"]
    assert store.claim("a", this_process())


def test_a_run_with_a_living_worker_is_not_abandoned(store: Store, living: Owner) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a", living)
    assert store.abandoned() == []
    assert store.recover("a", step=4).state is State.TRAINING


def die(store: Store, owner: Owner, step: int) -> State:
    assert store.claim("a", owner)
    return store.recover("a", step).state


def test_a_run_that_keeps_dying_without_getting_further_fails_with_a_sentence(store: Store, dead: Owner) -> None:
    add(store, "a")
    store.enqueue("a")
    assert [die(store, dead, 10) for _ in range(MAX_CRASHES - 1)] == [State.QUEUED] * (MAX_CRASHES - 1)
    assert die(store, dead, 10) is State.FAILED
    assert "died 3 times without getting further than step 10" in store.get("a").message


def test_a_run_that_gets_further_between_deaths_goes_on(store: Store, dead: Owner) -> None:
    add(store, "a")
    store.enqueue("a")
    assert {die(store, dead, step) for step in range(0, 100, 10)} == {State.QUEUED}


def test_resuming_a_failed_run_forgets_its_crashes(store: Store, dead: Owner) -> None:
    add(store, "a")
    store.enqueue("a")
    for _ in range(MAX_CRASHES):
        die(store, dead, 10)
    store.enqueue("a")
    assert die(store, dead, 10) is State.QUEUED


@pytest.mark.parametrize(
    ("wish", "state"),
    [
        (Wish.NONE, State.QUEUED),
        (Wish.STOP, State.QUEUED),
        (Wish.PAUSE, State.PAUSED),
        (Wish.CANCEL, State.CANCELLED),
    ],
)
def test_a_wish_outlives_the_worker_that_should_have_fulfilled_it(
    store: Store, dead: Owner, wish: Wish, state: State
) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a", dead)
    store.wish("a", wish)
    run = store.recover("a", step=3)
    assert run.state is state
    assert run.wish is (Wish.STOP if wish is Wish.STOP else Wish.NONE)


def test_work_ends_with_the_state_and_without_the_lease(store: Store) -> None:
    add(store, "a", "b")
    for name, state in (("a", State.FINISHED), ("b", State.FAILED)):
        store.enqueue(name)
        assert store.claim(name, this_process())
        assert store.worked_on(name)
        store.hand_back(name, this_process(), state, "why")
        assert store.get(name).state is state
        assert not store.worked_on(name)


def test_a_worker_cannot_end_work_that_is_not_its_own(store: Store, living: Owner) -> None:
    add(store, "a")
    store.enqueue("a")
    assert store.claim("a", living)
    with pytest.raises(StudioError, match="not this worker's any more"):
        store.hand_back("a", this_process(), State.FINISHED)
    assert store.get("a").state is State.TRAINING


# ---- leases


def test_a_lease_is_held_by_one_living_process_and_says_who_it_is(store: Store, living: Owner) -> None:
    leases = store.leases
    assert leases.take("studio", living, "http://localhost:7860") is None
    refused = leases.take("studio", this_process())
    assert refused is not None
    assert (refused.owner, refused.detail) == (living, "http://localhost:7860")
    leases.give_back("studio", this_process())
    assert leases.holder("studio") is not None
    leases.give_back("studio", living)
    assert leases.take("studio", this_process()) is None


def test_a_dead_process_holds_nothing(store: Store, dead: Owner) -> None:
    assert store.leases.take("studio", dead) is None
    assert store.leases.holder("studio") is None
    assert store.leases.take("studio", this_process()) is None


def test_a_process_id_that_is_used_again_is_another_owner(store: Store) -> None:
    me = this_process()
    earlier = Owner(me.host, me.pid, me.started - 1000)
    assert store.leases.take("studio", earlier) is None
    assert store.leases.holder("studio") is None


def test_on_another_host_the_heartbeat_decides(store: Store) -> None:
    elsewhere = Owner("another-host", 1, 1.0)
    assert store.leases.take("studio", elsewhere) is None
    assert store.leases.take("studio", this_process()) is not None
    store.db.write("UPDATE leases SET heartbeat = ?", (time.time() - STALE_SECONDS - 1,))
    assert store.leases.holder("studio") is None
    store.leases.beat(elsewhere)
    assert store.leases.holder("studio") is not None


def test_a_long_sleep_does_not_end_a_lease_on_the_same_host(store: Store, living: Owner) -> None:
    store.leases.take("studio", living)
    store.db.write("UPDATE leases SET heartbeat = 0")
    assert store.leases.holder("studio") is not None


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


def test_leases_share_the_file_between_connections(tmp_path: Path, living: Owner) -> None:
    one, other = Database(tmp_path / "s.sqlite3"), Database(tmp_path / "s.sqlite3")
    assert Leases(one).take("x", living) is None
    assert Leases(other).take("x", this_process()) is not None
    one.close()
    other.close()
