"""A studio folder that Patina 0.1 left behind, opened by the present version.

``tests/fixtures/studio-0.1.tar.xz`` was made by 0.1 itself: a draft, a run that was trained and kept on the base that
came along then, one on a tiny base, one that was paused half way on it, a style from elsewhere and a picture. Caches,
logs and leases were left out. Its folder was ``/patina-0.1/studio``, which is nowhere here: a folder that was moved.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_families
from PIL import Image, ImageChops, ImageStat
from waiting import until

from trainer.config import BaseConfig
from trainer.preview.order import PreviewOrder, PreviewRow, PreviewSettings, StyleUse
from trainer.studio.database import MIGRATIONS, Database
from trainer.studio.store import State
from trainer.studio.studio import Studio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BASE_THEN = "/patina-0.1/base"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base that the fixture's runs were trained on, made once more from its seed."""
    return tiny_families.save_folder(tiny_families.build("sd1"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("moved") / "studio"
    with tarfile.open(FIXTURES / "studio-0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    # The base lay in a folder of the user's, and still lies there as far as the studio can see.
    for file in folder.glob("runs/*/config.toml"):
        file.write_text(file.read_text().replace(f'"{BASE_THEN}"', json.dumps(str(base))))
    database = Database(folder / "studio.sqlite3")
    database.write("UPDATE runs SET settings = replace(settings, ?, ?)", (f'"{BASE_THEN}"', json.dumps(str(base))))
    database.close()
    return folder


@pytest.fixture(scope="module")
def studio(home: Path) -> Iterator[Studio]:
    with Studio(home) as opened:
        yield opened


def named(studio: Studio, name: str) -> str:
    return next(run.id for run in studio.runs.all() if run.name == name)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, in levels of 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def test_its_database_is_brought_up_to_date_with_every_run(studio: Studio, home: Path) -> None:
    database = Database(home / "studio.sqlite3")
    assert database.one("PRAGMA user_version")[0] == len(MIGRATIONS)
    database.close()
    states = {run.name: run.state for run in studio.runs.all()}
    assert states == {"Shapes": "finished", "Tiny": "finished", "Half way": "paused", "Draft": "draft"}


def test_its_library_lists_the_styles(studio: Studio) -> None:
    cards = {card.name: card for card in studio.library.cards()}
    assert {name: card.origin for name, card in cards.items()} == {
        "Shapes": "trained",
        "Tiny": "trained",
        "From elsewhere": "imported",
    }
    assert all(card.rank == 1 and card.trigger and card.thumbnails for card in cards.values())
    assert studio.library.view(cards["From elsewhere"].id).inspection["layout"] == "diffusers"


def test_its_finished_run_is_shown_whole(studio: Studio) -> None:
    view = studio.runs.view(named(studio, "Shapes"))
    assert (view.step, view.steps, view.loss_steps) == (4, 4, (1, 2, 3, 4))
    assert view.verified
    assert view.adapter is not None
    assert view.sheet is not None
    assert view.sheet.is_file()
    assert [sample.step for sample in view.samples] == [0, 4]


def test_its_draft_has_images_and_settings(studio: Studio) -> None:
    draft = studio.drafts.view(named(studio, "Draft"))
    assert [(image.name, image.caption) for image in draft.images] == [("apple.png", "apple"), ("car.png", "car")]
    assert all(image.path.is_file() for image in draft.images)
    assert draft.settings["adapter"]["rank"] == 3


def test_its_pictures_are_in_the_gallery(studio: Studio) -> None:
    (job,) = studio.pictures.newest()
    assert job.state == "done"
    assert job.order.rows[0].prompt == "a boat"
    assert job.pictures[0].path.is_file()


def test_its_styles_are_read_and_draw(studio: Studio, base: Path) -> None:
    cards = {card.name: card.id for card in studio.library.cards()}
    uses = tuple(StyleUse(style=cards[name]) for name in ("Tiny", "From elsewhere"))
    rows = tuple(PreviewRow(prompt="a boat", seed=3, strengths=row) for row in ((2.0, 0.0), (0.0, 2.0), (0.0, 0.0)))
    settings = PreviewSettings(steps=2, width=64, height=64)
    order = PreviewOrder(base=BaseConfig(source=str(base)), styles=uses, rows=rows, settings=settings)
    job_id = studio.pictures.order(order)
    until(lambda: studio.pictures.view(job_id).state not in ("queued", "working"), "the pictures")
    job = studio.pictures.view(job_id)
    assert job.state == "done", job.message
    trained, imported, plain = (Image.open(picture.path).convert("RGB") for picture in job.pictures)
    # Rows of one batch may be rounded differently, which is far less than what the style does.
    assert difference(trained, imported) < difference(trained, plain) / 10


def test_its_paused_run_goes_on_from_its_checkpoint_wherever_the_folder_lies_now(studio: Studio) -> None:
    run = named(studio, "Half way")
    saved = studio.runs.view(run).step
    assert saved == 6
    studio.runs.resume(run)
    until(lambda: studio.runs.view(run).step > saved or studio.runs.view(run).state is State.FAILED, "another step")
    assert not studio.runs.view(run).error
    studio.runs.stop_and_keep(run)
    until(lambda: studio.runs.view(run).state in (State.FINISHED, State.FAILED), "its end")
    view = studio.runs.view(run)
    assert view.state is State.FINISHED, view.error
    assert view.loss_steps[:7] == (1, 2, 3, 4, 5, 6, 7)
