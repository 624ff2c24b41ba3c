"""What a run does when memory runs out or the loss is no longer a number, and that it does the same when resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from trainer.bases.base import Base
from trainer.config import RunConfig, parse
from trainer.errors import DoesNotFit, RunError
from trainer.events import Event, Finished, Notice, Started
from trainer.hardware import Machine
from trainer.presets import resolve
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.verify import Verification, verify_export
from trainer.training import export, picking, samples, spilling
from trainer.training.batches import Batch
from trainer.training.ladder import Rung, spares_main_memory, step_down
from trainer.training.loop import Diverged, Trainer
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.recovery import Change, Recovery
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder
from trainer.training.spilling import SpillWatch
from trainer.training.validation import Validation

Patch = pytest.MonkeyPatch


class PauseAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def between_steps(self, session: Session) -> Signal:
        return Signal.PAUSE if session.step >= self.step else Signal.GO


def run(settings: dict, path: Path, base: Base, control: object = None) -> tuple[RunFolder, list[Event]]:
    said: list[Event] = []
    folder = RunFolder(path) if (path / "config.toml").exists() else create(parse(settings), path)
    train(folder, emit=said.append, control=control or Uncontrolled(), base=base)  # type: ignore[arg-type]
    return folder, said


def warnings_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]


@pytest.fixture
def little_memory(monkeypatch: Patch) -> None:
    """From step 2 on memory is enough for one image at once."""
    whole: Callable[..., torch.Tensor] = Trainer.accumulate

    def accumulate(self: Trainer, batch: Batch, number: int = 0) -> torch.Tensor:
        loss = whole(self, batch, number)
        if self.step >= 2 and len(batch.timesteps) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    monkeypatch.setattr(Trainer, "accumulate", accumulate)


@pytest.fixture
def comes_apart(monkeypatch: Patch) -> Callable[[float], None]:
    """The loss is no longer a number at step 3 while the rate is above a share of the planned one."""

    def from_share(share: float) -> None:
        whole = Trainer.weighed

        def weighed(self: Trainer, errors: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            loss = whole(self, errors, timesteps)
            return loss * float("nan") if self.step == 3 and self.rate_factor(3) > share else loss

        monkeypatch.setattr(Trainer, "weighed", weighed)

    return from_share


@pytest.mark.usefixtures("little_memory")
def test_out_of_memory_in_the_middle_costs_speed_and_not_the_run(settings: dict, base: Base, tmp_path: Path) -> None:
    folder, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    assert said[-1].step == 4
    told = warnings_of(said)
    assert told[-1].startswith("Memory ran out at step 2: from here on 1 image goes through at once")
    written = json.loads(folder.recovery_file.read_bytes())
    assert [change["said"] for change in written] == told
    with safe_open(folder.adapter_file, "pt") as file:
        facts = file.metadata()
    assert facts["modelspec.description"] == " ".join(told)
    assert json.loads(facts["patina.config"])["recovery"] == told
    assert folder.config().memory.micro_batch == 2, "the steps before it keep what they were done with"


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("pause_at", [1, 3])
def test_a_run_that_ran_out_of_memory_is_the_same_when_resumed(
    settings: dict, base: Base, tmp_path: Path, pause_at: int
) -> None:
    whole, _ = run(settings, tmp_path / "whole", base)
    parted, _ = run(settings, tmp_path / "parted", base, PauseAt(pause_at))
    run(settings, tmp_path / "parted", base)
    assert sshs_model_hash(parted.adapter_file) == sshs_model_hash(whole.adapter_file)


def test_a_loss_that_is_no_number_costs_steps_and_not_the_run(
    settings: dict, base: Base, tmp_path: Path, comes_apart: Callable[[float], None]
) -> None:
    comes_apart(0.2)
    folder, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    assert [event.step for event in said if isinstance(event, Started)] == [0, 2, 0]
    assert warnings_of(said) == [
        "The loss was no longer a number: the training goes back to step 2 and learns on at 33% of the learning rate.",
        "The loss was no longer a number: the training goes back to step 0 and learns on at 33% of the learning rate.",
    ]
    steps = [event.step for event in folder.events() if event.type == "progress"]
    assert steps == sorted(set(steps)), "the log forgets what was done again"


@pytest.mark.parametrize("pause_at", [1, 3])
def test_a_run_that_came_apart_is_the_same_when_resumed(
    settings: dict, base: Base, tmp_path: Path, comes_apart: Callable[[float], None], pause_at: int
) -> None:
    comes_apart(0.5)
    whole, _ = run(settings, tmp_path / "whole", base)
    parted, _ = run(settings, tmp_path / "parted", base, PauseAt(pause_at))
    run(settings, tmp_path / "parted", base)
    assert sshs_model_hash(parted.adapter_file) == sshs_model_hash(whole.adapter_file)


def test_after_three_lower_rates_it_gives_up(
    settings: dict, base: Base, tmp_path: Path, comes_apart: Callable[[float], None]
) -> None:
    comes_apart(0.0)
    with pytest.raises(Diverged, match="learning rate"):
        run(settings, tmp_path / "run", base)
    assert Recovery(tmp_path / "run" / "recovery.json").retreats == 3


def test_pictures_judging_and_proof_that_run_out_of_memory_cost_themselves_and_not_the_run(
    settings: dict, base: Base, tmp_path: Path, monkeypatch: Patch
) -> None:
    settings["data"]["validation_share"] = 0.34
    proofs: list[int] = []

    def too_much(*rest: object, **more: object) -> None:
        raise DoesNotFit("Memory ran out while drawing at 64 x 64 pixels.")

    def at_first(*rest: Any, **more: Any) -> Verification:
        proofs.append(1)
        if len(proofs) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return verify_export(*rest, **more)

    monkeypatch.setattr(samples, "generate", too_much)
    monkeypatch.setattr(picking, "judge", too_much)
    monkeypatch.setattr(Validation, "measure", too_much)
    monkeypatch.setattr(export, "verify_export", at_first)
    folder, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    assert said[-1].sheet == ""
    assert len(proofs) == 2
    assert [text.partition(" ran out ")[2].split()[1] for text in warnings_of(said)] == [
        "drawing.",
        "held-out",
        "judging:",
        "drawing.",
    ]
    assert not folder.recovery_file.exists(), "the training itself changed nothing"


def test_on_the_last_rung_a_step_is_tried_once_more(
    settings: dict, base: Base, tmp_path: Path, monkeypatch: Patch
) -> None:
    settings["optim"]["batch_size"] = 1
    settings["memory"] = {"checkpoint_levels": base.levels, "park_encoders": True}
    settings["judging"] = {"enabled": False}
    failed: list[int] = []
    whole = Trainer.update

    def update(self: Trainer, rate: float) -> None:
        if self.step == 2 and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        whole(self, rate)

    monkeypatch.setattr(Trainer, "update", update)
    folder, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    assert warnings_of(said) == ["Memory ran out at step 2 with every saving in use: the step is tried once more."]
    losses = [loss for event in folder.events() if event.type == "progress" for loss in event.losses]
    assert len(losses) == 4, "also of the steps before memory ran out"


def test_a_run_that_was_killed_for_memory_goes_on_a_rung_further_down(
    settings: dict, base: Base, tmp_path: Path
) -> None:
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(2))
    recovery = Recovery(folder.recovery_file)
    assert recovery.goes_on_from(folder.saved()) == 2
    recovery.add(Change(2, "killed", killed=True))
    _, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    assert [event.step for event in said if isinstance(event, Started)] == [2]
    done = Recovery(folder.recovery_file)
    assert done.kill is None
    assert not done.given_up(2)
    assert done.changes[-1].memory["micro_batch"] == 1
    assert warnings_of(said)[0].startswith("Memory ran out at step 2: from here on 1 image goes through at once. ")
    assert folder.config().memory.micro_batch == 2, "the steps before it keep what they were done with"


def test_a_run_that_was_killed_while_it_was_measured_begins_a_rung_further_down(
    settings: dict, base: Base, tmp_path: Path
) -> None:
    folder = create(parse(settings), tmp_path / "run")
    Recovery(folder.recovery_file).add(Change(0, "killed", killed=True))
    _, said = run(settings, tmp_path / "run", base)
    assert isinstance(said[-1], Finished)
    memory = folder.config().memory
    assert (memory.micro_batch, memory.checkpoint_levels, memory.previews) == (1, 0, "whole")


def test_with_every_saving_in_use_a_killed_run_is_tried_once_more(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["optim"]["batch_size"] = 1
    settings["memory"] = {"checkpoint_levels": base.levels}
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(2))
    Recovery(folder.recovery_file).add(Change(2, "killed", killed=True))
    _, said = run(settings, tmp_path / "run", base)
    assert warnings_of(said) == ["Memory ran out at step 2 with every saving in use: the step is tried once more."]
    done = Recovery(folder.recovery_file)
    assert done.given_up(2)
    assert not done.given_up(3)


def test_on_a_card_no_saving_spares_main_memory(settings: dict, base: Base, monkeypatch: Patch) -> None:
    config = resolve(parse(settings), base.family, resolution=base.resolution, images=6)
    assert spares_main_memory(config, base) == Rung(1, 0, False)
    monkeypatch.setattr(base, "device", torch.device("cuda", 0))
    assert spares_main_memory(config, base) is None


def test_a_killed_run_goes_on_from_a_checkpoint_that_lies_on_its_way(tmp_path: Path) -> None:
    recovery = Recovery(tmp_path / "recovery.json")
    recovery.add(Change(20, "back to 20", rate=0.5))
    saved = []
    for step, changes in ((40, 0), (30, 1), (20, 0)):
        folder = tmp_path / f"step-{step:06d}"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"step": step, "changes": changes}), encoding="utf-8")
        saved.append((step, folder))
    assert recovery.goes_on_from(saved) == 30
    assert recovery.goes_on_from(saved[2:]) == 20
    assert recovery.goes_on_from(saved[:1]) == 0


def test_a_change_counts_from_its_step_on(tmp_path: Path) -> None:
    recovery = Recovery(tmp_path / "recovery.json")
    recovery.add(Change(50, "back to 50", rate=0.5))
    recovery.add(Change(20, "back to 20", rate=0.5))
    recovery.add(Change(70, "less memory", memory={"micro_batch": 1}))
    again = Recovery(tmp_path / "recovery.json")
    assert again.changes == recovery.changes
    assert [again.rate_factor(step) for step in (19, 20, 49, 50)] == [1.0, 0.5, 0.5, 0.25]
    config = RunConfig()
    assert again.with_memory(config, 69).memory.micro_batch is None
    assert again.with_memory(config, 70).memory.micro_batch == 1
    assert again.with_memory(config).memory.micro_batch == 1


def test_a_checkpoint_from_a_way_that_was_given_up_is_not_used(tmp_path: Path) -> None:
    recovery = Recovery(tmp_path / "recovery.json")
    recovery.add(Change(50, "back to 50", rate=0.5))
    assert recovery.holds(50, known=0)
    assert not recovery.holds(60, known=0)
    assert recovery.holds(60, known=1)


def test_a_damaged_list_of_changes_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "recovery.json").write_text("[{", encoding="utf-8")
    with pytest.raises(RunError, match=r"recovery\.json is damaged"):
        Recovery(tmp_path / "recovery.json")


def test_each_rung_further_down_needs_less() -> None:
    config = parse({"optim": {"batch_size": 4}, "memory": {"micro_batch": 4, "park_encoders": False}})
    gone: list[Rung] = []
    while (lower := step_down(config, levels=2)) is not None:
        gone.append(lower)
        config.memory.micro_batch = lower.micro_batch
        config.memory.checkpoint_levels = lower.checkpoint_levels
        config.memory.park_encoders = lower.park_encoders
    assert gone == [Rung(4, 0, True), Rung(2, 0, True), Rung(1, 0, True), Rung(1, 1, True), Rung(1, 2, True)]


@pytest.mark.parametrize(
    ("speeds", "full", "said"),
    [
        ([8.0] * 5 + [1.0] * 6, True, 1),
        ([8.0] * 5 + [1.0] * 6, False, 0),
        ([8.0, 1.0, 8.0, 1.0] * 5, True, 0),
        ([8.0] * 5 + [4.0] * 20, True, 0),
    ],
)
def test_a_card_that_spills_into_main_memory_is_noticed_once(
    speeds: list[float], full: bool, said: int, monkeypatch: Patch
) -> None:
    card = torch.device("cuda", 0)
    free = 2**26 if full else 2**32
    monkeypatch.setattr(spilling, "machine", lambda device: Machine(device, "a card", 2**33, free))
    watch = SpillWatch(card)
    sentences = [sentence for speed in speeds if (sentence := watch.heard(speed))]
    assert len(sentences) == said
    assert all(sentence.startswith("Steps have become 8 times slower and the card is full") for sentence in sentences)
    on_processor = SpillWatch(torch.device("cpu"))
    assert not any(on_processor.heard(speed) for speed in speeds)
