"""What is wrong with a studio folder is said in a sentence, and put right without losing what cannot be made again."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from studio_parts import Parts
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.safetensors_file import write
from trainer.studio import report
from trainer.studio.folder import StudioFolder, opened
from trainer.studio.health import Health, Trouble
from trainer.studio.report import Redacted
from trainer.studio.store import State
from trainer.training.run_folder import RunFolder


@pytest.fixture
def health(parts: Parts) -> Health:
    return Health(parts.home, parts.store.db)


def said(found: list[Trouble]) -> list[str]:
    return [trouble.what for trouble in found]


def style_file(path: Path, **metadata: str) -> Path:
    torch = pytest.importorskip("torch")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {"a": torch.zeros(2)}, metadata)
    return path


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def finished(parts: Parts, name: str = "run-1") -> RunFolder:
    parts.store.add(name, "Ink", {}, State.FINISHED)
    folder = RunFolder(parts.home.run(name))
    folder.path.mkdir()
    folder.config_file.write_text("")
    return folder


def repaired(health: Health, *words: str) -> None:
    """One thing is wrong, it holds the words, and after a repair nothing is."""
    (trouble,) = health.examine()
    assert all(word in trouble.what for word in words), trouble.what
    assert trouble.repair
    assert health.repair() == [f"{trouble.what} {trouble.repair}"]
    assert said(health.examine()) == []


def test_a_studio_in_use_is_well(parts: Parts, health: Health, uploads: list[Path]) -> None:
    run = parts.drafts.create()
    parts.drafts.add_images(run, uploads)
    parts.drafts.remove_image(run, parts.drafts.view(run).images[0].id)
    folder = finished(parts)
    style_file(folder.adapter_file)
    assert said(health.examine()) == []
    assert health.repair() == []


def test_a_run_whose_folder_is_gone_is_struck_from_the_list(parts: Parts, health: Health) -> None:
    shutil.rmtree(finished(parts).path)
    repaired(health, "Ink", "is gone")
    assert not parts.store.known()


def test_a_finished_run_without_its_file_can_make_it_again_from_its_states(parts: Parts, health: Health) -> None:
    folder = finished(parts)
    assert "so are its saved states" in said(health.examine())[0]
    assert health.repair() == []
    (folder.checkpoints / "step-000004").mkdir(parents=True)
    repaired(health, "Ink", "saved states are there")
    assert parts.store.get("run-1").state is State.PAUSED


def test_a_folder_that_belongs_to_nothing_is_moved_aside_with_what_is_in_it(parts: Parts, health: Health) -> None:
    (parts.home.run("run-lost") / "samples").mkdir(parents=True)
    (parts.home.run("run-lost") / "samples" / "x.png").write_bytes(b"picture")
    repaired(health, "run-lost", "belongs to no run")
    assert (parts.home.trash / "lost" / "run-lost" / "samples" / "x.png").read_bytes() == b"picture"
    (parts.home.styles / "style-empty").mkdir()
    repaired(health, "style-empty", "did not end")


def test_images_of_a_draft_that_vanished_are_named_and_struck(
    parts: Parts, health: Health, uploads: list[Path]
) -> None:
    run = parts.drafts.create({"name": "Ink"})
    parts.drafts.add_images(run, uploads)
    first, second, *others = parts.drafts.view(run).images
    first.path.unlink()
    misplaced = parts.home.removed_images(run) / second.path.name
    misplaced.parent.mkdir()
    second.path.replace(misplaced)
    assert said(health.examine()) == [f"The image {image.name} of Ink is gone." for image in (first, second)]
    health.repair()
    assert [image.id for image in parts.drafts.view(run).images] == [image.id for image in (second, *others)]
    assert all(image.path.is_file() for image in parts.drafts.view(run).images)
    assert said(health.examine()) == []


def test_a_style_whose_file_is_gone_is_struck_and_a_lost_picture_is_taken_from_the_file(
    parts: Parts, health: Health
) -> None:
    db, home = parts.store.db, parts.home
    row = "INSERT INTO styles (id, name, file, created, facts) VALUES (?, ?, ?, 0, '{}')"
    db.write(row, ("style-1", "Wash", "styles/style-1/adapter.safetensors"))
    repaired(health, "Wash", "is gone")
    file = style_file(home.styles / "style-2" / "adapter.safetensors", **{"modelspec.thumbnail": picture()})
    db.write(row, ("style-2", "Wash", "styles/style-2/adapter.safetensors"))
    repaired(health, "picture of the style Wash")
    assert parts.library.card("style-2").thumbnails == (file.parent / "thumbnail.png",)


def test_a_trained_style_without_pictures_gets_that_of_its_file(parts: Parts, health: Health) -> None:
    folder = finished(parts)
    style_file(folder.adapter_file, **{"modelspec.thumbnail": picture()})
    repaired(health, "picture of the style Ink")
    assert parts.library.card("run-1").thumbnails == (folder.path / "thumbnail.png",)


def test_a_picture_that_cannot_be_opened_is_said_and_nothing_breaks(parts: Parts, health: Health) -> None:
    style_file(finished(parts).adapter_file, **{"modelspec.thumbnail": "data:image/png;base64,AAAA"})
    assert "could not be put right" in health.repair()[0]


def test_what_killed_processes_left_is_removed_but_not_of_a_run_in_training(parts: Parts, health: Health) -> None:
    folder = finished(parts)
    style_file(folder.adapter_file)
    scratch = f".{'0' * 16}.{'a' * 32}"
    for stray in (folder.path / scratch, parts.home.path / scratch):
        stray.write_bytes(b"half")
    (folder.checkpoints / ".step-000002.7.tmp").mkdir(parents=True)
    beside = parts.home.path.with_name(f".{parts.home.path.name}.01234567.import")
    beside.mkdir()
    with folder.held():
        assert said(health.examine())[0].startswith("2 half-written files were left behind")
    repaired(health, "4 half-written files")
    assert not beside.exists()
    assert not list(folder.path.rglob(".*"))


def test_the_work_of_this_moment_is_left_alone_in_a_studio_that_is_open(parts: Parts) -> None:
    health = Health(parts.home, parts.store.db, in_use=True)
    (parts.home.styles / "style-1").mkdir()
    (parts.home.path / f".{'0' * 16}.{'a' * 32}").write_bytes(b"half")
    assert said(health.examine()) == []


def test_uploads_that_nobody_took_in_are_removed_after_a_day(
    parts: Parts, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = parts.home.path / "uploads" / "abc" / "a.png"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"x")
    assert said(health.examine()) == []
    now = time.time()
    monkeypatch.setattr("trainer.studio.health.time.time", lambda: now + 25 * 3600)
    repaired(health, "1 upload was never taken in")
    assert not upload.parent.exists()


def test_the_gallery_forgets_pictures_that_are_gone_and_folders_that_are_nobodys(parts: Parts, health: Health) -> None:
    db = parts.store.db
    db.write("INSERT INTO jobs (id, state, created, request) VALUES ('job-1', 'done', 0, '{}')")
    db.write("INSERT INTO pictures VALUES ('job-1', 0, '', 'previews/job-1/00.png')")
    repaired(health, "1 picture of the gallery is gone")
    (parts.home.preview("job-2")).mkdir()
    repaired(health, "1 folder of pictures belongs to no job")


def test_a_clean_up_removes_what_can_be_made_again_and_nothing_else(parts: Parts, health: Health) -> None:
    ours, theirs = finished(parts, "run-1"), finished(parts, "run-2")
    for folder in (ours, theirs):
        style_file(folder.adapter_file)
        folder.cache.mkdir()
        (folder.cache / "x").write_bytes(bytes(5000))
    # The second was trained on the command line, on images that lie elsewhere, or no longer do.
    ours.images.mkdir()
    (ours.images / "a.png").write_bytes(b"x")
    (parts.home.downloads / "run-1").mkdir()
    (parts.home.downloads / "run-1" / "Ink.safetensors").write_bytes(bytes(700))
    assert health.space().spare == 5700
    assert health.clean_up() == 5700
    assert theirs.cache.is_dir()
    assert ours.adapter_file.is_file()
    assert not ours.cache.exists()
    assert health.space().spare == 0


def test_a_folder_that_cannot_be_written_is_said(parts: Parts, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the system is asked in its place.
    monkeypatch.setattr("trainer.studio.health.os.access", lambda path, mode: False)
    assert "cannot be written to" in said(health.examine())[0]


# ---- the command


def doctor(home: Path, *more: object) -> Result:
    return CliRunner().invoke(app, ["doctor", "--home", str(home), *map(str, more)])


@pytest.fixture
def closed(parts: Parts) -> Parts:
    shutil.rmtree(finished(parts).path)
    parts.store.db.close()
    return parts


def test_the_doctor_says_what_is_wrong_and_repairs_it(closed: Parts) -> None:
    home = closed.home.path
    first = doctor(home)
    assert first.exit_code == 2, first.output
    assert "Wrong: The folder of the run Ink is gone. (patina doctor --repair puts it right)" in first.output
    assert "Done: The folder of the run Ink is gone. It was struck" in doctor(home, "--repair").output
    well = doctor(home)
    assert (well.exit_code, well.output.splitlines()[-1]) == (0, "All is well.")
    for word in ("patina 0", "torch 2", "Device: ", "Free: ", str(home)):
        assert word in well.output


def test_the_doctor_changes_nothing_unless_it_is_asked_to(closed: Parts) -> None:
    before = closed.home.database.read_bytes()
    doctor(closed.home.path)
    assert closed.home.database.read_bytes() == before


def test_the_doctor_repairs_no_studio_that_is_open(closed: Parts) -> None:
    import subprocess
    import sys

    with opened(closed.home):
        command = [sys.executable, "-m", "trainer", "doctor", "--home", str(closed.home.path), "--repair"]
        run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "is open already" in run.stderr


def test_a_list_that_cannot_be_read_is_moved_aside_and_the_runs_are_found_again(closed: Parts) -> None:
    closed.home.database.write_bytes(b"no database" * 100)
    assert "cannot be read" in doctor(closed.home.path).output
    assert "moved to" in doctor(closed.home.path, "--repair").output
    assert [path.read_bytes()[:11] for path in closed.home.path.glob("damaged-*")] == [b"no database"]
    assert doctor(closed.home.path).exit_code == 0


def test_the_doctor_speaks_json_and_of_no_studio_at_all(tmp_path: Path) -> None:
    found = json.loads(doctor(tmp_path / "none", "--json").output)
    assert found["studio"] == []
    assert found["versions"]["torch"]
    assert not (tmp_path / "none").exists()


def test_a_missing_or_old_package_and_a_torch_for_no_card_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.studio.machine import Device

    real = report._version
    monkeypatch.setattr(report, "_version", lambda name: {"peft": None, "gradio": "1.0"}.get(name, real(name)))
    monkeypatch.setattr(report, "best_device", lambda: Device("cuda", "RTX 3060", 12 * 2**30, 11 * 2**30))
    monkeypatch.setattr(report, "torch_build", lambda: "")
    looked = report.installation()
    assert looked.versions["peft"] == "missing"
    troubles = " ".join(looked.troubles)
    for words in ("peft is missing", "gradio is 1.0", "RTX 3060"):
        assert words in troubles
    assert len(looked.troubles) == 3


# ---- the report

SECRETS = {
    "hf_" + "a1B2" * 6: "x hf_{} y",
    "hunter2hunter2": "PATINA_AUTH=anna:hunter2hunter2",
    "s3cr3t-value": "Authorization: Bearer s3cr3t-value",
    "pa55word": 'password = "pa55word"',
    "topsecret": "https://anna:topsecret@proxy.example/x",
    "cookievalue1": "Cookie: access-token-abc=cookievalue1; x",
    "ghp_" + "Z9" * 15: "token ghp_x",
}


@pytest.mark.parametrize("secret", list(SECRETS))
def test_a_secret_leaves_no_report(secret: str, tmp_path: Path) -> None:
    text = SECRETS[secret] if secret in SECRETS[secret] else f"using {secret} for the hub"
    assert secret not in Redacted(tmp_path, {})(text)


def test_names_of_people_and_places_leave_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/annabel")
    monkeypatch.setattr(report.getpass, "getuser", lambda: "annabel")
    monkeypatch.setattr(report.socket, "gethostname", lambda: "annas-laptop")
    home = Path("/home/annabel/.local/share/patina")
    clean = Redacted(home, {"MY_API_KEY": "longsecretvalue"})
    text = (
        f"{home}/runs/run-1 /home/annabel/x.png C:\\Users\\annabel\\x C:\\\\Users\\\\berta\\\\y /Users/carla/z "
        "annas-laptop annabel@example.org 192.168.1.17 127.0.0.1 longsecretvalue step 12.5.0"
    )
    cleaned = clean(text)
    for word in ("annabel", "berta", "carla", "laptop", "192.168", "longsecretvalue", "example.org"):
        assert word not in cleaned
    for word in ("STUDIO/runs/run-1", "~/x.png", "127.0.0.1", "12.5.0"):
        assert word in cleaned


def test_a_report_holds_the_ends_of_logs_and_what_was_found_and_no_secret(
    parts: Parts, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "plainsecretvalue")
    folder = finished(parts)
    folder.config_file.write_text('name = "Ink"\n[data]\nimages = "/home/annabel/pictures"\n')
    folder.events_file.write_text('{"type": "failed", "step": 3, "message": "no plainsecretvalue"}\n')
    parts.home.worker_log.write_text("x" * 200_000 + "the end")
    target = tmp_path / "report.zip"
    report.write_report(parts.home, report.facts(parts.home, health.examine(), health.space()), target)
    with zipfile.ZipFile(target) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert list(texts) == ["found.json", "logs/worker.log", "runs/run-1/config.toml", "runs/run-1/events.jsonl"]
    assert texts["logs/worker.log"].endswith("the end")
    assert len(texts["logs/worker.log"]) <= report.TAIL_BYTES
    everything = "".join(texts.values())
    for word in ("plainsecretvalue", "annabel", str(parts.home.path), f"{Path.home()}/"):
        assert word not in everything
    assert json.loads(texts["found.json"])["studio"][0]["what"].startswith("The file of the finished run Ink")
    assert "report.zip exists already" in doctor(StudioFolder(tmp_path / "none").path, "--report", target).output
