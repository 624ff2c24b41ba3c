"""The whole studio folder in a file and back, while it is in use; and files that are no such thing."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from studio_parts import Parts, put_together

from trainer.errors import StudioError
from trainer.events import Saved
from trainer.studio import backup
from trainer.studio.folder import StudioFolder
from trainer.training.run_folder import RunFolder


@pytest.fixture
def draft(parts: Parts, uploads: list[Path]) -> str:
    run_id = parts.drafts.create({"name": "Ink", "adapter.rank": 3})
    parts.drafts.add_images(run_id, uploads)
    return run_id


def exported(parts: Parts, to: Path) -> Path:
    backup.export(parts.home, to)
    return to


def test_a_studio_comes_back_with_its_runs_images_and_settings(parts: Parts, draft: str, tmp_path: Path) -> None:
    file = exported(parts, tmp_path / "studio.tar")
    done = backup.restore(file, tmp_path / "elsewhere")
    assert done.runs == {draft}
    again = put_together(tmp_path / "elsewhere")
    try:
        view, before = again.drafts.view(draft), parts.drafts.view(draft)
        assert view.settings == before.settings
        assert [(image.name, image.caption) for image in view.images] == [(i.name, i.caption) for i in before.images]
        for image, old in zip(view.images, before.images, strict=True):
            assert image.path.read_bytes() == old.path.read_bytes()
            assert tmp_path / "elsewhere" in image.path.parents
    finally:
        again.store.db.close()


def test_an_export_leaves_nothing_behind_and_overwrites_nothing(parts: Parts, draft: str, tmp_path: Path) -> None:
    before = sorted(path for path in parts.home.path.rglob("*") if "sqlite3-" not in path.name)
    file = exported(parts, tmp_path / "studio.tar")
    after = sorted(path for path in parts.home.path.rglob("*") if "sqlite3-" not in path.name)
    assert [path for path in after if path not in before] == [parts.home.run(draft) / "run.lock"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tar"] == ["studio.tar"]
    with pytest.raises(StudioError, match="exists already"):
        backup.export(parts.home, file)
    with pytest.raises(StudioError, match="inside the studio folder"):
        backup.export(parts.home, parts.home.path / "backup.tar")
    with pytest.raises(StudioError, match="There is no studio"):
        backup.export(StudioFolder(tmp_path / "nowhere"), tmp_path / "x.tar")
    with pytest.raises(StudioError, match="does not exist: make it"):
        backup.export(parts.home, tmp_path / "no" / "x.tar")


def test_downloads_locks_logs_and_half_written_files_stay_out(parts: Parts, draft: str, tmp_path: Path) -> None:
    run = RunFolder(parts.home.run(draft))
    for stray in (
        run.path / ".0123456789abcdef.scratch",
        run.checkpoints / ".step-000002.7.tmp" / "adapter",
        run.lock_file,
    ):
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"half")
    (parts.home.downloads / "x.safetensors").write_bytes(b"again")
    (parts.home.logs / "worker.log").write_bytes(b"log")
    (run.path / "outside").symlink_to(tmp_path)
    with tarfile.open(exported(parts, tmp_path / "studio.tar")) as archive:
        names = archive.getnames()
    assert names[:2] == ["patina-studio.json", "studio.sqlite3"]
    assert names[-1] == "patina-checksums.json"
    assert {name.split("/")[0] for name in names[2:-1]} == {"runs"}
    assert not [name for name in names if "/." in name or "lock" in name or "outside" in name]


def test_a_training_that_goes_on_meanwhile_is_copied_at_whole_states(parts: Parts, draft: str, tmp_path: Path) -> None:
    """One thread writes and prunes checkpoints as a training does, and holds the run; every copy has whole ones."""
    from trainer.training import checkpoint
    from trainer.training.checkpoint import Checkpoint

    torch = pytest.importorskip("torch")
    run = RunFolder(parts.home.run(draft))
    ending = threading.Event()
    begun = threading.Event()

    def train() -> None:
        with run.held():
            step = 0
            while not ending.is_set():
                step += 1
                made = Checkpoint(step, {"a": torch.full((200, 100), float(step))}, {"m": torch.zeros(10)})
                path = checkpoint.save(made, run.checkpoints, keep=2)
                run.append(Saved(step=step, path=path.name))
                begun.set()

    writer = threading.Thread(target=train)
    writer.start()
    try:
        for number in range(3):
            # There is something new to copy each time, however slow the disk is.
            begun.clear()
            assert begun.wait(60)
            exported(parts, tmp_path / f"{number}.tar")
    finally:
        ending.set()
        writer.join()
    seen = set()
    for number in range(3):
        home = tmp_path / f"copy-{number}"
        backup.restore(tmp_path / f"{number}.tar", home)
        copy = RunFolder(StudioFolder(home).run(draft))
        for step, folder in copy.saved():
            assert checkpoint.read(folder).adapter["a"][0, 0] == step
            seen.add(step)
        content = copy.events_file.read_bytes()
        assert content.endswith(b"\n")
        assert all(json.loads(line)["type"] == "saved" for line in content.splitlines())
    assert len(seen) >= 3


def test_a_backup_goes_into_an_empty_folder_only(parts: Parts, draft: str, tmp_path: Path) -> None:
    file = exported(parts, tmp_path / "studio.tar")
    with pytest.raises(StudioError, match="new or empty folder only"):
        backup.restore(file, parts.home.path)
    prepared = StudioFolder(tmp_path / "new").prepare()
    backup.restore(file, prepared.path)
    assert (prepared.run(draft) / "images").is_dir()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".import")]


def member(name: str, content: bytes = b"x", **changes: object) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in changes.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(content) if info.isreg() else None)

    return add


HOSTILE = {
    "upwards": member("runs/../../evil.txt"),
    "absolute": member("/etc/evil"),
    "another drive": member("runs/C:\\evil"),
    "no folder of ours": member("logs/evil"),
    "hidden": member("runs/x/.evil"),
    "a name of dots": member("runs/x/..."),
    "control characters": member("runs/x/a\nb"),
    "endless name": member("runs/x/" + "a" * 300),
    "link": member("runs/x/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("runs/x/link", b"", type=tarfile.LNKTYPE, linkname="studio.sqlite3"),
    "device": member("runs/x/device", b"", type=tarfile.CHRTYPE),
    "folder": member("runs/x", b"", type=tarfile.DIRTYPE),
    "twice": member("studio.sqlite3", b"another"),
    "bomb": member("runs/x/sparse", b"", type=tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_a_hostile_file_is_refused_and_nothing_is_unpacked(parts: Parts, draft: str, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "evil.tar"
    with tarfile.open(exported(parts, tmp_path / "good.tar")) as good, tarfile.open(file, "w") as evil:
        for each in good:
            if each.name == "patina-checksums.json":
                HOSTILE[kind](evil)
            evil.addfile(each, good.extractfile(each))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StudioError, match=r"holds '|no whole backup"):
        backup.restore(file, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_a_file_that_was_cut_off_or_damaged_is_refused(parts: Parts, draft: str, tmp_path: Path, share: float) -> None:
    whole = exported(parts, tmp_path / "good.tar").read_bytes()
    # Zeros are padding, in which a bit says nothing.
    place = len(whole[: 1 + int((len(whole) - 1) * share)].rstrip(b"\0")) - 1
    for number, data in enumerate(
        (whole[: place // 512 * 512], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    ):
        file = tmp_path / f"{number}.tar"
        file.write_bytes(data)
        home = tmp_path / f"new-{number}"
        with pytest.raises(StudioError):
            backup.restore(file, home)
        assert not home.exists()


def test_a_compressed_archive_is_no_backup(tmp_path: Path) -> None:
    file = tmp_path / "bomb.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        member("runs/x/zeros", bytes(2**20))(archive)
    with pytest.raises(StudioError, match="no whole backup"):
        backup.restore(file, tmp_path / "new")


EVIL_LISTS = {
    "a trigger": "CREATE TRIGGER evil AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
    "a table": "CREATE TABLE evil (x)",
    "a run upwards": "UPDATE runs SET id = '../../evil'",
    "a style upwards": "INSERT INTO styles VALUES ('s', 'x', 'styles/../../../evil.safetensors', 0, '{}', NULL, '')",
    "a style elsewhere": "INSERT INTO styles VALUES ('style-1', 'x', '/etc/evil.safetensors', 0, '{}', NULL, '')",
}


@pytest.mark.parametrize("kind", list(EVIL_LISTS))
def test_a_list_that_patina_did_not_write_is_refused(parts: Parts, tmp_path: Path, kind: str) -> None:
    parts.drafts.create()
    parts.store.db.write("PRAGMA foreign_keys = OFF")
    parts.store.db.write(EVIL_LISTS[kind])
    with pytest.raises(StudioError, match="a list that Patina did not write"):
        backup.restore(exported(parts, tmp_path / "evil.tar"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backup_of_a_later_patina_is_refused(parts: Parts, tmp_path: Path) -> None:
    parts.store.db.write("PRAGMA user_version = 99")
    with pytest.raises(StudioError, match="made by a later version"):
        backup.restore(exported(parts, tmp_path / "later.tar"), tmp_path / "new")


def test_a_backup_of_0_1_is_brought_up_to_date(fixtures: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    with tarfile.open(fixtures / "studio-0.1.tar.xz") as archive:
        archive.extractall(old, filter="data")
    backup.export(StudioFolder(old), tmp_path / "old.tar")
    shutil.rmtree(old)
    backup.restore(tmp_path / "old.tar", tmp_path / "new")
    again = put_together(tmp_path / "new")
    try:
        assert {run.name for run in again.store.all()} == {"Shapes", "Tiny", "Half way", "Draft"}
        assert len(again.library.cards()) == 3
    finally:
        again.store.db.close()


def test_the_command_writes_and_reads_a_backup_and_says_what_is_in_it(
    parts: Parts, draft: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.__main__ import main

    file, new = tmp_path / "studio.tar", tmp_path / "new"
    assert main(["--home", str(parts.home.path), "--export", str(file)]) == 0
    assert "1 run and" in capsys.readouterr().out
    assert main(["--home", str(new), "--import", str(file)]) == 0
    assert str(new) in capsys.readouterr().out
    assert main(["--home", str(new), "--import", str(file)]) == 2
    assert "new or empty folder" in capsys.readouterr().err


def test_a_list_that_is_being_written_is_copied_as_of_one_moment(parts: Parts, tmp_path: Path) -> None:
    other = sqlite3.connect(parts.home.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO jobs (id, state, created, request) VALUES ('job-1', 'queued', 0, '{}')")
    file = exported(parts, tmp_path / "studio.tar")
    other.execute("ROLLBACK")
    other.close()
    backup.restore(file, tmp_path / "new")
    copy = sqlite3.connect(tmp_path / "new" / "studio.sqlite3")
    assert copy.execute("SELECT count(*) FROM jobs").fetchone()[0] == 0
    copy.close()
    assert os.access(tmp_path / "new" / "studio.sqlite3", os.W_OK)
