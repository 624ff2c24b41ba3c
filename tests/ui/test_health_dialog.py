"""The dialog about the studio itself: what it says, what its buttons do, and the report behind its link."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import files, health
from app.html import el
from app.texts import speaking
from trainer.studio.health import Space
from trainer.studio.studio import Studio

NOTHING = Space(0, 0, 0, 0, 0, 0, 0, free=2**30)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path / "studio") as opened:
        yield opened


def shown(**changes: object) -> str:
    values = {
        "versions": {"patina": "1"},
        "device": "CPU",
        "wrong": [],
        "can_repair": False,
        "done": [],
        "space": NOTHING,
    }
    return str(health.dialog(**{**values, **changes}))  # type: ignore[arg-type]


def test_a_studio_that_is_well_says_so_and_offers_nothing_to_do() -> None:
    page = shown()
    assert "All is well." in page
    assert 'data-act="repair"' not in page
    assert "disabled" in page.partition('data-act="clean"')[2].partition(">")[0]
    assert 'role="dialog"' in page
    assert 'data-act="close"' in page


def test_troubles_are_listed_as_text_with_a_button_that_repairs() -> None:
    page = shown(wrong=["<b>x</b> is gone."], can_repair=True, done=["One thing."])
    assert str(el("li", "<b>x</b> is gone.")) in page
    assert 'data-act="repair"' in page
    assert "All is well." not in page
    assert page.index("One thing.") < page.index("is gone.")


def test_what_takes_the_disks_space_is_listed_and_can_be_cleaned_up() -> None:
    space = Space(runs=3 * 2**20, caches=2**20, pictures=0, styles=0, trash=0, downloads=2**20, logs=0, free=2**30)
    page = shown(space=space)
    assert "Clean up (2.0 MB)" in page
    assert "3.0 MB" in page
    assert "Imported styles" not in page, "what takes nothing is left out"
    with speaking("zh"):
        assert "清理（2.0 MB）" in shown(space=space)


def test_the_buttons_repair_clean_up_and_close(studio: Studio) -> None:
    (studio.home.downloads / "style-1").mkdir()
    (studio.home.downloads / "style-1" / "a.safetensors").write_bytes(bytes(2**20))
    assert "Clean up (1.0 MB)" in health.answer(studio, "health")
    assert "1.0 MB came free." in health.answer(studio, "clean")
    assert not list(studio.home.downloads.iterdir())
    assert "nothing to clean up" in health.answer(studio, "clean")
    studio.health._db.write(  # type: ignore[union-attr]
        "INSERT INTO styles (id, name, file, created, facts) VALUES ('s', 'Wash', 'styles/s/a.safetensors', 0, '{}')"
    )
    assert "The file of the style Wash is gone." in health.answer(studio, "health")
    assert "It was struck from the library" in health.answer(studio, "repair")
    assert "All is well." in health.answer(studio, "health")
    assert health.answer(studio, "close") == ""


def test_the_report_is_a_zip_without_the_folders_name(studio: Studio) -> None:
    response = files._report(studio)
    assert response.headers["content-disposition"].startswith('attachment; filename="patina-report-')
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert "found.json" in archive.namelist()
        assert str(studio.home.path) not in archive.read("found.json").decode()
