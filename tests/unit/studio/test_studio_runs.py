"""What a user does with runs, and how runs are shown: without a worker, so that every state can be held still."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from studio_parts import Parts

from trainer.config import RunConfig
from trainer.errors import ConfigError, StudioError
from trainer.events import Failed, Finished, Interrupted, Phase, Progress, Sampled, Saved, Started
from trainer.studio.folder import StudioFolder
from trainer.studio.store import State, Wish
from trainer.training.run_folder import RunFolder


@pytest.fixture
def draft(parts: Parts, uploads: list[Path]) -> str:
    run_id = parts.drafts.create({"name": "Shapes", "trigger": "shape style"})
    parts.drafts.add_images(run_id, uploads)
    return run_id


def start(parts: Parts, run_id: str, *, step: int = 0) -> RunFolder:
    """As if a worker (this process) had trained so far."""
    parts.runs.enqueue(run_id)
    assert parts.store.claim(run_id)
    folder = RunFolder(parts.home.run(run_id))
    folder.append(Started(step=0, steps=20))
    if step:
        losses = tuple(0.5 for _ in range(step))
        folder.append(
            Progress(step=step, steps=20, losses=losses, learning_rate=1e-3, samples_per_second=9, seconds_left=5)
        )
    return folder


def test_a_draft_that_starts_has_its_settings_in_its_folder(parts: Parts, draft: str) -> None:
    parts.runs.enqueue(draft)
    assert parts.store.get(draft).state is State.QUEUED
    config = RunFolder(parts.home.run(draft)).config()
    assert (config.name, config.trigger) == ("Shapes", "shape style")
    assert Path(config.data.images) == parts.home.images(draft)


def test_a_draft_that_cannot_start_stays_a_draft(parts: Parts, draft: str) -> None:
    empty = parts.drafts.create()
    with pytest.raises(StudioError, match="no images yet"):
        parts.runs.enqueue(empty)
    parts.drafts.update(draft, {"base.source": "/nowhere"})
    with pytest.raises(StudioError, match="does not exist"):
        parts.runs.enqueue(draft)
    assert {parts.store.get(run).state for run in (empty, draft)} == {State.DRAFT}


def test_a_full_disk_is_noticed_before_anything_starts(
    parts: Parts, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudioFolder, "free_bytes", lambda self: 100 * 2**20)
    with pytest.raises(StudioError, match=r"needs 0\.8 GB of disk space, but only 0\.1 GB are free"):
        parts.runs.enqueue(draft)
    assert parts.store.get(draft).state is State.DRAFT


def test_a_queued_draft_can_be_taken_back_and_edited(parts: Parts, draft: str) -> None:
    parts.runs.enqueue(draft)
    parts.runs.cancel(draft)
    parts.drafts.update(draft, {"train.steps": 7})
    parts.runs.enqueue(draft)
    assert RunFolder(parts.home.run(draft)).config().train.steps == 7


def test_a_queued_run_that_was_trained_before_rests_as_paused(parts: Parts, draft: str) -> None:
    start(parts, draft, step=3)
    parts.store.hand_back(draft, State.QUEUED)
    parts.runs.pause(draft)
    assert parts.store.get(draft).state is State.PAUSED


@pytest.mark.parametrize(
    ("action", "wish", "rests"),
    [("pause", Wish.PAUSE, State.PAUSED), ("cancel", Wish.CANCEL, State.CANCELLED)],
)
def test_a_wish_for_a_run_in_training_waits_for_the_worker(
    parts: Parts, draft: str, action: str, wish: Wish, rests: State
) -> None:
    start(parts, draft, step=3)
    getattr(parts.runs, action)(draft)
    assert (parts.store.get(draft).state, parts.store.get(draft).wish) == (State.TRAINING, wish)
    parts.store.hand_back(draft, State.QUEUED)
    assert parts.store.get(draft).state is rests


def test_resume_takes_back_a_pause_that_has_not_happened_yet(parts: Parts, draft: str) -> None:
    start(parts, draft, step=3)
    parts.runs.pause(draft)
    parts.runs.resume(draft)
    parts.store.hand_back(draft, State.QUEUED)
    assert parts.store.get(draft).state is State.QUEUED


def test_stop_and_keep_needs_something_to_keep(parts: Parts, draft: str) -> None:
    start(parts, draft)
    with pytest.raises(StudioError, match="Cancel it instead"):
        parts.runs.stop_and_keep(draft)
    assert parts.store.get(draft).wish is Wish.NONE


def test_stop_and_keep_of_a_paused_run_goes_to_the_worker_first(parts: Parts, draft: str, uploads: list[Path]) -> None:
    other = parts.drafts.duplicate(draft)
    start(parts, draft, step=3)
    parts.runs.pause(draft)
    parts.store.hand_back(draft, State.QUEUED)
    parts.runs.enqueue(other)
    parts.runs.stop_and_keep(draft)
    assert [(run.id, run.wish) for run in parts.store.in_state(State.QUEUED)] == [
        (draft, Wish.STOP),
        (other, Wish.NONE),
    ]


@pytest.mark.parametrize("action", ["pause", "stop_and_keep"])
def test_what_makes_no_sense_is_refused_with_a_sentence(parts: Parts, draft: str, action: str) -> None:
    RunFolder(parts.home.run(draft)).append(Started(step=4, steps=20))
    with pytest.raises(StudioError, match="is draft and cannot be"):
        getattr(parts.runs, action)(draft)
    assert parts.store.get(draft).state is State.DRAFT


def test_a_deleted_run_lies_in_the_trash_until_it_is_taken_back(parts: Parts, draft: str) -> None:
    parts.runs.delete(draft)
    assert not parts.home.run(draft).exists()
    assert parts.runs.all() == []
    parts.runs.adopt()
    assert parts.runs.all() == []
    parts.runs.restore(draft)
    assert len(parts.drafts.view(draft).images) == 5
    assert all(image.path.is_file() for image in parts.drafts.view(draft).images)


# ---- runs from elsewhere


def made_elsewhere(parts: Parts, name: str) -> RunFolder:
    folder = RunFolder(parts.home.runs / name)
    folder.write_config(RunConfig(name=name, trigger="x"))
    folder.append(Started(step=0, steps=20))
    return folder


def test_runs_of_the_command_line_are_found_in_the_studio_folder(parts: Parts) -> None:
    finished, failed, paused = (made_elsewhere(parts, name) for name in ("finished", "failed", "paused"))
    finished.adapter_file.write_bytes(b"weights")
    finished.append(Finished(step=20, adapter="adapter.safetensors", sheet="sheet.png", verified=(), seconds=1))
    failed.append(Failed(step=3, message="Memory ran out."))
    paused.append(Interrupted(step=3, reason="paused"))
    (parts.home.runs / "no run").mkdir()
    parts.runs.adopt()
    parts.runs.adopt()
    found = {run.name: (run.state, run.message) for run in parts.runs.all()}
    assert found == {
        "finished": (State.FINISHED, ""),
        "failed": (State.FAILED, "Memory ran out."),
        "paused": (State.PAUSED, ""),
    }


def test_a_run_that_somebody_trains_at_the_moment_is_not_taken(parts: Parts) -> None:
    folder = made_elsewhere(parts, "busy")
    with FileLock(folder.lock_file):
        parts.runs.adopt()
        assert parts.runs.all() == []
    parts.runs.adopt()
    assert [run.name for run in parts.runs.all()] == ["busy"]


def test_a_folder_with_broken_settings_is_left_alone(parts: Parts) -> None:
    folder = made_elsewhere(parts, "broken")
    folder.config_file.write_text("name = [")
    parts.runs.adopt()
    assert parts.store.known() == set()


# ---- how runs are shown


def test_runs_are_listed_in_training_then_the_queue_then_the_newest(parts: Parts, draft: str) -> None:
    queued = [parts.drafts.duplicate(draft) for _ in range(2)]
    idle = parts.drafts.duplicate(draft)
    for run_id in (draft, *queued):
        parts.runs.enqueue(run_id)
    assert parts.store.claim(draft)
    parts.store.reorder(queued[1], 0)
    shown = parts.runs.all()
    assert [run.id for run in shown] == [draft, queued[1], queued[0], idle]
    assert [run.queue_place for run in shown] == [None, 1, 2, None]
    assert shown[0].thumbnail is not None
    assert shown[0].thumbnail.is_file()


def test_the_view_changes_its_version_exactly_when_something_changed(parts: Parts, draft: str) -> None:
    folder = start(parts, draft, step=3)
    first = parts.runs.view(draft)
    assert parts.runs.view(draft) is first
    folder.append(Saved(step=3, path="checkpoints/step-000003"))
    second = parts.runs.view(draft)
    assert second.version != first.version
    parts.runs.pause(draft)
    assert parts.runs.view(draft).version != second.version


def test_the_view_tells_where_a_run_stands(parts: Parts, draft: str) -> None:
    folder = start(parts, draft, step=3)
    # As if no time had passed since the step.
    folder.append(Sampled(at=0.0, step=3, index=0, prompt="cat", path="samples/000003-0.png"))
    folder.append(Saved(step=3, path="checkpoints/step-000003"))
    view = parts.runs.view(draft)
    assert (view.state, view.step, view.steps, view.losses) == (State.TRAINING, 3, 20, (0.5, 0.5, 0.5))
    assert view.samples[0].path == "samples/000003-0.png"
    assert view.checkpoints == (), "a checkpoint that was pruned cannot be chosen"
    assert view.seconds_left == 5
    folder.append(Phase(name="exporting"))
    phase = parts.runs.view(draft).phase
    assert phase is not None
    assert phase.name == "exporting"


def test_a_failed_run_shows_its_sentence(parts: Parts, draft: str) -> None:
    start(parts, draft, step=3)
    parts.store.hand_back(draft, State.FAILED, "Memory ran out.")
    view = parts.runs.view(draft)
    assert (view.error, view.phase, view.seconds_left) == ("Memory ran out.", None, None)


def test_a_name_that_cannot_be_a_name_is_refused(parts: Parts) -> None:
    with pytest.raises(ConfigError, match="name"):
        parts.drafts.create({"name": "..."})


def test_a_run_that_failed_over_changed_images_goes_on_without_them_when_that_is_asked(
    parts: Parts, uploads: list[Path]
) -> None:
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, uploads)
    parts.runs.enqueue(run_id)
    parts.store.claim(run_id)
    folder = RunFolder(parts.home.run(run_id))
    folder.append(Failed(step=0, message="a.png is gone.", images_changed=True))
    parts.store.hand_back(run_id, State.FAILED, "a.png is gone.")
    assert parts.runs.view(run_id).images_changed
    parts.runs.resume(run_id, changed_images="leave_out")
    assert folder.config().data.changed_images == "leave_out"
    assert parts.store.get(run_id).state is State.QUEUED
    assert not parts.runs.view(run_id).images_changed
