"""The studio with a real worker on the bundled base: what happens while it trains, and when it is killed.

One undisturbed run is trained first. Every other run has the same settings and images but is disturbed in its own way;
its adapter must have the same weights, bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from gates import Gates
from PIL import Image, ImageChops, ImageDraw
from tiny_writers import tiny_blip
from waiting import until

from trainer.config import BaseConfig
from trainer.errors import AdapterFileError, RunError, StudioError
from trainer.preview.order import PreviewOrder, PreviewRow, PreviewSettings, StyleUse, live_weights
from trainer.studio import drafts, folder
from trainer.studio.captioning import CaptioningView
from trainer.studio.folder import StudioFolder
from trainer.studio.store import State
from trainer.studio.studio import Studio
from trainer.studio.views import JobView, RunView
from trainer.studio.worker.protocol import Hello, RunEnded, Train, parse_reply
from trainer.styles.metadata import sshs_model_hash
from trainer.training.run_folder import RunFolder

# Each worker loads its libraries first, which takes a while where many programs run.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 16
SETTINGS = {
    "name": "Shapes",
    "trigger": "shape style",
    "train.steps": STEPS,
    "train.checkpoint_every": 4,
    "train.threads": 1,
    "train.keep_checkpoints": 10,
    "samples.every": 8,
    "samples.steps": 2,
    "samples.prompts": ["a cat"],
    "data.validation_share": 0.2,
}
QUICK = PreviewSettings(steps=3)
LONG = PreviewSettings(steps=200, width=256, height=256)
"""No machine is done with it before it is stopped."""


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("uploads")
    for index, name in enumerate(("apple", "car", "tree", "house", "fish")):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse(
            (4 + 8 * index, 6, 40 + 4 * index, 50), fill=(50 * index, 90, 200), outline="black"
        )
        image.save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gates]:
    """Where a run in training can be held; workers mind them from their start on."""
    made = Gates(tmp_path_factory.mktemp("held") / "gates")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def studio(home: Path, gates: Gates) -> Iterator[Studio]:
    with Studio(home) as opened:
        yield opened


def prepare(studio: Studio, uploads: list[Path], **settings: object) -> str:
    run_id = studio.drafts.create({**SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}})
    studio.drafts.add_images(run_id, uploads)
    return run_id


def train_to(studio: Studio, run_id: str, gates: Gates, step: int) -> None:
    """Train a run to a step and hold it there, until the gate is opened or the worker asked to end."""
    gates.close(step, run_id)
    studio.runs.enqueue(run_id)
    gates.arrived(step, run_id)


def reach(studio: Studio, run_id: str, step: int) -> None:
    """Wait until a run in training got to a step."""

    def there() -> bool:
        view = studio.runs.view(run_id)
        assert view.state in ("queued", "training"), view.error or view.state
        return view.state is State.TRAINING and view.step >= step

    until(there, f"step {step}")


def rest(studio: Studio, run_id: str, state: State) -> RunView:
    """Wait until a run is in a state in which it stays."""

    def there() -> bool:
        view = studio.runs.view(run_id)
        assert view.state in ("queued", "training", state), view.error or view.state
        return view.state is state

    until(there, f"{state}")
    return studio.runs.view(run_id)


def done(studio: Studio, job_id: str) -> JobView:
    until(lambda: studio.pictures.view(job_id).state not in ("queued", "working"), "the pictures")
    return studio.pictures.view(job_id)


def order(*uses: StyleUse, strengths: tuple[tuple[float, ...], ...], settings: PreviewSettings = QUICK) -> PreviewOrder:
    rows = tuple(PreviewRow(prompt="a boat", seed=3, strengths=row) for row in strengths)
    return PreviewOrder(styles=uses, rows=rows, settings=settings)


def weights(view: RunView) -> str:
    assert view.adapter is not None
    return sshs_model_hash(view.adapter)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def worker_pid(studio: Studio) -> int:
    pid = studio.machine.worker_pid
    assert pid is not None
    return pid


@pytest.fixture(scope="module")
def undisturbed(studio: Studio, uploads: list[Path]) -> RunView:
    run_id = prepare(studio, uploads)
    studio.runs.enqueue(run_id)
    return rest(studio, run_id, State.FINISHED)


def test_a_run_is_trained_and_everything_about_it_is_there(studio: Studio, undisturbed: RunView) -> None:
    view = undisturbed
    assert (view.step, view.steps, view.loss_steps) == (STEPS, STEPS, tuple(range(1, STEPS + 1)))
    assert [sample.step for sample in view.samples] == [0, 8, 16]
    assert all((view.folder / sample.path).is_file() for sample in view.samples)
    assert [point.step for point in view.validation] == [8, 16]
    assert [checkpoint.step for checkpoint in view.checkpoints] == [4, 8, 12, 16]
    assert view.verified
    assert view.sheet is not None
    assert view.sheet.is_file()
    assert view.plan is not None
    assert view.plan.memory_bytes > 0
    assert studio.drafts.plan(studio.drafts.duplicate(view.id)).source == "measured"
    assert not studio.runs.in_training()


def test_the_saved_states_are_compared_when_asked_and_another_is_kept(studio: Studio, uploads: list[Path]) -> None:
    few = {"samples__prompts": ["a cat", "a boat"], "judging__strengths": [0.5, 1.0], "train__keep_checkpoints": 2}
    run_id = prepare(studio, uploads, **few, judging__enabled=False)
    with pytest.raises(StudioError, match="when it is finished"):
        studio.runs.judge(run_id)
    studio.runs.enqueue(run_id)
    assert rest(studio, run_id, State.FINISHED).judgement is None

    studio.runs.judge(run_id)
    assert studio.runs.view(run_id).phase is not None
    until(lambda: not studio.runs.is_rewritten(run_id), "the comparison")
    view = studio.runs.view(run_id)
    assert (view.error, view.phase) == ("", None)
    assert view.judgement is not None
    before = weights(view)

    other = next(one for one in view.judgement.candidates if one.step != view.judgement.kept[0])
    studio.runs.judge(run_id, keep=(other.step, other.strength))
    with pytest.raises(StudioError, match="being written anew"):
        studio.runs.delete(run_id)
    until(lambda: not studio.runs.is_rewritten(run_id), "the file")
    view = studio.runs.view(run_id)
    assert view.judgement is not None
    assert view.judgement.kept == (other.step, other.strength)
    assert view.verified
    assert weights(view) != before
    with pytest.raises(RunError, match="was not judged"):
        studio.runs.judge(run_id, keep=(3, 1.0))


def test_the_app_never_loads_torch(home: Path, studio: Studio) -> None:
    code = "import sys, trainer.studio.studio; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_previews_between_the_steps_leave_the_training_bit_identical(
    studio: Studio, uploads: list[Path], undisturbed: RunView, gates: Gates
) -> None:
    run_id = prepare(studio, uploads)
    train_to(studio, run_id, gates, 2)
    live = StyleUse(style=run_id)
    ordered = studio.pictures.order(order(live, strengths=((0.0,), (1.0,), (1.7,))))
    gates.close(6, run_id)
    first = done(studio, ordered)
    gates.arrived(6, run_id)
    # A finished style, a checkpoint of this very run and the weights in training, side by side in one batch.
    guests = (StyleUse(style=undisturbed.id), StyleUse(style=run_id, step=4), live)
    rows = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.3, -0.2))
    ordered = studio.pictures.order(order(*guests, strengths=rows))
    gates.open(run_id)
    second = done(studio, ordered)
    assert first.order.weights == (live_weights(2),)
    assert second.order.weights[2] == live_weights(6)
    assert [job.state for job in (first, second)] == ["done", "done"], (first.message, second.message)
    pictures = [Image.open(picture.path).convert("RGB") for picture in (*first.pictures, *second.pictures)]
    assert ImageChops.difference(pictures[0], pictures[1]).getbbox() is not None
    assert weights(rest(studio, run_id, State.FINISHED)) == weights(undisturbed)


def test_a_worker_killed_in_the_middle_is_replaced_and_the_run_resumes(
    studio: Studio, uploads: list[Path], undisturbed: RunView, gates: Gates
) -> None:
    run_id = prepare(studio, uploads)
    train_to(studio, run_id, gates, 6)
    killed = worker_pid(studio)
    os.kill(killed, signal.SIGKILL)
    gates.open(run_id)
    view = rest(studio, run_id, State.FINISHED)
    assert worker_pid(studio) != killed
    assert view.loss_steps == tuple(range(1, STEPS + 1))
    assert (view.folder / "crash.log").is_file()
    assert weights(view) == weights(undisturbed)


def test_pause_rests_and_resume_goes_on_to_the_same_weights(
    studio: Studio, uploads: list[Path], undisturbed: RunView, gates: Gates
) -> None:
    run_id = prepare(studio, uploads)
    train_to(studio, run_id, gates, 3)
    studio.runs.pause(run_id)
    gates.open(run_id)
    assert rest(studio, run_id, State.PAUSED).step == 3
    shown = done(studio, studio.pictures.order(order(StyleUse(style=run_id), strengths=((1.0,),))))
    assert shown.state == "done", shown.message
    studio.runs.resume(run_id)
    assert weights(rest(studio, run_id, State.FINISHED)) == weights(undisturbed)


def test_stop_and_keep_makes_the_file_of_what_several_processes_learned(studio: Studio, uploads: list[Path]) -> None:
    several = {"train__gpus": 2, "train__device": "cpu", "optim__batch_size": 2}
    run_id = prepare(studio, uploads, train__steps=5000, **several)
    studio.runs.enqueue(run_id)
    reach(studio, run_id, 3)
    pid = studio.machine.worker_pid
    assert pid is not None
    assert any("followers" in " ".join(each.cmdline()) for each in psutil.Process(pid).children())
    studio.runs.stop_and_keep(run_id)
    view = rest(studio, run_id, State.FINISHED)
    assert view.step < 5000
    assert RunFolder(view.folder).config().memory.micro_batch == 1, "each computes its own image"
    until(lambda: not psutil.pid_exists(pid), "the end of a worker that has led others")
    assert view.adapter is not None
    assert run_id in {card.id for card in studio.library.cards()}


def test_cancel_ends_without_a_file_and_the_next_in_the_queue_starts(studio: Studio, uploads: list[Path]) -> None:
    first, second = prepare(studio, uploads, train__steps=5000), prepare(studio, uploads, train__steps=3)
    third = prepare(studio, uploads)
    for run_id in (first, second, third):
        studio.runs.enqueue(run_id)
    assert [run.id for run in studio.runs.all()[:3]] == [first, second, third]
    studio.runs.move(third, 0)
    studio.runs.cancel(third)
    assert studio.runs.view(third).state is State.DRAFT
    reach(studio, first, 1)
    studio.runs.cancel(first)
    assert rest(studio, first, State.CANCELLED).adapter is None
    rest(studio, second, State.FINISHED)


def test_a_preview_is_cancelled_within_a_step_and_the_next_one_is_drawn(studio: Studio, undisturbed: RunView) -> None:
    use = StyleUse(style=undisturbed.id)
    long = studio.pictures.order(order(use, strengths=((0.9,), (0.8,)), settings=LONG))
    waiting = studio.pictures.order(order(use, strengths=((0.7,),), settings=LONG))
    until(lambda: studio.pictures.view(long).done > 0, "the first denoising step")
    studio.pictures.cancel(waiting)
    assert studio.pictures.view(waiting).state == "cancelled"
    asked = studio.pictures.view(long).done
    studio.pictures.cancel(long)
    assert done(studio, long).state == "cancelled"
    assert asked < 190
    after = done(studio, studio.pictures.order(order(use, strengths=((0.6,),))))
    assert after.state == "done", after.message


def test_a_picture_made_before_is_not_made_again(studio: Studio, undisturbed: RunView) -> None:
    use = StyleUse(style=undisturbed.id)
    first = done(studio, studio.pictures.order(order(use, strengths=((0.0,), (1.0,)))))
    again = studio.pictures.view(studio.pictures.order(order(use, strengths=((1.0,), (0.0,)))))
    assert again.state == "done"
    assert [p.path for p in again.pictures] == [p.path for p in reversed(first.pictures)]
    base = studio.pictures.view(studio.pictures.order(order(strengths=((),))))
    assert (base.state, base.pictures[0].path) == ("done", first.pictures[0].path)


def test_pictures_say_how_they_were_made(studio: Studio, undisturbed: RunView) -> None:
    job = done(studio, studio.pictures.order(order(StyleUse(style=undisturbed.id), strengths=((0.4,),))))
    with Image.open(job.pictures[0].path) as picture:
        text = str(picture.info["parameters"])
    assert text.startswith("a boat <lora:Shapes:0.4>\n")
    assert "Steps: 3, Sampler: DDIM" in text
    assert "Seed: 3" in text


def test_a_preview_that_cannot_be_made_is_a_sentence(studio: Studio, undisturbed: RunView) -> None:
    odd = order(StyleUse(style=undisturbed.id), strengths=((1.0,),), settings=PreviewSettings(steps=3, width=65))
    job = done(studio, studio.pictures.order(odd))
    assert job.state == "failed"
    assert "width is 65" in job.message
    missing = PreviewOrder(base=BaseConfig(source="/nowhere.safetensors"), rows=(PreviewRow(prompt="x"),))
    assert "does not exist" in done(studio, studio.pictures.order(missing)).message
    with pytest.raises(StudioError, match="no checkpoint of step 7"):
        studio.pictures.order(order(StyleUse(style=undisturbed.id, step=7), strengths=((1.0,),)))


def test_a_style_is_downloaded_in_both_layouts_under_its_name_and_imported_again(
    studio: Studio, undisturbed: RunView, tmp_path: Path
) -> None:
    studio.library.rename(undisturbed.id, "Süße Formen/1")
    kohya, diffusers = studio.library.download(undisturbed.id), studio.library.download(undisturbed.id, "diffusers")
    assert kohya.name == diffusers.name == "Süße_Formen_1.safetensors"
    assert sshs_model_hash(kohya) == weights(undisturbed)
    imported = studio.library.add(diffusers)
    card = studio.library.view(imported).card
    assert (card.name, card.layout, card.origin, card.trigger) == (
        "Süße Formen/1",
        "diffusers",
        "imported",
        "shape style",
    )
    assert sshs_model_hash(studio.library.download(imported, "kohya")) == weights(undisturbed)
    both = (StyleUse(style=imported), StyleUse(style=undisturbed.id))
    job = done(studio, studio.pictures.order(order(*both, strengths=((0.9, 0.0), (0.0, 0.9)))))
    one, other = (Image.open(picture.path).convert("RGB") for picture in job.pictures)
    assert ImageChops.difference(one, other).getbbox() is None

    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(kohya.read_bytes()[:5000])
    with pytest.raises(AdapterFileError):
        studio.library.add(broken)
    pickled = tmp_path / "old.ckpt"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(AdapterFileError):
        studio.library.add(pickled)
    assert len([card for card in studio.library.cards() if card.origin == "imported"]) == 1


def test_a_worker_killed_while_drawing_costs_that_picture_only(studio: Studio, undisturbed: RunView) -> None:
    use = StyleUse(style=undisturbed.id)
    job = studio.pictures.order(order(use, strengths=((1.1,),), settings=LONG))
    until(lambda: studio.pictures.view(job).done > 0, "the first denoising step")
    os.kill(worker_pid(studio), signal.SIGKILL)
    assert "Make it again" in done(studio, job).message
    assert done(studio, studio.pictures.order(order(use, strengths=((1.2,),)))).state == "done"


def test_a_second_studio_on_the_folder_is_refused(studio: Studio, home: Path) -> None:
    with pytest.raises(StudioError, match=f"open already \\(process {os.getpid()}\\)"):
        # This very process may open it twice, another may not.
        _in_another_process(home)


def _in_another_process(home: Path) -> None:
    code = f"from trainer.studio.studio import Studio; from pathlib import Path; Studio(Path({str(home)!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    raise StudioError(run.stderr.strip().splitlines()[-1])


def test_a_second_worker_does_not_take_a_run_that_is_in_training(
    studio: Studio, home: Path, uploads: list[Path]
) -> None:
    run_id = prepare(studio, uploads, train__steps=5000)
    studio.runs.enqueue(run_id)
    reach(studio, run_id, 1)
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.studio.worker.main", "--home", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as second:
        assert second.stdin is not None
        assert second.stdout is not None
        second.stdin.write(Train(run=run_id).line().encode() + b"\n")
        second.stdin.flush()
        replies = []
        while not any(isinstance(reply, RunEnded) for reply in replies):
            replies.append(parse_reply(second.stdout.readline()))
        second.stdin.close()
        assert second.wait(280) == 0
    assert isinstance(replies[0], Hello)
    assert replies[-1] == RunEnded(run=run_id, taken=False)
    assert studio.runs.view(run_id).state is State.TRAINING
    studio.runs.cancel(run_id)
    rest(studio, run_id, State.CANCELLED)


def test_the_worker_lives_no_longer_than_its_app_and_a_new_app_goes_on(
    tmp_path: Path, uploads: list[Path], undisturbed: RunView, gates: Gates
) -> None:
    with Studio(tmp_path) as before:
        run_id = prepare(before, uploads)
        train_to(before, run_id, gates, 5)
        worker = psutil.Process(worker_pid(before))
    assert not worker.is_running()
    assert not (StudioFolder(tmp_path).run(run_id) / "crash.log").exists()
    gates.open(run_id)
    with Studio(tmp_path) as after:
        assert after.runs.view(run_id).step == 5
        assert weights(rest(after, run_id, State.FINISHED)) == weights(undisturbed)


def test_an_app_that_is_killed_takes_its_worker_along_and_nothing_is_lost(
    tmp_path: Path, uploads: list[Path], undisturbed: RunView, gates: Gates
) -> None:
    with Studio(tmp_path) as draft:
        run_id = prepare(draft, uploads)
    gates.close(5, run_id)
    code = (
        "import sys, time; from pathlib import Path; from trainer.studio.studio import Studio\n"
        f"studio = Studio(Path({str(tmp_path)!r})); studio.runs.enqueue({run_id!r})\n"
        f"while studio.runs.view({run_id!r}).step < 5: time.sleep(0.02)\n"
        "print(studio.machine.worker_pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        worker = psutil.Process(int(app.stdout.readline()))
        app.kill()
    until(lambda: gone(worker), "the worker's end")
    gates.open(run_id)
    with Studio(tmp_path) as after:
        assert weights(rest(after, run_id, State.FINISHED)) == weights(undisturbed)


def test_an_idle_worker_lets_go_of_its_memory_and_then_ends(tmp_path: Path) -> None:
    model, picture = tiny_blip(tmp_path / "blip"), tmp_path / "IMG_1.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    with Studio(tmp_path / "studio", idle_seconds=1.0) as studio:
        draft = studio.drafts.create()
        studio.drafts.add_images(draft, [picture])
        studio.captioning.start(draft, str(model))
        until(lambda: studio.captioning.view(draft) == CaptioningView("done", 1, 1, written=1), "the caption")
        assert studio.drafts.view(draft).images[0].caption == "a red cat on the table"
        row = PreviewOrder(rows=(PreviewRow(prompt="a boat"),), settings=QUICK)
        assert done(studio, studio.pictures.order(row)).state == "done"
        until(lambda: studio.machine.view().worker == "off", "the worker's end")
        again = row.model_copy(update={"rows": (PreviewRow(prompt="a fish"),)})
        assert done(studio, studio.pictures.order(again)).state == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, where this machine and user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
    if (
        sys.platform != "linux"
        or shutil.which("mount") is None
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_pauses_a_run_which_goes_on_by_itself_to_the_same_weights(
    small_disk: Path, uploads: list[Path], undisturbed: RunView, monkeypatch: pytest.MonkeyPatch, gates: Gates
) -> None:
    monkeypatch.setattr(folder, "SPARE_BYTES", 0)
    monkeypatch.setattr(drafts, "START_BYTES", 0)
    monkeypatch.setattr(folder, "ROOM_BYTES", 2**20)
    with Studio(small_disk / "studio") as studio:
        run_id = prepare(studio, uploads)
        train_to(studio, run_id, gates, 5)
        filler = small_disk / "filler"
        fill(filler)
        gates.open(run_id)
        until(lambda: studio.runs.view(run_id).waits != "", "the full disk")
        assert studio.machine.view().disk_full
        assert studio.runs.view(run_id).state in (State.QUEUED, State.TRAINING)
        assert not studio.runs.view(run_id).error
        filler.unlink()
        view = rest(studio, run_id, State.FINISHED)
        assert not studio.machine.view().disk_full
        assert view.loss_steps == tuple(range(1, STEPS + 1))
        assert weights(view) == weights(undisturbed)
