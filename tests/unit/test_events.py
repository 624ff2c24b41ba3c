from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from trainer import events
from trainer.errors import ConfigError
from trainer.findings import Finding
from trainer.preview.order import PreviewSettings
from trainer.training.run_folder import RunFolder

EXAMPLES = [
    events.Started(step=4, steps=10),
    events.Phase(name="caching", done=3, total=16, detail="images"),
    events.Found(
        images=2,
        findings=(
            Finding(
                image="ä \u2028.png",
                kind="too_small",
                severity="note",
                message='says "hi"\nand more',
                action="left out",
            ),
        ),
    ),
    events.Planned(
        images=2,
        held_out=1,
        steps=10,
        batch_size=4,
        resolution=64,
        rank=8,
        learning_rate=1e-3,
        trainable_parameters=100,
        layers=28,
        file_bytes=400,
        seconds=1.5,
        memory_bytes=2**31,
        memory_available_bytes=2**33,
        device="cpu",
        base="bundled",
        notes=("a note",),
    ),
    events.Progress(step=2, steps=10, losses=(0.5, 0.25), learning_rate=1e-3, samples_per_second=9.5, seconds_left=1.0),
    events.Validated(step=5, loss=0.4, base_loss=0.5),
    events.Sampled(step=5, index=0, prompt="a cat", path="samples/000005-0.png"),
    events.Saved(step=5, path="checkpoints/step-000005"),
    events.Notice(level="warning", text="careful"),
    events.Interrupted(step=5, reason="paused"),
    events.Recommended(at_step=8, strength=0.8, confidence=0.7, sentence="Step 8 at 0.8 looks most like the images."),
    events.Finished(
        step=10, adapter="adapter.safetensors", sheet="sheet.png", verified=("read back: yes",), seconds=9.0
    ),
    events.Failed(step=3, message="no"),
]


def test_there_is_an_example_of_every_event() -> None:
    union = get_args(get_args(events.AnyEvent)[0])
    assert {type(example) for example in EXAMPLES} == set(union)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_is_one_line_that_reads_back_as_it_was(event: events.Event) -> None:
    line = event.line()
    assert len(line.encode().splitlines()) == 1
    assert events.parse_event(line) == event
    assert events.parse_event(line.encode()) == event
    assert json.loads(line)["type"] == event.type  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_a_line_torn_at_any_place_is_no_event(event: events.Event) -> None:
    line = event.line().encode()
    assert all(events.parse_event(line[:end]) is None for end in range(len(line)))


@pytest.mark.parametrize("line", ["", "null", "[]", '{"type": "later"}', '{"type": "saved"}', "\x00\x00"])
def test_what_is_no_event_is_passed_over(line: str) -> None:
    assert events.parse_event(line) is None


def test_a_key_of_a_later_version_is_passed_over() -> None:
    line = json.dumps({**json.loads(EXAMPLES[7].line()), "colour": "red"})
    assert events.parse_event(line) == EXAMPLES[7]


def test_a_loss_that_is_no_number_survives_the_line() -> None:
    event = events.Progress(
        step=1, steps=2, losses=(math.nan, math.inf), learning_rate=1, samples_per_second=1, seconds_left=1
    )
    read = events.parse_event(event.line())
    assert isinstance(read, events.Progress)
    assert math.isnan(read.losses[0])
    assert read.losses[1] == math.inf


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        EXAMPLES[0].step = 5  # type: ignore[attr-defined]


def test_a_process_that_died_while_writing_costs_its_own_line_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for event in EXAMPLES[:3]:
        folder.append(event)
    whole = folder.events_file.read_bytes()
    folder.events_file.write_bytes(whole[:-7])
    folder.append(EXAMPLES[7])
    assert list(folder.events()) == [*EXAMPLES[:2], EXAMPLES[7]]


@pytest.mark.parametrize("guidance", [-1, 31, math.nan, math.inf])
def test_a_preview_with_a_guidance_out_of_range_is_refused(guidance: float) -> None:
    with pytest.raises(ValueError, match="guidance"):
        PreviewSettings(guidance=guidance)


def test_a_users_error_is_said_as_it_is_and_a_bug_as_a_bug() -> None:
    assert events.sentence_of(ConfigError("--rank is 0.")) == "--rank is 0."
    said = events.sentence_of(ZeroDivisionError("division by zero"))
    assert "did not expect" in said
    assert "ZeroDivisionError: division by zero" in said
