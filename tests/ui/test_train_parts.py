"""The Train tab's drawing and actions by themselves: what a run shows in each state, and what a click does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from app import header
from app.refresh import Panels, Shown
from app.texts import TEXTS
from app.train import monitor, pictures, runs, setup
from app.train.actions import Actions
from app.train.page import DRAWN, draw
from trainer.bases.describe import BaseInfo
from trainer.captioning.style_words import STYLE_WORDS
from trainer.captioning.writers import Writer
from trainer.errors import ConfigError, StudioError
from trainer.events import Phase, Sampled
from trainer.judging.images import learned
from trainer.judging.judgement import Judged, Judgement
from trainer.judging.votes import Vote
from trainer.studio import machine
from trainer.studio.captioning import CaptioningView
from trainer.studio.store import State, Wish
from trainer.studio.studio import Studio
from trainer.studio.views import AddReport, MachineView, RunSummary, RunView

NASTY = """<script>alert(1)</script> "x" ${y} {{z}}"""
WORDS = TEXTS.train


def view(state: State, **changes: Any) -> RunView:
    values: dict[str, Any] = {
        "id": "run-1", "name": NASTY, "trigger": NASTY, "state": state, "wish": Wish.NONE, "version": (0.0, 0),
        "settings": {}, "step": 20, "steps": 80, "phase": None, "loss_steps": (1, 2), "losses": (0.5, 0.4),
        "learning_rate": 1e-3, "validation": (), "samples": (), "checkpoints": (), "samples_per_second": 12.0,
        "seconds_left": 30.0, "plan": None, "notices": (), "adapter": None, "sheet": None, "verified": (),
        "seconds": None, "error": "", "queue_place": None, "created": 0.0, "folder": Path("/home/runs/run-1"),
    }  # fmt: skip
    return RunView(**{**values, **changes})


def summary(run_id: str, state: State, **changes: Any) -> RunSummary:
    values: dict[str, Any] = {
        "id": run_id, "name": run_id, "trigger": "", "state": state, "wish": Wish.NONE, "step": 0, "steps": 0,
        "queue_place": None, "created": 0.0, "updated": 0.0, "thumbnail": None, "message": "",
    }  # fmt: skip
    return RunSummary(**{**values, **changes})


def acts(page: str) -> list[str]:
    return re.findall(r'data-act="([a-z-]+)"', page)


# ---- what is drawn


def judged(**changes: Any) -> Judgement:
    candidates = tuple(
        Judged(
            step=step, strength=strength, style=0.6, subject=0.9, nearness=1.0, drift=0.1, variety=1.0,
            pictures=f"judging/step-{step:06d}-{strength:g}.png",
        )
        for step in (100, 200)
        for strength in (0.75, 1.0)
    )  # fmt: skip
    values: dict[str, Any] = {
        "candidates": candidates, "step": 100, "strength": 0.75, "confidence": 0.9,
        "sentence": "Step 100 at strength 0.75: <b>close</b>.",
    }  # fmt: skip
    return Judgement(**{**values, **changes})


def test_a_judged_run_says_what_is_in_the_file_and_why_and_outlines_it() -> None:
    page = monitor.progress(view(State.FINISHED, judgement=judged()), next_up=False)
    assert "Step 100 at strength 0.75: &lt;b&gt;close&lt;/b&gt;." in page
    rows = re.findall(r"<li[^>]*>.*?</li>", page.split('class="judged"')[1])
    assert len(rows) == 5
    assert [row for row in rows if 'class="kept"' in row] == [rows[1]]
    assert "Step 100 at strength 0.75" in rows[1]
    assert "in the file" in rows[1]


def test_every_candidate_can_be_kept_instead_but_the_one_in_the_file() -> None:
    page = str(monitor.progress(view(State.FINISHED, judgement=judged()), next_up=False))
    cells = re.findall(r"<button[^>]*data-act=\"keep\"[^>]*>.*?</button>", page)
    assert [(re.findall(r'data-(?:step|strength)="(.*?)"', cell)) for cell in cells] == [
        ["100", "0.75"], ["100", "1"], ["200", "0.75"], ["200", "1"],
    ]  # fmt: skip
    assert [" disabled" in cell for cell in cells] == [True, False, False, False]
    assert all(">72<" in cell for cell in cells)


def test_while_the_file_is_written_anew_nothing_else_can_be_kept() -> None:
    busy = view(State.FINISHED, judgement=judged(), phase=Phase(name="exporting"))
    page = str(monitor.progress(busy, next_up=False))
    assert TEXTS.train.phases["exporting"] in page
    assert len(re.findall(r'<button[^>]*disabled[^>]*data-act="keep"', page)) == 4
    assert 'data-act="judge"' not in page


def test_images_that_stand_out_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(6)]
    (tmp_path / "runs" / "r" / "images").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / "runs" / "r" / "images" / name)
    images = learned(names, [[0.2, 0.2, 0.2, 0.2, 0.2, 0.01]])
    told = judged(images=images).titled({"5.png": "<i>odd</i>.jpg"})
    page = str(monitor.progress(view(State.FINISHED, judgement=told, folder=tmp_path / "runs" / "r"), next_up=False))
    assert re.findall(r'data-act="leave-out" data-image="(.*?)"', page) == ["5.png"]
    assert "&lt;i&gt;odd&lt;/i&gt;.jpg" in page
    assert TEXTS.train.learned_standing["least"] in page


def test_a_blind_pair_hides_what_it_shows_and_the_preferred_state_can_be_kept() -> None:
    asked = judged(prompts=("<cat>", "bus"))
    page = str(monitor.progress(view(State.FINISHED, judgement=asked), next_up=False)).split('class="votes"')[1]
    pair = page.split('class="pair"')[1].split("</div>")[0]
    assert pair.count("background-image") == 2
    assert "strength" not in re.sub(r"url\(.*?\)", "", pair)
    assert re.findall(r'data-act="vote" data-number="0" data-better="(.*?)"', page) == ["left", "same", "right"]
    assert "&lt;cat&gt;" in page or "bus" in page
    assert 'class="ranking"' not in page
    votes = tuple(
        Vote(prompt=0, left=(200, 1.0), right=other, better="left") for other in [(100, 0.75), (100, 1.0)] * 6
    )
    page = str(monitor.progress(view(State.FINISHED, judgement=asked, votes=votes), next_up=False))
    page = page.split('class="votes"')[1]
    assert page.index("Step 200 at strength 1") < page.index("Step 100 at strength")
    assert 'data-act="keep" data-step="200" data-strength="1"' in page
    kept = judged(prompts=("cat", "bus"), chosen_step=200, chosen_strength=1.0)
    page = str(monitor.progress(view(State.FINISHED, judgement=kept, votes=votes), next_up=False))
    assert 'data-act="keep"' not in page.split('class="votes"')[1].split("</details>")[0]


def test_the_outline_follows_what_the_user_kept() -> None:
    page = monitor.progress(view(State.FINISHED, judgement=judged(chosen_step=200, chosen_strength=1.0)), next_up=False)
    kept = re.findall(r'<li class="kept">.*?</li>', page)
    assert len(kept) == 1
    assert "Step 200 at strength 1" in kept[0]


def test_the_wipe_shows_the_step_that_is_in_the_file() -> None:
    samples = tuple(Sampled(step=step, index=0, prompt="cat", path=f"samples/{step}.png") for step in (0, 100, 200))
    page = str(pictures.pictures(view(State.FINISHED, samples=samples, judgement=judged())))
    assert "100.png" in page.split('class="wipe"')[1].split("</figure>")[0]
    assert "200.png" not in page.split('class="wipe"')[1].split("</figure>")[0]


@pytest.mark.parametrize(
    ("run", "offered"),
    [
        (view(State.QUEUED, step=0), ["unqueue"]),
        (view(State.TRAINING, step=0), ["pause", "cancel"]),
        (view(State.TRAINING), ["try", "pause", "stop", "cancel"]),
        (view(State.TRAINING, wish=Wish.PAUSE), ["try", "resume", "cancel"]),
        (view(State.TRAINING, wish=Wish.CANCEL), ["try"]),
        (view(State.PAUSED), ["resume", "stop", "cancel"]),
        (view(State.FAILED), ["resume", "again"]),
        (view(State.FAILED, images_changed=True), ["resume", "resume-without", "again"]),
        (view(State.CANCELLED), ["resume", "again"]),
        (view(State.FINISHED), ["preview", "share", "judge", "again"]),
    ],
)
def test_each_state_offers_what_can_be_done_and_nothing_else(run: RunView, offered: list[str]) -> None:
    assert acts(monitor.progress(run, next_up=False)) == offered


def test_progress_says_steps_speed_and_time_left() -> None:
    page = monitor.progress(view(State.TRAINING), next_up=False)
    assert "20 of 80 steps, 12.0 images/s, 30 s left" in page
    assert 'aria-valuenow="20"' in page


def test_work_that_is_no_training_step_is_named() -> None:
    page = monitor.progress(view(State.TRAINING, phase=Phase(name="caching", done=3, total=16)), next_up=False)
    assert f"{WORDS.phases['caching']}, 3 of 16" in page
    long = monitor.progress(
        view(State.TRAINING, phase=Phase(name="caching", done=3, total=16, seconds=12)), next_up=False
    )
    assert "Preparing the images, 3 of 16, for 12 s now" in long
    drawing = monitor.progress(view(State.TRAINING, phase=Phase(name="sampling", done=8, total=32)), next_up=False)
    assert f"{WORDS.phases['sampling']}, 25 %" in drawing


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"phase": Phase(name="loading"), "step": 0, "steps": 0}, "loading"),
        ({"phase": Phase(name="measuring")}, "preparing"),
        ({"phase": None}, "training"),
        ({"phase": Phase(name="sampling", done=1, total=2)}, "training"),
        ({"phase": Phase(name="sampling", done=1, total=2), "step": 80}, "pictures"),
        ({"phase": Phase(name="sampling", done=1, total=2), "wish": Wish.STOP}, "pictures"),
        ({"phase": Phase(name="exporting"), "wish": Wish.STOP}, "file"),
    ],
)
def test_a_run_is_in_one_stage_and_says_what_it_does_after_a_stop_too(changes: dict[str, Any], stage: str) -> None:
    run = view(State.TRAINING, **changes)
    assert monitor.stage(run) == stage
    page = str(monitor.progress(run, next_up=False))
    assert f'class="now" aria-current="step">{WORDS.stages[stage]}<' in page
    if run.phase is not None:
        assert WORDS.phases[run.phase.name] in page


@pytest.mark.parametrize("name", get_args(Phase.model_fields["name"].annotation))
def test_whatever_a_run_does_has_a_name_and_a_stage(name: str) -> None:
    run = view(State.TRAINING, phase=Phase(name=name, done=1, total=2), step=80)
    assert name in WORDS.phases
    assert monitor.stage(run) in monitor.STAGES


def test_a_run_without_steps_to_go_does_not_say_that_nothing_is_left_to_wait_for() -> None:
    page = monitor.progress(view(State.TRAINING, step=80, phase=Phase(name="exporting")), next_up=False)
    assert "left" not in page


def test_the_first_in_a_queue_without_a_training_is_starting() -> None:
    run = view(State.QUEUED, queue_place=1)
    assert WORDS.starting_worker in monitor.progress(run, next_up=True)
    assert WORDS.place.format(place=1) in monitor.progress(run, next_up=False)


def test_an_error_is_an_alert() -> None:
    page = monitor.progress(view(State.FAILED, error=NASTY), next_up=False)
    assert 'role="alert"' in page


def test_every_run_in_training_has_a_chip_that_leads_to_it() -> None:
    training = [
        summary("run-1", State.TRAINING, name="ink", step=1, steps=4),
        summary("run-2", State.TRAINING, name="clay", step=3, steps=4),
    ]
    page = header.chips(MachineView("cuda", "2 x RTX 3060", 2**30, 2**34, "training"), training)
    chips = re.findall(r'<button[^>]*class="chip run"[^>]*data-item="([^"]*)"[^>]*><span>([^<]*)</span>', str(page))
    assert chips == [("run-1", "ink, 25 %"), ("run-2", "clay, 75 %")]
    assert 'data-alive="run-1 run-2"' in page
    assert "2 x RTX 3060" in page


def test_a_screen_reader_hears_of_progress_ten_times_a_run() -> None:
    said = {str(monitor.live(view(State.TRAINING, step=step, steps=100))) for step in range(1, 100)}
    assert len(said) == 10


def test_the_newest_samples_are_large_and_earlier_ones_follow_from_the_oldest() -> None:
    shots = tuple(
        Sampled(step=step, index=index, prompt=f"prompt {index}", path=f"samples/{step}-{index}.png")
        for step in (40, 0, 20)
        for index in (1, 0)
    )
    shown = r"samples/(\d+-\d)\.png\?v=0&amp;w=(\d+)"
    page = str(pictures.pictures(view(State.TRAINING, samples=shots)))
    large = [("40-0", "640"), ("40-1", "640")]
    assert re.findall(shown, page) == [*large, ("0-0", "160"), ("0-1", "160"), ("20-0", "160"), ("20-1", "160")]
    done = str(pictures.pictures(view(State.FINISHED, samples=shots))).partition('class="choices"')[0]
    assert [name for name, _ in re.findall(shown, done)] == ["40-0", "0-0", "40-1", "0-1"]


def test_before_the_first_sample_there_is_a_place_for_each() -> None:
    waiting = str(pictures.pictures(view(State.TRAINING, settings={"samples": {"prompts": ["a", "b", "c"]}})))
    assert waiting.count('class="skeleton"') == 3
    assert str(pictures.pictures(view(State.TRAINING))).count('class="skeleton"') == pictures.EXPECTED


@pytest.mark.parametrize("state", list(State))
def test_names_and_prompts_are_never_markup(state: State) -> None:
    shots = (Sampled(step=0, index=0, prompt=NASTY, path="samples/a.png"),)
    run = view(state, samples=shots, error=NASTY, verified=(NASTY,), opens=(NASTY, NASTY))
    drawn = [
        monitor.progress(run, next_up=True),
        pictures.pictures(run) or "",
        monitor.losses(run) or "",
        monitor.live(run),
        runs.runs([summary("run-1", state, name=NASTY, message=NASTY)], "run-1"),
    ]
    assert not any("<script" in str(part) for part in drawn)


def test_where_a_file_opens_stands_beside_its_download_and_who_loses_what_behind_it() -> None:
    line, loss = "Opens in ComfyUI and diffusers.", "InvokeAI does not open it: it cannot tell the base."
    whole = str(monitor.progress(view(State.FINISHED, opens=(line,)), next_up=False))
    assert line in whole[whole.index('data-role="download"') :]
    part = str(monitor.progress(view(State.FINISHED, opens=(line, loss)), next_up=False))
    assert f"<summary>{line}</summary>" in part
    assert f"<li>{loss}</li>" in part
    assert 'class="opens' not in str(monitor.progress(view(State.FINISHED), next_up=False)), "a run of an older version"


def test_only_the_queue_can_be_reordered() -> None:
    listed = [
        summary("a", State.TRAINING),
        summary("b", State.QUEUED, queue_place=1),
        summary("c", State.QUEUED, queue_place=2),
        summary("d", State.FINISHED),
    ]
    rows = str(runs.runs(listed, "b")).split("<li")[1:]
    assert [acts(row) for row in rows] == [
        ["open"],
        ["open", "move", "unqueue"],
        ["open", "move", "unqueue"],
        ["open", "delete"],
    ]
    assert 'data-to="1"' in rows[1]
    assert 'data-to="0"' in rows[2]
    assert [row.count("aria-current") for row in rows] == [0, 1, 0, 0]


# ---- what a click does


@pytest.fixture
def studio(patina_home: Path) -> Iterator[Studio]:
    with Studio(patina_home) as opened:
        yield opened


@pytest.fixture
def actions(studio: Studio, patina_home: Path, monkeypatch: pytest.MonkeyPatch) -> Actions:
    # The plan says how much memory is free, which changes between two looks at a busy machine.
    monkeypatch.setattr(machine, "best_device", lambda: machine.Device("cpu", "CPU, 2 cores", 16 * 2**30, 8 * 2**30))
    (patina_home / "uploads").mkdir()
    return Actions(studio, patina_home / "uploads")


@pytest.fixture
def run(actions: Actions, pictures: list[Path]) -> str:
    made = actions.landing()
    actions.studio.drafts.add_images(made, pictures[:3])
    return made


def test_a_visitor_lands_on_what_was_asked_for_or_on_one_draft(actions: Actions) -> None:
    first = actions.landing()
    assert actions.landing() == actions.landing("nonsense") == actions.landing(first) == first
    assert len(actions.studio.runs.all()) == 1


def test_a_new_style_is_a_draft_without_images(actions: Actions, run: str) -> None:
    new = actions.click(run, {"act": "new"}).run
    assert new is not None
    assert new != run
    assert actions.click(run, {"act": "new"}).run == new


def test_every_button_of_the_page_is_known_and_others_are_refused(actions: Actions, run: str) -> None:
    drawn = "".join(draw(actions, run).values())
    known = {name.removeprefix("click_").replace("_", "-") for name in dir(actions) if name.startswith("click_")}
    assert set(acts(drawn)) <= known
    with pytest.raises(StudioError, match="format-disk"):
        actions.click(run, {"act": "format-disk"})


def test_a_file_outside_the_uploads_is_not_taken_whatever_the_page_says(actions: Actions, run: str) -> None:
    inside = actions.studio.drafts.view(run).images[0].path
    with pytest.raises(StudioError, match="did not arrive"):
        actions.upload(run, [{"path": str(inside), "name": "x.png"}])
    assert inside.exists()
    assert len(actions.studio.drafts.view(run).images) == 3


def test_an_upload_is_taken_in_and_its_copy_removed(
    actions: Actions, run: str, patina_home: Path, pictures: list[Path]
) -> None:
    arrived = patina_home / "uploads" / "h" / "fresh.png"
    arrived.parent.mkdir()
    arrived.write_bytes(pictures[5].read_bytes())
    broken = arrived.with_name("broken.png")
    broken.write_bytes(b"no image")
    answer = actions.upload(run, [{"path": str(path), "name": path.name} for path in (arrived, broken)])
    assert [image.name for image in actions.studio.drafts.view(run).images][-1] == "fresh.png"
    assert "broken.png" in str(answer.notice)
    assert not arrived.exists()
    assert not broken.exists()


def test_an_upload_is_read_in_parts_that_keep_captions_and_masks_with_their_images(
    actions: Actions, run: str, patina_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = patina_home / "uploads" / "many"
    folder.mkdir()
    for index in range(12):
        Image.new("RGB", (64, 64), (20 * index, 9, 9)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(f"number {index}", encoding="utf-8")
    Image.new("L", (64, 64), 255).save(folder / "03-mask.png")
    told: list[tuple[int, int]] = []
    add = actions.studio.drafts.add_images

    def adding(run_id: str, files: Sequence[str | Path], folders: Mapping[Path, str] | None = None) -> AddReport:
        told.append(actions.reading[run_id])
        return add(run_id, files, folders)

    monkeypatch.setattr(actions.studio.drafts, "add_images", adding)
    # As a browser sends them: in no order.
    paths = sorted(folder.iterdir(), key=lambda path: path.name[::-1])
    actions.upload(run, [{"path": str(path), "name": path.name} for path in paths])
    assert told == [(0, 25), (9, 25), (17, 25)]
    assert actions.reading == {}
    images = actions.studio.drafts.view(run).images
    assert [image.name for image in images if any(f.kind == "mask" for f in image.findings)] == ["03.png"]
    made = {image.name: image.caption for image in images}
    assert "03-mask.png" not in made
    assert all(made[f"{index:02d}.png"] == f"number {index}" for index in range(12))


def test_captions_that_the_base_cannot_use_are_counted(actions: Actions, run: str) -> None:
    images = actions.studio.drafts.view(run).images
    captions = ["", "\u732b", "a cat " * 60]
    actions.studio.drafts.set_captions(run, {image.id: text for image, text in zip(images, captions, strict=True)})
    page = draw(actions, run)["captions"]
    assert WORDS.without_caption[0].format(count=3) in page
    assert WORDS.too_long[0].partition("{")[0] in page
    assert WORDS.not_english[0].replace("'", "&#39;") in page


def test_captions_are_written_by_a_model_which_is_asked_for_before_it_is_downloaded(
    actions: Actions, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, str, bool, bool]] = []

    def start(run_id: str, model: str, length: str, *, anew: bool, download: bool) -> Writer | None:
        begun.append((model, length, anew, download))
        return None if download else Writer(NASTY, None, files=(("model.safetensors", 3 * 2**29),))

    monkeypatch.setattr(actions.studio.captioning, "start", start)
    page = draw(actions, run)["captions"]
    assert {"captions-write", "captions-write-all", "captions-usual-words"} <= set(acts(page))
    fields = {"model": "florence-2 long", "other": "  "}
    asked = str(actions.click(run, {"act": "captions-write-all", "fields": fields}).notice)
    assert "1.5 GB" in asked
    assert "<script>" not in asked
    (offered,) = re.findall(r"<button[^>]*>", asked)
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', offered))
    assert actions.click(run, data).notice is None
    actions.click(run, {"act": "captions-write", "fields": {"model": "blip short", "other": "/my/blip"}})
    assert begun == [
        ("florence-2", "long", True, False),
        ("florence-2", "long", True, True),
        ("/my/blip", "short", False, False),
    ]

    # What was chosen is there again at the next visit.
    actions.set(run, {"set": "caption-writer", "value": "blip short"})
    actions.set(run, {"set": "caption-writer-named", "value": "/my/blip"})
    page = draw(actions, run)["captions"]
    assert 'value="blip short" selected' in page
    assert 'value="/my/blip"' in page

    # How far it is stands above the fold; the list of words is kept, and the usual one comes back with a click.
    for stage, shown in (("writing", "1 of 3 images"), ("downloading", "1 KB of 3 KB"), ("waiting", "training pauses")):
        scale = 1024 if stage == "downloading" else 1
        view = CaptioningView(stage, scale, 3 * scale)  # type: ignore[arg-type]
        monkeypatch.setattr(actions.studio.captioning, "view", lambda run_id, view=view: view)
        page = draw(actions, run)["captions"]
        assert shown in page
        assert "captions-stop" in acts(page)
    actions.set(run, {"set": "style-words", "value": f"{NASTY.partition(',')[0]}\nglossy"})
    assert actions.studio.preferences.style_words()[-1] == "glossy"
    monkeypatch.setattr(actions.studio.captioning, "view", lambda run_id: CaptioningView("done", 3, 3, 2, unsaid=1))
    page = draw(actions, run)["captions"]
    assert "<script>" not in page
    assert "2 captions written, 3 images looked at." in page
    assert WORDS.writer_unsaid.format(count=1) in page
    actions.click(run, {"act": "captions-usual-words"})
    assert actions.studio.preferences.style_words() == STYLE_WORDS


def test_a_setting_that_means_nothing_to_the_base_is_hidden_until_it_was_chosen(actions: Actions, run: str) -> None:
    view, plan = actions.studio.drafts.view(run), actions.studio.drafts.plan(run)
    shown = {
        family: 'id="set-base-clip_skip"' in setup.advanced(view, plan, BaseInfo("", family=family))
        for family in ("sd1", "sd2", "sdxl")
    }
    assert shown == {"sd1": True, "sd2": True, "sdxl": False}
    actions.studio.drafts.update(run, {"base.clip_skip": 1})
    chosen = actions.studio.drafts.view(run)
    assert 'id="set-base-clip_skip"' in setup.advanced(chosen, plan, BaseInfo("", family="sdxl"))


def test_a_run_may_take_several_cards_where_there_are_several(actions: Actions, run: str) -> None:
    view, plan = actions.studio.drafts.view(run), actions.studio.drafts.plan(run)
    assert plan.cards == 1
    shown = ['id="set-train-gpus"' in setup.advanced(view, replace(plan, cards=count)) for count in (1, 2)]
    assert shown == [False, True]


def test_schedulers_that_cannot_draw_on_a_rescaled_schedule_are_not_offered_where_one_is_chosen(
    actions: Actions, run: str
) -> None:
    def offered() -> bool:
        view, plan = actions.studio.drafts.view(run), actions.studio.drafts.plan(run)
        return 'value="pndm"' in setup.advanced(view, plan, BaseInfo("", family="sdxl"))

    assert offered()
    actions.studio.drafts.update(run, {"base.zero_terminal_snr": True, "base.prediction": "v_prediction"})
    assert not offered()


def test_a_sample_style_starts_with_one_click(actions: Actions) -> None:
    run = actions.landing()
    assert 'data-act="samples-train"' in draw(actions, run)["images"]
    made = actions.click(run, {"act": "samples-train", "item": "high_contrast"}).run
    assert made is not None
    assert actions.studio.runs.view(made).state == "queued"


def test_a_dial_sets_its_setting_and_its_middle_leaves_it_to_the_preset(actions: Actions, run: str) -> None:
    actions.set(run, {"set": "dial.detail", "value": "1"})
    assert actions.studio.drafts.plan(run).rank == 16
    actions.set(run, {"set": "dial.detail", "value": "0"})
    assert actions.studio.drafts.plan(run).rank == 8
    assert "adapter.rank" in actions.studio.drafts.plan(run).choices
    with pytest.raises(StudioError, match="no control"):
        actions.set(run, {"set": "dial.volume", "value": "0"})


def test_a_learning_rate_can_be_sought_unless_one_is_chosen_and_the_plan_says_what_it_costs(
    actions: Actions, run: str
) -> None:
    drafts = actions.studio.drafts
    before = drafts.plan(run).seconds
    assert before is not None
    assert 'data-set="optim.find_rate"' in draw(actions, run)["setup"]
    actions.set(run, {"set": "optim.find_rate", "value": True})
    plan = drafts.plan(run)
    assert plan.seconds is not None
    assert plan.seconds > 2 * before
    assert any(note.startswith("Finding the learning rate takes 2.1 times the steps") for note in plan.notes)
    actions.set(run, {"set": "dial.strength", "value": "1"})
    assert drafts.plan(run).notes != plan.notes
    assert 'data-set="optim.find_rate"' not in draw(actions, run)["setup"]


def test_a_subject_that_is_pressed_becomes_a_sample_prompt_once_with_the_trigger(actions: Actions, run: str) -> None:
    actions.set(run, {"set": "trigger", "value": "ink style"})
    for subject in ("fox", "owl", "fox"):
        actions.click(run, {"act": "subject", "item": subject})
    assert actions.studio.drafts.view(run).settings["samples"]["prompts"] == ["fox, ink style", "owl, ink style"]


def test_subjects_are_offered_for_a_base_that_names_some(actions: Actions, run: str) -> None:
    assert 'data-item="tiger face"' in draw(actions, run)["advanced"]
    actions.set(run, {"set": "base", "value": ""})
    assert 'data-act="subject"' not in draw(actions, run)["advanced"]


def test_schedulers_that_cannot_draw_with_the_base_are_not_offered(actions: Actions, run: str) -> None:
    assert 'value="ddim"' in draw(actions, run)["advanced"]
    assert 'value="pndm"' not in draw(actions, run)["advanced"]
    actions.set(run, {"set": "samples.scheduler", "value": "pndm"})
    assert '<option value="pndm" selected>' in draw(actions, run)["advanced"]


def test_a_pace_puts_the_dials_back_to_the_middle(actions: Actions, run: str) -> None:
    actions.set(run, {"set": "dial.length", "value": "2"})
    actions.set(run, {"set": "train.preset", "value": "quick"})
    assert actions.studio.drafts.plan(run).steps == 120


def test_a_setting_that_is_not_allowed_changes_nothing(actions: Actions, run: str) -> None:
    before = actions.studio.drafts.view(run).settings
    with pytest.raises(ConfigError, match=r"adapter\.rank"):
        actions.set(run, {"set": "adapter.rank", "value": "-3"})
    with pytest.raises(ConfigError, match=r"no setting train\.magic"):
        actions.set(run, {"set": "train.magic", "value": "1"})
    assert actions.studio.drafts.view(run).settings == before


def test_deleting_what_is_shown_leads_elsewhere_and_can_be_undone(actions: Actions, run: str) -> None:
    answer = actions.click(run, {"act": "delete", "item": run})
    assert answer.run not in (None, run)
    assert 'data-act="undelete"' in str(answer.notice)
    assert actions.click(str(answer.run), {"act": "undelete", "item": run}).run == run
    assert len(actions.studio.drafts.view(run).images) == 3


def test_a_page_that_shows_it_all_is_sent_nothing(actions: Actions, run: str) -> None:
    drawn = draw(actions, run)
    assert tuple(drawn) == DRAWN
    versions = {name: re.findall(r'data-version="(.*?)"', content)[0] for name, content in drawn.items()}
    parts = Panels()
    for name in drawn:
        parts.place(name)
    assert parts.updates(Shown(run, versions), draw(actions, run)) == {}
    assert set(parts.updates(Shown(), draw(actions, run))) == parts.all


def test_a_change_of_one_caption_sends_the_captions_only(actions: Actions, run: str) -> None:
    drawn = draw(actions, run)
    image = actions.studio.drafts.view(run).images[0]
    actions.set(run, {"set": "caption", "image": image.id, "value": "something else"})
    again = draw(actions, run)
    assert [name for name in DRAWN if drawn[name] != again[name]] == ["captions"]
