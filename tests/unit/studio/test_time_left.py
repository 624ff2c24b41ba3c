"""The time that a run still takes, with its pictures, and the time that it took."""

from __future__ import annotations

from trainer.events import Finished, Phase, Progress, Sampled, Started
from trainer.studio.run_log import Standing


def standing(step: int) -> Standing:
    """A run of 100 steps, a tenth of a second each, whose first round of two pictures took 6 seconds."""
    made = Standing()
    made.take(Started(at=0.0, step=0, steps=100))
    made.take(Phase(at=1.0, name="sampling"))
    made.take(Sampled(at=7.0, step=0, index=0, prompt="a cat", path="a.png"))
    made.take(Sampled(at=7.1, step=0, index=1, prompt="a dog", path="b.png"))
    losses = (0.1,) * step
    seconds = (100 - step) * 0.1
    made.take(
        Progress(
            at=8.0,
            step=step,
            steps=100,
            losses=losses,
            learning_rate=1e-4,
            samples_per_second=1.0,
            seconds_left=seconds,
        )
    )
    return made


def test_before_the_first_step_nothing_is_known() -> None:
    assert Standing().time_left({}) is None


def test_pictures_still_to_come_are_counted_with_what_the_last_ones_took() -> None:
    # Steps 8 s; rounds at 40, 60, 80 and 100, and the sheet.
    assert standing(20).time_left({"samples": {"every": 20}}) == 8.0 + 5 * 6.0


def test_without_samples_between_the_end_still_has_its_own() -> None:
    assert standing(20).time_left({"samples": {"every": 0}}) == 8.0 + 2 * 6.0
    assert standing(20).time_left({}) == 8.0 + 2 * 6.0


def test_after_the_last_step_the_sheet_is_left() -> None:
    assert standing(100).time_left({"samples": {"every": 20}}) == 6.0


def test_keeping_another_state_later_does_not_change_what_the_run_took() -> None:
    made = standing(100)
    for seconds in (40.0, 3.0):
        end = Finished(at=60.0, step=100, adapter="a.safetensors", sheet="", verified=(), seconds=seconds)
        made.take(Phase(at=50.0, name="exporting"))
        made.take(end)
    assert (made.finished, made.took) == (end, 40.0)
    made.take(Started(at=70.0, step=50, steps=100))
    assert made.took is None
