"""The worker's keeper, with processes in the worker's place that do what a real one would not."""

from __future__ import annotations

import itertools
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from studio_parts import Parts
from waiting import until

from trainer.errors import DiskFull, StudioError
from trainer.preview.order import PreviewOrder, PreviewRow, StyleUse
from trainer.studio.database import Database
from trainer.studio.folder import ROOM_BYTES, StudioFolder
from trainer.studio.store import RunRow, State
from trainer.studio.worker import pipe
from trainer.studio.worker.protocol import Inspect
from trainer.studio.worker.starved import MemoryWatch
from trainer.studio.worker.supervisor import Supervisor
from trainer.training.recovery import Change, Recovery
from trainer.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")

HELLO = '{"type": "hello", "pid": 1, "device": "cpu", "device_name": "CPU", "memory_total": 1}'


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the supervisor start a shell script for a worker."""

    def use(script: str) -> None:
        file = tmp_path / "stand-in"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return use


@pytest.fixture
def kept(parts: Parts, stand_in: Callable[[str], None]) -> Iterator[Parts]:
    """The parts with a supervisor that is started by the test and closed after it."""
    yield parts
    parts.supervisor.close()


def order(prompt: str = "a boat") -> PreviewOrder:
    return PreviewOrder(rows=(PreviewRow(prompt=prompt),))


def starts(parts: Parts) -> int:
    return parts.home.worker_log.read_text().count("start\n") if parts.home.worker_log.is_file() else 0


def test_a_worker_that_cannot_start_is_tried_three_times_and_then_said(
    kept: Parts, stand_in: Callable[[str], None]
) -> None:
    stand_in("echo start >&2; exit 1")
    kept.supervisor.start()
    job_id = kept.pictures.order(order())
    until(lambda: kept.pictures.view(job_id).state == "failed", "the job's end")
    assert "does not start" in kept.pictures.view(job_id).message
    assert str(kept.home.worker_log) in kept.pictures.view(job_id).message
    assert starts(kept) == 3


def test_a_queued_run_fails_with_the_same_sentence_and_can_be_tried_again(
    kept: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    run_id = kept.drafts.create()
    kept.drafts.add_images(run_id, uploads)
    stand_in("exit 1")
    kept.supervisor.start()
    kept.runs.enqueue(run_id)
    until(lambda: kept.store.get(run_id).state is State.FAILED, "the run's end")
    assert "does not start" in kept.store.get(run_id).message
    kept.runs.resume(run_id)
    until(lambda: kept.store.get(run_id).state is State.FAILED, "the run's second end")


def test_a_worker_that_dies_over_a_job_fails_that_job_and_goes_on_with_the_next(
    kept: Parts, stand_in: Callable[[str], None]
) -> None:
    # It begins the first job that it is sent and dies; the second worker of the same kind begins the second job.
    began = r"""echo "$line" | sed 's/.*"job":"\([^"]*\)".*/{"type": "drawing", "job": "\1"}/'"""
    stand_in(f"echo start >&2; echo '{HELLO}'; read line; {began}; kill -9 $$")
    first, second = kept.pictures.order(order("one")), kept.pictures.order(order("two"))
    kept.supervisor.start()
    until(lambda: kept.pictures.view(second).state == "failed", "the second job's end")
    for job_id in (first, second):
        assert kept.pictures.view(job_id).message.startswith("The worker ended while it made this (signal 9")
    assert starts(kept) == 2


def test_lines_that_are_no_replies_do_no_harm(kept: Parts, stand_in: Callable[[str], None]) -> None:
    stand_in(f"echo 'Loading weights: 50%'; echo; echo '{HELLO}'; cat > /dev/null")
    kept.supervisor.start()
    kept.pictures.order(order())
    until(lambda: kept.supervisor.worker_state()[1] is not None, "hello")
    assert kept.supervisor.worker_state()[0] == "idle"


def test_a_question_that_is_not_answered_in_time_is_a_sentence(kept: Parts, stand_in: Callable[[str], None]) -> None:
    stand_in(f"echo '{HELLO}'; cat > /dev/null")
    kept.supervisor.start()
    with pytest.raises(StudioError, match="did not answer in time"):
        kept.supervisor.ask(Inspect(ask="a", path="x"), timeout=0.5)


def test_a_question_over_which_the_worker_dies_is_answered_at_once(
    kept: Parts, stand_in: Callable[[str], None]
) -> None:
    stand_in(f"echo '{HELLO}'; read line; exit 9")
    kept.supervisor.start()
    with pytest.raises(StudioError, match="ended meanwhile"):
        kept.supervisor.ask(Inspect(ask="a", path="x"), timeout=60)


def test_without_work_there_is_no_worker(kept: Parts, stand_in: Callable[[str], None]) -> None:
    stand_in("echo start >&2")
    kept.supervisor.start()
    kept.supervisor.look()
    time.sleep(0.3)
    assert (starts(kept), kept.supervisor.pid) == (0, None)


def test_closing_ends_a_worker_that_waits_for_requests(kept: Parts, stand_in: Callable[[str], None]) -> None:
    stand_in(f"echo '{HELLO}'; cat > /dev/null; echo saved >&2")
    kept.supervisor.start()
    kept.pictures.order(order())
    until(lambda: kept.supervisor.worker_state()[1] is not None, "hello")
    kept.supervisor.close()
    assert kept.supervisor.pid is None
    assert "saved" in kept.home.worker_log.read_text()


# ---- several cards


@pytest.fixture
def two_cards(parts: Parts) -> Iterator[Parts]:
    """The parts with a supervisor for two cards, to be started by the test."""
    alone = parts.supervisor
    keeper = Supervisor(parts.home, parts.store, parts.jobs, idle_seconds=60, cards=("4", "7"))
    with_two = Parts(**{**vars(parts), "supervisor": keeper})
    for part in (with_two.runs, with_two.pictures):
        assert part._supervisor is alone
        part._supervisor = keeper
    yield with_two
    keeper.close()
    alone.start()
    alone.close()


def sees(parts: Parts, card: str, *words: str) -> bool:
    """Whether the worker that sees this card alone was sent a line with all these words."""
    log = parts.home.worker_log.read_text() if parts.home.worker_log.is_file() else ""
    return any(line.startswith(f"{card}: ") and all(each in line for each in words) for line in log.splitlines())


# It notes what it sees and is sent, and ends a run that is steered; itself when it is to leave, after a run of several
# cards, and when a picture of its end is asked for.
ON_A_CARD = r"""
echo 'HELLO'
while read line; do
    echo "$CUDA_VISIBLE_DEVICES: $line" >&2
    case "$line" in
        *steer*)
            echo "$line" | sed 's/.*"run":"\([^"]*\)".*/{"type": "run-ended", "run": "\1"}/'
            case "$CUDA_VISIBLE_DEVICES" in *,*) exit 0;; esac;;
        *the-end*) exit 1;;
        *leave*) exit 0;;
    esac
done
""".replace("HELLO", HELLO.replace('"cpu"', '"cuda"'))


def test_each_card_trains_a_run_of_the_queue_and_draws_what_only_it_can(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    first, second, third = (queued(two_cards, uploads) for _ in range(3))
    store = two_cards.store
    stand_in(ON_A_CARD)
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "4", '"train"', first) and sees(two_cards, "7", '"train"', second), "both runs")
    assert two_cards.runs.starts_at_once(second), "it has a worker, and has not begun"
    assert store.claim(first)
    assert store.claim(second)
    assert [run.id for run in two_cards.runs.in_training()] == [first, second]
    assert not two_cards.runs.starts_at_once(third)
    row = PreviewRow(prompt="a cat", strengths=(1.0,))
    live = two_cards.pictures.order(PreviewOrder(styles=(StyleUse(style=second),), rows=(row,)))
    plain = two_cards.pictures.order(order())
    until(lambda: sees(two_cards, "7", '"draw"', live) and sees(two_cards, "4", '"draw"', plain), "the pictures")

    # The second run is over: the third takes its card. A run that is put first again does so, too.
    store.hand_back(second, State.FAILED, "over")
    two_cards.supervisor.steer(second)
    until(lambda: sees(two_cards, "7", '"train"', third), "the run that waited")
    assert not sees(two_cards, "4", '"train"', third)

    # A worker that dies takes nothing of the other's with it.
    doomed = two_cards.pictures.order(order("the-end"))
    until(lambda: sees(two_cards, "4", '"draw"', doomed), "the end")
    until(lambda: store.get(first).crashes == 1, "the recovery")
    assert store.claim(third)
    assert store.get(third).crashes == 0
    two_cards.pictures.cancel(live)
    two_cards.supervisor.close()
    assert two_cards.supervisor.pid is None
    assert store.get(third).state is State.QUEUED, "closing saves what every card trains"


def test_pictures_are_drawn_on_a_card_that_trains_nothing(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    run_id = queued(two_cards, uploads)
    stand_in(ON_A_CARD)
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "4", '"train"', run_id), "the run")
    until(lambda: two_cards.runs.starts_at_once(run_id), "hello")
    job = two_cards.pictures.order(order())
    until(lambda: sees(two_cards, "7", '"draw"', job), "the picture")
    assert not sees(two_cards, "4", '"draw"')


def test_a_run_that_names_its_card_waits_for_it_and_lets_others_pass(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    def asked(device: str) -> str:
        run_id = two_cards.drafts.create()
        two_cards.drafts.add_images(run_id, uploads)
        two_cards.drafts.update(run_id, {"train.device": device})
        two_cards.runs.enqueue(run_id)
        return run_id

    first, second, third = asked("cuda:1"), asked("cuda:1"), asked("auto")
    stand_in(ON_A_CARD)
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "7", '"train"', first) and sees(two_cards, "4", '"train"', third), "two runs")
    assert not sees(two_cards, "", '"train"', second)


def test_a_run_of_several_cards_waits_for_them_and_gets_a_worker_of_its_own(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    store, runs = two_cards.store, two_cards.runs
    first, both, last = (two_cards.drafts.create() for _ in range(3))
    two_cards.drafts.update(both, {"train.gpus": 2})
    for run_id in (first, both, last):
        two_cards.drafts.add_images(run_id, uploads)
        runs.enqueue(run_id)
    stand_in(ON_A_CARD)
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "4", '"train"', first), "the first run")
    assert store.claim(first)
    job = two_cards.pictures.order(order())
    until(lambda: sees(two_cards, "7", '"draw"', job), "a picture on the other card")
    assert runs.starts_at_once(last)
    assert not runs.starts_at_once(both)
    assert not sees(two_cards, "7", '"train"'), "nobody goes before a run that waits for all cards"

    store.hand_back(first, State.FAILED, "over")
    two_cards.supervisor.steer(first)
    until(lambda: sees(two_cards, "4,7", '"train"', both), "the run of both")
    assert sees(two_cards, "4", '"leave"')
    assert sees(two_cards, "7", '"leave"')
    assert store.claim(both)
    assert not runs.starts_at_once(last)
    store.hand_back(both, State.FAILED, "over")
    two_cards.supervisor.steer(both)
    until(lambda: sees(two_cards, "4", '"train"', last), "the last run, by a worker of one card again")
    assert not sees(two_cards, "4,7", '"train"', last)


def test_cards_that_pytorch_cannot_use_have_one_worker(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    runs = [queued(two_cards, uploads) for _ in range(2)]
    stand_in(f"echo '{HELLO}'; while read line; do echo \"$CUDA_VISIBLE_DEVICES: $line\" >&2; done")
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "4", '"train"', runs[0]), "the first run")
    job = two_cards.pictures.order(order())
    until(lambda: sees(two_cards, "4", '"draw"', job), "the picture")
    assert not sees(two_cards, "4", '"train"', runs[1])
    assert not sees(two_cards, "7")


def test_a_card_whose_worker_does_not_start_leaves_the_queue_to_the_others(
    two_cards: Parts, stand_in: Callable[[str], None], uploads: list[Path]
) -> None:
    runs = [queued(two_cards, uploads) for _ in range(2)]
    stand_in(f'if [ "$CUDA_VISIBLE_DEVICES" = 4 ]; then echo start >&2; exit 1; fi\n{ON_A_CARD}')
    two_cards.supervisor.start()
    until(lambda: sees(two_cards, "7", '"train"', runs[0]), "the run")
    assert starts(two_cards) == 3
    assert two_cards.store.get(runs[1]).state is State.QUEUED


# ---- a full disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk under the studio folder that a test fills and empties; only the studio's own file feels it."""
    state = SimpleNamespace(full=False)
    execute = Database._execute

    def feel(self: Database, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        if state.full and not statement.startswith(("SELECT", "PRAGMA")):
            raise DiskFull("The disk is full.")
        return execute(self, statement, values)

    monkeypatch.setattr(Database, "_execute", feel)
    monkeypatch.setattr(StudioFolder, "free_bytes", lambda self: 0 if state.full else 10 * ROOM_BYTES)
    return state


def queued(parts: Parts, uploads: list[Path]) -> str:
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, uploads)
    parts.runs.enqueue(run_id)
    return run_id


def test_a_run_that_a_full_disk_ended_waits_for_room_and_is_then_trained_again(
    kept: Parts, stand_in: Callable[[str], None], uploads: list[Path], disk: SimpleNamespace
) -> None:
    run_id = queued(kept, uploads)
    ended = f'{{"type": "run-ended", "run": "{run_id}", "disk_full": true}}'
    stand_in(f"echo '{HELLO}'; while read line; do echo start >&2; echo '{ended}'; done")
    disk.full = True
    kept.supervisor.start()
    until(lambda: kept.supervisor.disk_full, "the full disk")
    view = kept.runs.view(run_id)
    assert view.state is State.QUEUED
    assert "goes on by itself" in view.waits
    assert "goes on by itself" in kept.runs.all()[0].waits
    time.sleep(2.5)
    assert starts(kept) == 1, "without room it is not tried again"
    disk.full = False
    until(lambda: starts(kept) > 1, "the second try")


def test_the_supervisor_outlives_a_full_disk_and_recovers_the_run_when_there_is_room(
    kept: Parts, stand_in: Callable[[str], None], uploads: list[Path], disk: SimpleNamespace
) -> None:
    # Nothing can be noted, in the log either.
    run_id = queued(kept, uploads)
    stand_in(f"echo '{HELLO}'; read line; exit 1")
    assert kept.store.claim(run_id)
    disk.full = True
    kept.home.worker_log.mkdir()
    kept.supervisor.start()
    until(lambda: kept.supervisor.disk_full, "the full disk")
    assert kept.runs.view(run_id).waits
    kept.home.worker_log.rmdir()
    disk.full = False
    until(lambda: kept.store.get(run_id).state is not State.TRAINING, "the recovery")
    assert not kept.supervisor.disk_full
    assert kept.store.get(run_id).crashes == 0


def test_pictures_that_could_not_be_listed_on_a_full_disk_are_listed_later(
    kept: Parts, stand_in: Callable[[str], None], disk: SimpleNamespace
) -> None:
    job_id = kept.pictures.order(order())
    path = kept.home.preview(job_id) / "00.png"
    drawn = f'{{"type": "drawn", "job": "{job_id}", "index": 0, "path": "{path}"}}'
    ended = f'{{"type": "draw-ended", "job": "{job_id}", "state": "done"}}'
    stand_in(f"echo '{HELLO}'; read line; echo '{drawn}'; echo '{ended}'; cat > /dev/null")
    disk.full = True
    kept.supervisor.start()
    until(lambda: kept.supervisor.disk_full, "the full disk")
    assert kept.supervisor.pid is not None
    disk.full = False
    until(lambda: kept.pictures.view(job_id).state == "done", "the note of its end")
    assert [picture.path for picture in kept.pictures.view(job_id).pictures] == [path]


# ---- what counts as a crash


def test_closing_before_the_base_is_loaded_never_fails_a_run(
    parts: Parts, stand_in: Callable[[str], None], uploads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It loads for longer than the app waits, and is killed then.
    monkeypatch.setattr(pipe, "CLOSE_SECONDS", 0.2)
    run_id = queued(parts, uploads)
    stand_in(f"echo '{HELLO}'; read line; echo start >&2; exec sleep 60")
    for attempt in range(1, 5):
        keeper = Supervisor(parts.home, parts.store, parts.jobs, idle_seconds=60)
        keeper.start()
        until(lambda: starts(parts) == attempt, "the start")  # noqa: B023
        assert parts.store.claim(run_id)
        keeper.close()
        assert (parts.store.get(run_id).state, parts.store.get(run_id).crashes) == (State.QUEUED, 0)
    assert not (parts.home.run(run_id) / "crash.log").exists()


Dies = Callable[[], None]


@pytest.fixture
def dies(
    kept: Parts,
    stand_in: Callable[[str], None],
    uploads: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Dies:
    """Has a worker begin a queued run and be killed over it; the stand-in cannot claim the run, so this does it."""
    # The last of them waits for a death that does not come, and does not listen.
    monkeypatch.setattr(pipe, "CLOSE_SECONDS", 0.2)
    run_id = queued(kept, uploads)
    claimed = tmp_path / "claimed"
    wait = f"while ! rm '{claimed}' 2> /dev/null; do sleep 0.01; done"
    stand_in(f"echo '{HELLO}'; read line; echo start >&2; {wait}; kill -9 $$")
    kept.supervisor.start()
    attempts = itertools.count(1)

    def die() -> None:
        attempt = next(attempts)
        until(lambda: starts(kept) == attempt, "the start")
        assert kept.store.claim(run_id)
        claimed.touch()
        until(lambda: kept.store.get(run_id).state is not State.TRAINING, "the recovery")

    return die


def only_run(parts: Parts) -> RunRow:
    (run,) = parts.store.all()
    return run


def test_a_worker_that_dies_over_a_run_three_times_fails_it(kept: Parts, dies: Dies) -> None:
    for _ in range(3):
        dies()
    run = only_run(kept)
    assert run.state is State.FAILED
    assert "died 3 times" in run.message
    assert (kept.home.run(run.id) / "crash.log").is_file()
    assert not RunFolder(kept.home.run(run.id)).recovery_file.exists(), "nobody knows that it was memory"


def test_a_worker_that_is_killed_for_memory_leaves_word_for_the_next_which_is_no_crash(
    kept: Parts, dies: Dies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryWatch, "ran_out", lambda self: True)
    dies()
    run = only_run(kept)
    assert (run.state, run.crashes) == (State.QUEUED, 0)
    said = "The system ended the worker because memory had run out: the run goes on from step 0."
    folder = RunFolder(kept.home.run(run.id))
    assert Recovery(folder.recovery_file).kill == Change(0, said, killed=True)
    assert [notice.text for notice in kept.runs.view(run.id).notices] == [said]
    assert said in kept.home.worker_log.read_text()
    # Nobody came to do something about it: those count.
    for crashes in (1, 2):
        dies()
        assert only_run(kept).crashes == crashes
    assert len(Recovery(folder.recovery_file).changes) == 1


def test_a_run_that_is_killed_for_memory_with_every_saving_in_use_gives_up_with_a_sentence(
    kept: Parts, dies: Dies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryWatch, "ran_out", lambda self: True)
    run = only_run(kept)
    recovery = Recovery(RunFolder(kept.home.run(run.id)).recovery_file)
    recovery.add(Change(0, "killed", killed=True))
    recovery.add(Change(0, "tried once more"))
    dies()
    run = only_run(kept)
    assert run.state is State.FAILED
    assert run.message.startswith("Memory ran out at step 0, and every saving is in use. Close other programs")
    assert kept.runs.view(run.id).error == run.message
