"""A run's log folded into where it stands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainer.events import (
    Event,
    Failed,
    Finished,
    Interrupted,
    Notice,
    Phase,
    Progress,
    Sampled,
    Saved,
    Started,
    Validated,
)
from trainer.studio.run_log import RunLog
from trainer.training.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def progress(step: int, count: int = 1, loss: float = 0.5) -> Progress:
    losses = tuple(loss + 0.001 * i for i in range(count))
    return Progress(step=step, steps=20, losses=losses, learning_rate=1e-3, samples_per_second=30, seconds_left=9)


def write(folder: RunFolder, *events: Event) -> None:
    for event in events:
        folder.append(event)


def test_an_empty_folder_stands_at_the_beginning(folder: RunFolder) -> None:
    standing, version = RunLog(folder.events_file).read()
    assert (standing.step, standing.losses, version) == (0, [], 0)


def test_losses_belong_to_their_steps(folder: RunFolder) -> None:
    write(folder, Started(step=0, steps=20), progress(3, 3), progress(5, 2, loss=0.7))
    standing, _ = RunLog(folder.events_file).read()
    assert standing.loss_steps == [1, 2, 3, 4, 5]
    assert standing.losses == pytest.approx([0.5, 0.501, 0.502, 0.7, 0.701])
    assert (standing.step, standing.steps, standing.seconds_left) == (5, 20, 9)


def test_reading_on_gives_the_same_as_reading_at_once(folder: RunFolder) -> None:
    reader = RunLog(folder.events_file)
    events = (
        Phase(name="caching", done=1, total=2),
        Started(step=0, steps=20),
        progress(4, 4),
        Saved(step=4, path="checkpoints/step-000004"),
        Sampled(step=4, index=0, prompt="cat", path="samples/000004-0.png"),
        progress(8, 4),
        Started(step=4, steps=20),
        Validated(step=4, loss=0.3, base_loss=0.4),
        progress(8, 4, loss=0.1),
    )
    for event in events:
        write(folder, event)
        reader.read()
    assert reader.read()[0] == RunLog(folder.events_file).read()[0]


def test_what_an_earlier_attempt_said_of_later_steps_is_void(folder: RunFolder) -> None:
    write(
        folder,
        Started(step=0, steps=20),
        Sampled(step=0, index=0, prompt="cat", path="samples/000000-0.png"),
        progress(4, 4),
        Saved(step=4, path="checkpoints/step-000004"),
        Sampled(step=4, index=0, prompt="cat", path="samples/000004-0.png"),
        Validated(step=4, loss=0.3, base_loss=0.4),
        progress(8, 4),
        Saved(step=8, path="checkpoints/step-000008"),
        Validated(step=8, loss=0.2, base_loss=0.4),
        Started(step=4, steps=20),
    )
    standing, _ = RunLog(folder.events_file).read()
    assert standing.step == 4
    assert standing.loss_steps == [1, 2, 3, 4]
    assert [each.step for each in standing.saved] == [4]
    assert [each.step for each in standing.sampled] == [0, 4]
    assert [each.step for each in standing.validated] == [4]


def test_a_second_beginning_does_not_show_the_first_pictures_twice(folder: RunFolder) -> None:
    picture = Sampled(step=0, index=0, prompt="cat", path="samples/000000-0.png")
    write(folder, Started(step=0, steps=20), picture, progress(3, 3), Started(step=0, steps=20), picture)
    standing, _ = RunLog(folder.events_file).read()
    assert len(standing.sampled) == 1
    assert standing.losses == []


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (Interrupted(step=6, reason="paused"), "interrupted"),
        (Failed(step=6, message="No."), "failed"),
        (Finished(step=6, adapter="a", sheet="s", verified=("ok",), seconds=3), "finished"),
    ],
)
def test_an_end_is_known_until_the_run_goes_on(folder: RunFolder, end: Event, name: str) -> None:
    reader = RunLog(folder.events_file)
    write(folder, Started(step=0, steps=20), progress(6, 6), end)
    standing, _ = reader.read()
    assert getattr(standing, name) == end
    assert standing.seconds_left is None
    write(folder, Phase(name="loading"))
    standing, _ = reader.read()
    assert getattr(standing, name) is None
    assert standing.phase is not None
    assert standing.phase.name == "loading"


def test_a_half_written_line_is_read_when_it_is_whole(folder: RunFolder) -> None:
    write(folder, Started(step=0, steps=20))
    reader = RunLog(folder.events_file)
    line = progress(2, 2).line().encode()
    with folder.events_file.open("ab", buffering=0) as stream:
        stream.write(line[:20])
        assert reader.read()[0].step == 0
        stream.write(line[20:] + b"\n")
    assert reader.read()[0].step == 2


def test_a_torn_line_of_a_killed_process_is_passed_over(folder: RunFolder) -> None:
    write(folder, Started(step=0, steps=20), progress(2, 2))
    with folder.events_file.open("ab") as stream:
        stream.write(b'{"type": "progress", "st')
    write(folder, progress(3))
    assert RunLog(folder.events_file).read()[0].loss_steps == [1, 2, 3]


def test_the_version_changes_exactly_with_the_log(folder: RunFolder) -> None:
    reader = RunLog(folder.events_file)
    write(folder, Started(step=0, steps=20))
    _, first = reader.read()
    assert reader.read()[1] == first
    write(folder, progress(1))
    assert reader.read()[1] != first


def test_what_was_handed_out_does_not_change_afterwards(folder: RunFolder) -> None:
    reader = RunLog(folder.events_file)
    write(folder, Started(step=0, steps=20), progress(2, 2))
    standing, _ = reader.read()
    write(folder, progress(4, 2))
    reader.read()
    assert standing.loss_steps == [1, 2]


def test_a_log_that_was_replaced_is_read_anew(folder: RunFolder, tmp_path: Path) -> None:
    reader = RunLog(folder.events_file)
    write(folder, Started(step=0, steps=20), progress(9, 9))
    reader.read()
    other = RunFolder(tmp_path / "other")
    other.path.mkdir()
    write(other, Started(step=0, steps=5))
    other.events_file.replace(folder.events_file)
    standing, _ = reader.read()
    assert (standing.step, standing.steps, standing.losses) == (0, 5, [])
    folder.events_file.unlink()
    assert reader.read()[0].steps == 0


def test_a_notice_is_shown_once(folder: RunFolder) -> None:
    write(folder, Notice(text="No."), Notice(text="No."), Notice(text="Yes."))
    assert [each.text for each in RunLog(folder.events_file).read()[0].notices] == ["No.", "Yes."]


def test_many_threads_may_read_while_the_log_grows(folder: RunFolder) -> None:
    reader = RunLog(folder.events_file)
    wrong: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            standing, _ = reader.read()
            if standing.loss_steps != list(range(1, standing.step + 1)) or len(standing.losses) != standing.step:
                wrong.append(f"{standing.step}: {standing.loss_steps[-3:]}")

    threads = [threading.Thread(target=look) for _ in range(4)]
    write(folder, Started(step=0, steps=300))
    for thread in threads:
        thread.start()
    for step in range(1, 301):
        write(folder, progress(step))
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reader.read()[0].step == 300
