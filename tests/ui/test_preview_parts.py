"""The Preview tab without its page: forms, orders, frames, sheets, and when a frame is ordered by itself."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from app.preview.form import MOST_STYLES, Form, Mix, MixRow, read_form
from app.preview.frames import (
    FILM,
    FRAME,
    PICTURE,
    STRIP,
    film_strengths,
    form_of,
    frames,
    missing_frames,
    picture_order,
    scene_of,
)
from app.preview.listeners import Listeners
from app.preview.scene import FAST_SECONDS, UNDO_SECONDS, Pace, Scene
from app.preview.sheet import Axis, sheet_order, title_of
from app.preview.styles import Suits, schedulers, suits
from app.preview.view import caption, detail, file_stem, results, sheet, subjects, tokens, viewer
from app.shell import Visit
from app.subjects import with_subject
from trainer.bases.describe import BaseInfo, Bases
from trainer.config import BaseConfig
from trainer.config.schedulers import SCHEDULERS
from trainer.errors import ConfigError, StudioError
from trainer.preview.order import PreviewOrder, StyleUse, live_weights
from trainer.studio.views import JobState, JobView, PictureView

INK = MixRow(style="run-1", name="Ink", strength=0.8, trigger="ink style", steps=(100, 200))
DOTS = MixRow(style="style-2", name="Dots", strength=0.5)


def form(*uses: MixRow, focus: int = 0, **changes: Any) -> Form:
    return replace(Form("a cat", Mix(uses, focus), seed=5), **changes)


def job(order: PreviewOrder, *, state: JobState = "done", made: int | None = None, number: int = 1) -> JobView:
    count = len(order.rows) if made is None else made
    pictures = tuple(
        PictureView(index, Path(f"/home/previews/job-{number}/{index:02d}.png"), row)
        for index, row in enumerate(order.rows[:count])
    )
    return JobView(f"job-{number}", state, 1000.0, 0, 0, pictures, order, "")


def read(**values: Any) -> Form:
    return read_form(values, BaseConfig.model_construct())


class ScriptedStudio:
    """Takes orders, and answers with what a test says has come of them."""

    def __init__(self) -> None:
        self.pictures = self
        self.orders: dict[str, PreviewOrder] = {}
        self.states: dict[str, JobState] = {}
        self.cancelled: list[str] = []
        self.now: dict[str, str] = {}

    def order(self, order: PreviewOrder) -> str:
        name = f"job-{len(self.orders) + 1}"
        self.orders[name], self.states[name] = order.drawn_with(self.weights_now(order.styles)), "queued"
        return name

    def weights_now(self, styles: Sequence[StyleUse]) -> tuple[str, ...]:
        return tuple(self.now.get(use.style, "final:1") for use in styles)

    def delete(self, job_id: str) -> None:
        del self.orders[job_id], self.states[job_id]

    def view(self, job_id: str) -> JobView:
        if job_id not in self.orders:
            raise StudioError("gone")
        state, order = self.states[job_id], self.orders[job_id]
        made = len(order.rows) if state == "done" else 0
        return replace(job(order, state=state, made=made), id=job_id, created=time.time())

    def newest(self) -> list[JobView]:
        return [self.view(name) for name, state in reversed(self.states.items()) if state == "done"]

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        self.states[job_id] = "cancelled"

    def finish(self) -> None:
        for name, state in self.states.items():
            if state == "queued":
                self.states[name] = "done"


def step(scene: Scene, studio: ScriptedStudio) -> None:
    """What a tick does."""
    scene.go_on(cast(Any, studio), scene.look(cast(Any, studio)))


def scene(one: Form) -> str:
    return scene_of(picture_order(one))


# ---- what a browser sends


def test_an_empty_form_means_what_suits_the_base() -> None:
    got = read(prompt="  a cat ")
    assert (got.prompt, got.count, got.mix.rows) == ("a cat", 1, ())
    assert (got.settings.guidance, got.settings.width, got.settings.height) == (None, 0, 0)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("steps", 0, "steps"),
        ("guidance", 99, "guidance"),
        ("width", -8, "width"),
        ("seed", -1, "seed"),
        ("count", 99, "pictures"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(prompt="a cat", **{field: value})


@pytest.mark.parametrize(
    "sent", [None, "text", {}, {"rows": "x"}, {"rows": [1, {"style": 3}, {"style": ""}]}, {"rows": [], "focus": 7}]
)
def test_nonsense_from_a_browser_is_an_empty_mix(sent: object) -> None:
    assert Mix.read(sent) == Mix()


def test_strengths_from_a_browser_are_bounded() -> None:
    rows = [{"style": "a", "strength": value} for value in (9, -9, math.nan, 0.30000000000000004)]
    assert Mix.read({"rows": rows, "focus": 2}).strengths == (2.0, -1.0, 0.0, 0.3)


def test_the_mix_survives_the_way_to_the_browser_and_back() -> None:
    mix = Mix((INK, DOTS), 1)
    sent = mix.value()
    sent["rows"][0]["steps"] = list(sent["rows"][0]["steps"])
    assert Mix.read(sent) == mix


def test_a_style_is_in_the_mix_once_and_too_many_are_refused() -> None:
    assert Mix((INK, DOTS), 1).with_use(INK) == Mix((INK, DOTS), 0)
    full = Mix(tuple(replace(DOTS, style=f"s{number}") for number in range(MOST_STYLES)))
    with pytest.raises(ConfigError, match="at most"):
        full.with_use(INK)


# ---- orders and frames


def test_each_picture_is_ordered_with_the_base_of_the_same_seed() -> None:
    order = picture_order(form(INK, count=2))
    assert [(row.seed, row.strengths) for row in order.rows] == [(5, (0.8,)), (6, (0.8,)), (5, (0.0,)), (6, (0.0,))]
    assert order.note == PICTURE


def test_without_a_style_the_base_is_drawn_once() -> None:
    assert [row.strengths for row in picture_order(form()).rows] == [()]
    assert film_strengths(Mix()) == []


def test_seeds_wrap_around() -> None:
    assert form(seed=2**32 - 1, count=2).seeds == [2**32 - 1, 0]


def test_the_strip_varies_the_focus_and_holds_the_others() -> None:
    assert film_strengths(Mix((INK, DOTS), 1)) == [(0.8, value) for value in FILM]


def test_a_scene_is_everything_but_seed_and_strengths() -> None:
    one = form(INK)
    assert scene(one) == scene(replace(one, seed=9, mix=Mix((replace(INK, strength=1.5),))))
    others = [replace(one, prompt="a dog"), replace(one, negative="blur"), form(replace(INK, step=100)), form(DOTS)]
    assert len({scene(other) for other in [one, *others]}) == 5


def test_frames_are_found_across_jobs_and_other_prompts_are_not_mixed_in() -> None:
    now = form(INK)
    compared = sheet_order(now, Axis("prompts", "a cat\na dog"), Axis("strengths", "0.25, 0.5"))
    jobs = [job(picture_order(now), number=1), job(compared, number=2)]
    assert {strengths for _, strengths in frames(now, jobs)} == {(0.8,), (0.0,), (0.25,), (0.5,)}
    assert str(frames(now, jobs)[5, (0.25,)]).endswith("job-2/00.png")
    assert missing_frames(now, jobs) == [(0.75,), (1.0,), (1.25,), (1.5,)]


def test_frames_of_a_failed_job_are_still_missing() -> None:
    now = form(INK)
    assert len(missing_frames(now, [job(picture_order(now), state="failed", made=0)])) == len(FILM)


def test_a_job_gives_its_form_back() -> None:
    before = form(INK, DOTS, count=2, negative="blur")
    assert form_of(picture_order(before), before.mix.rows) == before


# ---- sheets

PROMPTS = Axis("prompts")


def test_a_sheet_of_strengths_has_a_row_for_each_prompt() -> None:
    order = sheet_order(form(INK, DOTS, focus=1), Axis("prompts", "a cat\n\n a dog "), Axis("strengths", "0; 1.5, 1.5"))
    assert (order.columns, order.row_labels, order.column_labels) == (2, ("a cat", "a dog"), ("0", "1.5"))
    assert [(row.prompt, row.strengths) for row in order.rows] == [
        ("a cat", (0.8, 0.0)), ("a cat", (0.8, 1.5)), ("a dog", (0.8, 0.0)), ("a dog", (0.8, 1.5)),
    ]  # fmt: skip
    assert {row.seed for row in order.rows} == {5}
    assert {row.settings for row in order.rows} == {None}


def test_a_sheet_of_checkpoints_opens_one_at_a_time() -> None:
    order = sheet_order(form(INK), PROMPTS, Axis("checkpoints"))
    assert [style.step for style in order.styles] == [100, 200, 0]
    assert order.column_labels == ("base", "step 100", "step 200", "finished")
    assert [row.strengths for row in order.rows] == [(0, 0, 0), (0.8, 0, 0), (0, 0.8, 0), (0, 0, 0.8)]


def test_a_sheet_of_styles_opens_one_at_a_time() -> None:
    order = sheet_order(form(INK, DOTS), PROMPTS, Axis("styles"))
    assert order.column_labels == ("base", "Ink", "Dots")
    assert [row.strengths for row in order.rows] == [(0, 0), (0.8, 0), (0, 0.5)]


@pytest.mark.parametrize("turned", [False, True])
def test_strengths_of_each_checkpoint_whichever_way_round(turned: bool) -> None:
    axes = Axis("checkpoints"), Axis("strengths", "0.5, 1")
    order = sheet_order(form(INK), *(reversed(axes) if turned else axes))
    assert [(use.style, use.step) for use in order.styles] == [("run-1", 100), ("run-1", 200), ("run-1", 0)]
    found = {row.strengths for row in order.rows}
    assert found == {
        (0, 0, 0),
        *((s, 0, 0) for s in (0.5, 1)),
        *((0, s, 0) for s in (0.5, 1)),
        *((0, 0, s) for s in (0.5, 1)),
    }


def test_a_sheet_of_seeds_and_steps_has_settings_and_noise_of_each_cell() -> None:
    order = sheet_order(form(INK), Axis("seeds", "1, 2"), Axis("steps", "20, 40"))
    assert (order.row_labels, order.column_labels) == (("seed 1", "seed 2"), ("20 steps", "40 steps"))
    assert [(row.seed, row.settings.steps if row.settings else None) for row in order.rows] == [
        (1, None), (1, 40), (2, None), (2, 40),
    ]  # fmt: skip


def test_a_sheet_of_guidance_and_schedulers_needs_no_style() -> None:
    order = sheet_order(form(), Axis("guidance", "1, 7.5"), Axis("schedulers", "Euler, ddim"))
    kinds = [(row.settings.guidance, row.settings.scheduler) for row in order.rows if row.settings]
    assert kinds == [(1, "euler"), (1, "ddim"), (7.5, "euler"), (7.5, "ddim")]
    assert {row.strengths for row in order.rows} == {()}


@pytest.mark.parametrize(
    ("made", "rows", "columns", "told"),
    [
        (form(), PROMPTS, Axis("strengths", "1"), "Add a style"),
        (form(DOTS), PROMPTS, Axis("checkpoints"), "Dots has no checkpoints"),
        (form(INK), PROMPTS, Axis("styles"), "second style"),
        (form(INK), Axis("prompts", "\n".join("abcdefghijklmnopq")), Axis("strengths", "0, 1, 1.5, 2"), "at most 64"),
        (form(INK), Axis("seeds", "1"), Axis("seeds", "2"), "both vary Seeds"),
        (form(INK, DOTS), Axis("styles"), Axis("checkpoints"), "cannot be compared at once"),
        (form(INK), PROMPTS, Axis("steps", "2.5"), "'2.5' does not suit Steps"),
        (form(INK), PROMPTS, Axis("schedulers", "Heun"), "'Heun' is no scheduler"),
    ],
)
def test_a_sheet_that_cannot_be_made_says_why(made: Form, rows: Axis, columns: Axis, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sheet_order(made, rows, columns)


@pytest.mark.parametrize("line", ["", "one", "3", "nan", "0, -1.01"])
def test_what_is_no_strength_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="does not suit Strengths"):
        sheet_order(form(INK), PROMPTS, Axis("strengths", line))


def test_a_sheet_is_titled_with_styles_triggers_base_and_seed() -> None:
    assert (
        title_of(form(INK, DOTS), "Bundled icons") == "Ink (ink style) \u00b7 Dots \u00b7 Bundled icons \u00b7 seed 5"
    )


def test_a_failed_sheet_shows_its_sentence_escaped() -> None:
    order = sheet_order(form(INK), PROMPTS, Axis("strengths", "1"))
    failed = replace(job(order, state="failed", made=0), message="<b>no</b>")
    assert "&lt;b&gt;no" in sheet(failed, Scene())
    assert "<b>" not in sheet(failed, Scene())


# ---- what is shown


def test_the_viewer_is_told_which_frames_there_are() -> None:
    order = picture_order(form(INK)).drawn_with(["step-000200:1-2"])
    shown = viewer(Scene(form=form(INK), film="done"), [job(order)])
    (picture,) = shown["pictures"]
    assert [frame["strengths"] for frame in picture["frames"]] == [[0.0], [0.8]]
    assert picture["base"] == picture["frames"][0]["url"]
    assert (shown["film"], shown["busy"]) == (list(FILM), "")
    assert [(use["name"], use["made"]) for use in shown["styles"]] == [("Ink", "step 200")]


def test_the_gallery_shows_an_order_once_and_no_strips() -> None:
    order = picture_order(form(INK))
    jobs = [job(order, number=3), job(order, number=2), job(picture_order(form(INK, seed=8), FRAME), number=1)]
    shown = results([*jobs, job(replace(form(INK)).order(order.rows, STRIP), number=4)], {"run-1": "Ink"}, {})
    assert re.findall(r'data-job="(.*?)"', shown) == ["job-3"]
    assert "Ink 0.8 \u00b7 seed 5" in shown


def test_pictures_of_one_style_made_at_different_moments_have_different_labels() -> None:
    order = picture_order(form(INK))
    early, late = order.drawn_with([live_weights(120)]), order.drawn_with(["final:1-2"])
    assert detail(early, {"run-1": "Ink"}) == "Ink 0.8 \u00b7 step 120 \u00b7 seed 5"
    assert detail(late, {"run-1": "Ink"}) == "Ink 0.8 \u00b7 seed 5"
    assert len(re.findall("results-use", results([job(early), job(late, number=2)], {"run-1": "Ink"}, {}))) == 2


def test_a_deleted_style_is_called_so() -> None:
    assert "deleted" in results([job(picture_order(form(INK)))], {}, {})


def test_a_saved_picture_has_a_name_that_every_system_takes() -> None:
    assert file_stem(form(replace(INK, name="../Ink: \U0001f58b"), prompt="a/b\\c?")) == "ink-a-b-c"
    assert file_stem(form(prompt="???")) == "picture"


def test_the_caption_leaves_the_seed_to_the_viewer() -> None:
    assert caption(form(INK)) == "a cat \u00b7 seed {seed} \u00b7 20 steps \u00b7 DDIM"


# ---- when something is ordered by itself


def test_the_strip_fills_after_the_picture_and_only_once() -> None:
    studio, scene = ScriptedStudio(), Scene()
    scene.make(cast(Any, studio), form(INK))
    step(scene, studio)
    assert len(studio.orders) == 1, "the strip waits for the picture"
    studio.finish()
    step(scene, studio)
    strip = studio.orders["job-2"]
    assert strip.note == STRIP
    assert [row.strengths[0] for row in strip.rows] == [value for value in FILM if value]
    studio.finish()
    step(scene, studio)
    step(scene, studio)
    assert (scene.film, len(studio.orders)) == ("done", 2)


def test_a_slow_machine_is_offered_the_strip_and_its_slider_orders_nothing() -> None:
    studio, scene = ScriptedStudio(), Scene(pace=Pace(30.0))
    scene.make(cast(Any, studio), form(INK))
    studio.finish()
    step(scene, studio)
    assert (scene.film, len(studio.orders)) == ("offer", 1)
    assert scene.film_seconds(scene.look(cast(Any, studio))) == pytest.approx(30.0 * 6)
    assert scene.move(cast(Any, studio), form(replace(INK, strength=0.35))) == "slow"
    assert len(studio.orders) == 1
    scene.order_film(cast(Any, studio), scene.look(cast(Any, studio)))
    assert (scene.film, studio.orders["job-2"].note) == ("filling", STRIP)


def test_moving_over_made_frames_orders_nothing_and_elsewhere_one_frame() -> None:
    studio, scene = ScriptedStudio(), Scene()
    scene.make(cast(Any, studio), form(INK))
    for _ in range(3):
        studio.finish()
        step(scene, studio)
    assert scene.move(cast(Any, studio), form(replace(INK, strength=1.25))) == "shown"
    assert len(studio.orders) == 2
    assert scene.move(cast(Any, studio), form(replace(INK, strength=0.35))) == "ordered"
    assert scene.move(cast(Any, studio), form(replace(INK, strength=0.4))) == "ordered"
    assert studio.cancelled == ["job-3"], "a frame that was passed by is not waited for"
    assert scene.move(cast(Any, studio), form(INK, prompt="a dog")) == "other"


def test_weights_in_training_begin_a_new_scene_with_every_picture() -> None:
    studio, scene = ScriptedStudio(), Scene()
    studio.now["run-1"] = live_weights()
    live = form(replace(INK, live=True))
    for expected in (["job-1"], ["job-2"]):
        scene.make(cast(Any, studio), live)
        assert scene.jobs == expected
        studio.finish()
        step(scene, studio)
    assert len(studio.orders["job-1"].rows) == 1 + len(FILM), "all frames show the weights of one moment"
    assert scene.film == "done"


def test_stopping_cancels_what_is_open_and_offers_the_rest() -> None:
    studio, scene = ScriptedStudio(), Scene()
    scene.make(cast(Any, studio), form(INK))
    scene.cancel(cast(Any, studio))
    step(scene, studio)
    assert (studio.cancelled, scene.film, len(studio.orders)) == (["job-1"], "offer", 1)


def test_a_job_that_was_deleted_elsewhere_is_forgotten() -> None:
    studio, scene = ScriptedStudio(), Scene()
    scene.make(cast(Any, studio), form(INK))
    studio.orders.clear()
    assert scene.look(cast(Any, studio)) == []
    assert scene.jobs == []


def test_taking_up_a_job_finds_the_frames_of_its_scene() -> None:
    studio, first = ScriptedStudio(), Scene()
    first.make(cast(Any, studio), form(INK))
    for _ in range(2):
        studio.finish()
        step(first, studio)
    second = Scene()
    second.take_up(cast(Any, studio), form(INK), "job-1")
    assert (second.jobs, second.film, second.taken) == (["job-2", "job-1"], "done", True)


def test_the_pace_is_measured_on_what_was_drawn_and_not_on_what_was_cached() -> None:
    order = picture_order(form(INK, count=2))
    cached, pace = job(order), Pace()
    pace.see(cached, 1000.1)
    assert pace.seconds is None
    working = replace(job(order, state="working", made=0), id="job-2", done=5, total=20)
    pace.see(working, 1010.0)
    pace.see(replace(working, done=10), 1015.0)
    assert pace.seconds == pytest.approx(5.0)
    pace.see(replace(job(order), id="job-2"), 1013.0)
    assert pace.seconds == pytest.approx(1.0)
    assert not pace.slow
    assert Pace(FAST_SECONDS + 1).slow


def test_a_style_that_has_learned_on_begins_a_new_scene() -> None:
    studio, scene = ScriptedStudio(), Scene()
    studio.now["run-1"] = "final:1"
    scene.make(cast(Any, studio), form(INK))
    studio.finish()
    jobs = scene.look(cast(Any, studio))
    assert not scene.learned_on(cast(Any, studio), jobs)
    studio.now["run-1"] = "final:2"
    assert scene.learned_on(cast(Any, studio), jobs)
    assert "learned on" in viewer(scene, jobs, learned_on=True)["message"]
    scene.make(cast(Any, studio), form(INK))
    assert scene.jobs == ["job-2"], "no picture of the weights before stands beside those of now"


def test_a_moment_of_a_training_is_not_mixed_with_the_finished_style() -> None:
    studio, scene = ScriptedStudio(), Scene()
    studio.now["run-1"] = live_weights(120)
    scene.make(cast(Any, studio), form(replace(INK, live=True)))
    studio.finish()
    studio.now["run-1"] = "final:1"
    scene.make(cast(Any, studio), form(INK))
    assert scene.jobs == ["job-2"]
    studio.finish()
    again = Scene()
    again.take_up(cast(Any, studio), form(INK), "job-2")
    assert again.jobs == ["job-2"]
    again.take_up(cast(Any, studio), form(INK), "job-1")
    assert again.jobs == ["job-1"]
    assert viewer(again, again.look(cast(Any, studio)))["styles"][0]["made"] == "step 120"


def test_what_was_removed_goes_for_good_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    studio, scene = ScriptedStudio(), Scene()
    scene.make(cast(Any, studio), form(INK))
    studio.finish()
    now = time.time()
    monkeypatch.setattr("app.preview.scene.time.time", lambda: now)
    scene.leaving["job-1"] = now + UNDO_SECONDS
    scene.sweep(cast(Any, studio))
    assert "job-1" in studio.orders
    now += UNDO_SECONDS
    scene.sweep(cast(Any, studio))
    assert studio.orders == {}


# ---- what the base draws well


@pytest.mark.parametrize(
    ("prompt", "after"),
    [
        ("", "fox"),
        ("a cat", "fox"),
        ("a cat, ink style", "fox, ink style"),
        ("a cat, ink style, at night", "fox, ink style, at night"),
        ("Ink style", "fox, Ink style"),
        ("ink style, at night", "fox, ink style, at night"),
        (" , ", "fox"),
    ],
)
def test_a_subject_takes_the_place_of_the_one_before_and_leaves_the_style(prompt: str, after: str) -> None:
    assert with_subject(prompt, "fox", ["ink style"]) == after


def test_the_bundled_base_brings_its_scheduler_steps_and_subjects() -> None:
    bases = cast(Any, SimpleNamespace(bases=Bases()))
    found = suits(bases, "bundled")
    assert (found.scheduler, found.steps) == ("dpm++_2m", 12)
    assert "tiger face" in str(subjects(found))
    offered = {key for _, key in schedulers(found)}
    assert offered == set(SCHEDULERS) - {"pndm", "dpm++_2m_karras"}
    assert {key for _, key in schedulers(found, also="pndm")} == offered | {"pndm"}


def test_the_tokens_of_a_prompt_are_counted_by_windows_and_a_lost_end_is_said() -> None:
    found = suits(cast(Any, SimpleNamespace(bases=Bases())), "bundled")
    assert tokens("", "", found) is tokens("a cat", "", Suits()) is None
    short = str(tokens("a (cat:1.2), \\(ink style\\)", "", found))
    assert "8 of 14 tokens" in short
    assert "over" not in short
    assert "2 + 1 of 42 tokens" in str(tokens("a cat BREAK fox", "", found))
    for prompts in (("fox " * 50, ""), ("fox", "fox BREAK " * 4)):
        lost = str(tokens(*prompts, found))
        assert "tokens over" in lost
        assert ("negative prompt" in lost) == bool(prompts[1])


def test_of_a_base_that_cannot_be_told_everything_is_offered_and_nothing_promised(tmp_path: Path) -> None:
    bases = cast(Any, SimpleNamespace(bases=Bases()))
    found = suits(bases, str(tmp_path))
    assert {key for _, key in schedulers(found)} == set(SCHEDULERS)
    assert subjects(found) is None


def test_what_suits_a_base_already_is_not_put_over_what_is_typed_meanwhile() -> None:
    names = ("base", "steps", "scheduler", "block_style", "block_content")
    panels = SimpleNamespace(all=set(), parts={"subjects": "subjects"})
    parts = SimpleNamespace(scene="scene", modes="modes", panels=panels, fields={name: name for name in names})
    tab = Listeners(cast(Any, SimpleNamespace(studio=SimpleNamespace(bases=Bases()))), cast(Any, parts))
    scene, typed = Scene(), {"base": "bundled", "steps": Suits().steps, "scheduler": Suits().scheduler}
    sent = tab.suited(scene, typed)
    assert (sent["steps"], sent["scheduler"].constructor_args["value"]) == (12, "dpm++_2m")
    sent = tab.suited(scene, {**typed, "steps": 3})
    assert "steps" not in sent
    assert "value" not in sent["scheduler"].constructor_args
    assert sent["block_style"].constructor_args["visible"] is False
    sent = tab.suited(Scene(suits=replace(scene.suits, halves=("style", "content"))), {**typed})
    assert sent["block_style"].constructor_args["visible"] is True


def test_sliders_of_blocks_weigh_every_style_of_an_order_and_come_back_with_it() -> None:
    mixer = Mix((MixRow("a", "A", 1.0), MixRow("b", "B", 0.5))).value()
    values = {"prompt": "a cat", "mixer": mixer, "block_down": 1, "block_mid": 0, "block_up": 0.5}
    form = read_form(values, BaseConfig())
    order = form.order([form.row(1, (1.0, 0.5))], "")
    assert [use.blocks for use in order.styles] == ["mid=0, up=0.5"] * 2
    again = form_of(order, form.mix.rows)
    assert again.blocks == form.blocks
    assert {key: again.values()[key] for key in values if key.startswith("block")} == {
        "block_down": 1.0,
        "block_mid": 0.0,
        "block_up": 0.5,
    }
    plain = read_form({**values, "block_mid": 1, "block_up": 1}, BaseConfig())
    assert plain.blocks == ""
    assert scene_of(plain.order(order.rows, "")) != scene_of(order)
    # Of SDXL the block of style can count alone, whatever else lies above.
    values = {"block_up": 0, "block_style": 1, "block_content": 0}
    alone = read_form({"prompt": "a cat", "mixer": mixer, **values}, BaseConfig())
    assert alone.blocks == "up=0, style=1"
    assert {key: value for key, value in alone.values().items() if key in values} == values
    assert suits(cast(Any, SimpleNamespace(bases=Bases())), "bundled").halves == ()


@pytest.fixture
def tab() -> Listeners:
    """The tab's listeners over a studio in which a picture was made before."""
    pictures = ScriptedStudio()
    pictures.order(form(seed=3).order([form().row(3, ())], PICTURE))
    pictures.finish()
    studio = SimpleNamespace(pictures=pictures, library=SimpleNamespace(cards=list), bases=Bases())
    panels = SimpleNamespace(updates=lambda shown, drawn: drawn)
    parts = SimpleNamespace(panels=panels, fields={name: name for name in form().values()}, scene="", modes="")
    panels.all = set()
    return Listeners(cast(Any, SimpleNamespace(studio=studio)), cast(Any, parts))


def test_the_first_visit_shows_again_what_was_made_before_unless_another_tab_sends_a_style(tab: Listeners) -> None:
    scene = Scene()
    filled = tab.back_again(scene, "", Visit())
    assert (filled["prompt"], filled["seed"]) == ("a cat", 3)
    assert scene.jobs == ["job-1"]
    untouched = Scene()
    assert tab.back_again(untouched, "", Visit("run-1", at=1.0)) == gr.skip()
    assert untouched == Scene()


def test_what_the_visitor_began_while_it_was_looked_up_stays(tab: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    def look(self: Bases, source: str, *rest: object) -> BaseInfo:
        scene.taken = True
        return BaseInfo(source)

    monkeypatch.setattr(Bases, "check", look)
    assert tab.back_again(scene, "", Visit()) == gr.skip()
    assert scene == Scene(taken=True)
