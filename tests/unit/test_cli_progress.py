"""What `patina train` prints, in terminals of several widths and in a pipe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from trainer import events
from trainer.cli.progress import JsonLines, Terminal
from trainer.findings import Finding
from trainer.training.run_folder import RunFolder

LONG = "/home/a user with a long name/pictures/" + "deep/" * 20 + "run"
FINDINGS = (
    Finding(
        image="a picture with quite a long name [red] 0001.png",
        kind="unreadable",
        severity="skipped",
        message="is cut short or damaged, so that only its upper half can be seen: copy or export it again",
        action="left out",
    ),
    Finding(image="b.png", kind="too_small", severity="note", message="b.png has [bold] 20 px", action="enlarged"),
)
PLAN = events.Planned(
    images=16,
    held_out=2,
    steps=20,
    batch_size=4,
    resolution=64,
    rank=8,
    learning_rate=1e-3,
    trainable_parameters=58_368,
    layers=28,
    file_bytes=233_472,
    seconds=200,
    memory_bytes=2**29,
    memory_available_bytes=2**33,
    device="CPU, 2 cores",
    base="Bundled icons",
    notes=("A note with [brackets].",),
)


def steps(count: int = 20) -> list[events.Event]:
    return [
        events.Progress(
            step=step, steps=count, losses=(0.2,), learning_rate=1e-3, samples_per_second=30, seconds_left=count - step
        )
        for step in range(1, count + 1)
    ]


STORY: Sequence[events.Event] = [
    events.Phase(name="loading", detail="bundled"),
    events.Phase(name="reading"),
    events.Found(images=16, findings=FINDINGS),
    *(events.Phase(name="caching", done=done, total=16) for done in range(1, 17)),
    PLAN,
    events.Started(step=4, steps=20),
    events.Phase(name="training"),
    *steps(),
    events.Phase(name="sampling"),
    events.Validated(step=20, loss=0.4, base_loss=0.5),
    events.Notice(level="warning", text="[step] was torn"),
    events.Finished(
        step=20,
        adapter="adapter.safetensors",
        sheet="sheet.png",
        verified=("read back: 84 tensors",),
        opens=("Opens in [ComfyUI].", "A1111 leaves out 1 of 84 layers."),
        seconds=61,
    ),
]


def printed(story: Sequence[events.Event], *, width: int, terminal: bool) -> list[str]:
    """The lines that stay, without colours."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=terminal, color_system=None, highlight=False, soft_wrap=True
    )
    show = Terminal(RunFolder(Path(LONG)), console)
    # The bar itself comes and goes; what is tested is what it leaves behind.
    show.bar.disable = True
    with show:
        for event in story:
            show(event)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_cannot_talk_to_the_terminal(terminal: bool) -> None:
    finding = Finding("\x1b[2Ja.png", "not_read", "note", "is \x07 a link", "left\r out")
    text = "\n".join(printed([events.Found(images=1, findings=(finding,))], width=120, terminal=terminal))
    assert not {"\x1b", "\x07", "\r"} & set(text)
    assert "\\x1b[2Ja.png" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_the_terminal_and_paths_stay_whole(width: int) -> None:
    lines = printed(STORY, width=width, terminal=True)
    assert f"Style: {Path(LONG) / 'adapter.safetensors'}" in lines
    tables = lines[: next(index for index, line in enumerate(lines) if line.startswith("Going on"))]
    assert all(len(line) <= width for line in tables)
    assert any(line.startswith("Learns") and "58,368 parameters in 28 layers, rank 8" in line for line in tables)


def test_a_pipe_gets_plain_lines_and_a_line_for_every_tenth() -> None:
    lines = printed(STORY, width=80, terminal=False)
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert not any(line != line.rstrip() for line in lines), "no table is padded to a width that nobody has"
    assert sum(line.startswith("Step ") and "loss 0.2000" in line for line in lines) == 11
    assert text.count("Encoding images and captions ...") == 1
    assert (
        "  a picture with quite a long name [red] 0001.png: is cut short or damaged, so that only its upper half can "
        "be seen: copy or export it again; left out"
    ) in lines
    assert "  b.png has [bold] 20 px; enlarged" in lines, "a name is not said twice, and nothing is taken for markup"


def test_what_is_said_is_never_taken_for_markup() -> None:
    text = "\n".join(printed(STORY, width=200, terminal=True))
    assert "A note with [brackets]." in text
    assert "Warning: [step] was torn" in text
    assert "[red] 0001.png" in " ".join(text.split())
    assert "Opens in [ComfyUI].\nA1111 leaves out 1 of 84 layers." in text
    assert "Step 20: loss on held-out images 0.4000, 20.0% below the base's." in text


def test_a_folder_without_a_fault_is_one_line() -> None:
    assert printed([events.Found(images=1)], width=80, terminal=True) == ["Found 1 image, nothing to remark."]


def test_json_lines_are_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as show:
        for event in STORY:
            show(event)
    assert [events.parse_event(line) for line in capsys.readouterr().out.splitlines()] == list(STORY)
