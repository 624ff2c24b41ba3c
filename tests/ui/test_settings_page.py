"""The Settings tab: what it says, what its buttons do, and the files behind its links."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from app import files
from app.html import el
from app.settings import hub, page, view
from app.texts import speaking
from app.train import draft
from trainer.errors import StudioError
from trainer.studio import backup
from trainer.studio.health import Space
from trainer.studio.studio import Studio

NOTHING = Space(0, 0, 0, 0, 0, 0, 0, free=2**30)
WELL = view.Standing(
    versions={"patina": "1"},
    device="CPU",
    home=Path("/home/studio"),
    wrong=[],
    can_repair=False,
    space=NOTHING,
    folders={"models": [], "styles": []},
    trash=[],
    logs={},
    token=False,
)


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with Studio(tmp_path / "studio") as opened:
        yield opened


def shown(studio: Studio) -> str:
    return str(view.settings(page.standing(studio)))


def test_a_studio_that_is_well_says_so_and_offers_nothing_to_do() -> None:
    text = str(view.settings(WELL))
    assert "All is well." in text
    assert 'data-act="repair"' not in text
    assert "disabled" in text.partition('data-act="clean"')[2].partition(">")[0]
    assert 'data-act="empty-trash"' not in text


def test_troubles_are_listed_as_text_with_a_button_that_repairs() -> None:
    text = str(view.settings(replace(WELL, wrong=["<b>x</b> is gone."], can_repair=True), ["One thing."]))
    assert str(el("li", "<b>x</b> is gone.")) in text
    assert 'data-act="repair"' in text
    assert "All is well." not in text
    assert text.index("One thing.") < text.index("is gone.")


def test_what_takes_the_disks_space_is_listed_and_can_be_cleaned_up() -> None:
    space = Space(runs=3 * 2**20, caches=2**20, pictures=0, styles=0, trash=0, downloads=2**20, logs=0, free=2**30)
    text = str(view.settings(replace(WELL, space=space)))
    assert "Clean up (2.0 MB)" in text
    assert "3.0 MB" in text
    assert "Imported styles" not in text, "what takes nothing is left out"
    with speaking("zh"):
        assert "清理（2.0 MB）" in str(view.settings(replace(WELL, space=space)))


def test_the_buttons_repair_and_clean_up(studio: Studio) -> None:
    (studio.home.downloads / "style-1").mkdir()
    (studio.home.downloads / "style-1" / "a.safetensors").write_bytes(bytes(2**20))
    assert "Clean up (1.0 MB)" in shown(studio)
    assert page.act(studio, "clean", {}) == ["1.0 MB came free."]
    assert page.act(studio, "clean", {}) == ["There is nothing to clean up."]
    studio.health._db.write(  # type: ignore[union-attr]
        "INSERT INTO styles (id, name, file, created, facts) VALUES ('s', 'Wash', 'styles/s/a.safetensors', 0, '{}')"
    )
    assert "The file of the style Wash is gone." in shown(studio)
    assert "It was struck from the library" in page.act(studio, "repair", {})[0]
    assert "All is well." in shown(studio)
    with pytest.raises(StudioError, match="Reload"):
        page.act(studio, "format", {})


def test_what_was_deleted_is_put_back_or_removed_for_good(studio: Studio) -> None:
    first, second = studio.drafts.create({"name": "Ink"}), studio.drafts.create({"name": "Wash"})
    for run in (first, second):
        studio.runs.delete(run)
    assert shown(studio).count('data-act="put-back"') == 2
    assert page.act(studio, "put-back", {"item": first}) == ["Ink is back."]
    page.act(studio, "empty-trash", {})
    assert [run.name for run in studio.runs.all()] == ["Ink"]
    assert "It is empty." in shown(studio)
    with pytest.raises(StudioError, match="not in the trash"):
        page.act(studio, "put-back", {"item": second})


def test_a_folder_with_models_offers_them_as_bases(studio: Studio, tmp_path: Path, bundled_dir: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny icons").symlink_to(bundled_dir, target_is_directory=True)
    save_file({"x": np.zeros(4, np.float32)}, tmp_path / "models" / "no model.safetensors")
    page.act(studio, "folder-add", {"kind": "models", "fields": {"folder": str(tmp_path / "models")}})
    assert [path.name for path in studio.shelves.models()] == ["tiny icons"]
    assert "1 models" in shown(studio)
    run = studio.drafts.create()
    card = str(draft.base(studio.drafts.view(run), None, studio.shelves.models()))
    assert "tiny icons" in card
    page.act(studio, "folder-remove", {"kind": "models", "item": str(tmp_path / "models")})
    assert studio.shelves.models() == []


def test_a_token_is_given_to_huggingface_hub_and_never_shown(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: kept[-1] if kept else None)
    monkeypatch.setattr(huggingface_hub, "login", lambda token, **options: kept.append(token))
    monkeypatch.setattr(huggingface_hub, "logout", kept.clear)
    assert page.act(studio, "token-keep", {"fields": {"token": " hf_secretsecretsecret "}}) == ["A token is kept."]
    assert kept == ["hf_secretsecretsecret"]
    assert "hf_secret" not in shown(studio)
    page.act(studio, "token-forget", {})
    assert not hub.has_token()

    def refuse(token: str, **options: object) -> None:
        raise ConnectionError(f"no way to send {token}")

    monkeypatch.setattr(huggingface_hub, "login", refuse)
    with pytest.raises(StudioError) as error:
        hub.keep_token("hf_secretsecretsecret")
    assert "hf_secret" not in str(error.value)
    with pytest.raises(StudioError, match="Write the token"):
        hub.keep_token(" ")


def test_the_report_is_a_zip_without_the_folders_name(studio: Studio) -> None:
    response = files._report(studio)
    assert response.headers["content-disposition"].startswith('attachment; filename="patina-report-')
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert "found.json" in archive.namelist()
        assert str(studio.home.path) not in archive.read("found.json").decode()


def test_logs_are_shown_without_secrets(studio: Studio) -> None:
    (studio.home.logs / "app.log").write_text(f"hf_abcdefghijklmnopqrst in {studio.home.path}\n<b>end</b>\n")
    text = shown(studio)
    assert "hf_abcdef" not in text
    assert "&lt;b&gt;end&lt;/b&gt;" in text


def test_a_copy_is_downloaded_while_the_studio_runs_and_unpacked_beside_it(studio: Studio) -> None:
    studio.drafts.create({"name": "Ink"})
    copy = b"".join(backup.stream(studio.home))
    with tarfile.open(fileobj=io.BytesIO(copy)) as archive:
        assert "studio.sqlite3" in archive.getnames()
    uploads = studio.home.path / "uploads"
    uploads.mkdir()
    (uploads / "copy.tar").write_bytes(copy)
    (said,) = page.restore(studio, [{"path": str(uploads / "copy.tar")}])
    (beside,) = (path for path in studio.home.path.parent.iterdir() if path != studio.home.path)
    assert str(beside) in said
    assert not (uploads / "copy.tar").exists()
    with Studio(beside) as other:
        assert [run.name for run in other.runs.all()] == ["Ink"]
    (uploads / "half.tar").write_bytes(copy[: len(copy) // 2])
    with pytest.raises(StudioError):
        page.restore(studio, [{"path": str(uploads / "half.tar")}])


def test_a_copy_that_nobody_takes_any_more_ends(studio: Studio) -> None:
    pieces = backup.stream(studio.home)
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
