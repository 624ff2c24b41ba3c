"""The trash keeps for thirty days what was deleted, and does not believe a clock that jumps."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from studio_parts import Parts

from trainer.studio.preferences import Preferences
from trainer.studio.trash import GAP_SECONDS, KEPT_SECONDS, Trash

DAY = 86400.0


class Calendar:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    clock = Calendar()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def trash(parts: Parts, calendar: Calendar) -> Trash:
    opened = Trash(Preferences(parts.store.db), parts.runs, parts.library)
    opened.tidy_up()
    return opened


@pytest.fixture
def deleted(parts: Parts, calendar: Calendar, uploads: list[Path]) -> str:
    run_id = parts.drafts.create({"name": "Shapes"})
    parts.drafts.add_images(run_id, uploads)
    parts.runs.delete(run_id)
    return run_id


def ids(trash: Trash) -> list[str]:
    return [item for item, _, _ in trash.items()]


def use_daily(trash: Trash, calendar: Calendar, seconds: float) -> None:
    end = calendar.now + seconds
    while calendar.now < end:
        calendar.now = min(calendar.now + DAY, end)
        trash.tidy_up()


def test_a_studio_in_use_forgets_after_thirty_days(
    parts: Parts, trash: Trash, calendar: Calendar, deleted: str
) -> None:
    use_daily(trash, calendar, KEPT_SECONDS - DAY)
    assert ids(trash) == [deleted]
    assert (parts.home.trash / deleted).is_dir()
    use_daily(trash, calendar, 2 * DAY)
    assert ids(trash) == []
    assert not (parts.home.trash / deleted).exists()
    assert parts.store.known() == set()


@pytest.mark.parametrize("years", [1 / 12, 0.25, 10, -10])
def test_a_clock_that_jumps_removes_nothing(trash: Trash, calendar: Calendar, deleted: str, years: float) -> None:
    calendar.now += years * 365 * DAY
    for _ in range(5):
        trash.tidy_up()
        calendar.now += DAY
    assert ids(trash) == [deleted]


def test_after_a_jump_and_back_the_trash_is_emptied_again_when_it_should_be(
    trash: Trash, calendar: Calendar, deleted: str
) -> None:
    calendar.now += 50 * 365 * DAY
    trash.tidy_up()
    calendar.now -= 50 * 365 * DAY
    use_daily(trash, calendar, GAP_SECONDS + DAY)
    assert ids(trash) == [deleted]
    use_daily(trash, calendar, KEPT_SECONDS)
    assert ids(trash) == []


def test_emptied_by_hand_it_is_empty_at_once(trash: Trash, calendar: Calendar, deleted: str) -> None:
    calendar.now += 1
    trash.empty()
    assert ids(trash) == []
