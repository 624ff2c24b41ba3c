"""The worker's keeper, with processes in the worker's place that do what a real one would not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from studio_parts import Parts

from trainer.errors import StudioError
from trainer.events import PreviewRow
from trainer.studio.store import State
from trainer.studio.views import PreviewOrder
from trainer.studio.worker.protocol import Inspect

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


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


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
