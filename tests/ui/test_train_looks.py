"""What the Train tab must never hide again: the button, what is wrong with captions, the accent, what is going on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from waiting import PATIENCE

from tests.ui.conftest import Served, Shown, barriers, fill_in, run_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE * 1000)
    yield
    expect.set_options(timeout=5000)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty images without meaningful names, and so without captions; one has a Chinese one, one a long one."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(40):
        image = Image.new("RGB", (96, 96), (6 * index, 255 - 6 * index, (40 * index) % 256))
        image.paste((0, 0, 0), (index, index, index + 30, index + 12))
        image.save(folder / f"{index:04d}.png")
    (folder / "0003.txt").write_text("猫", encoding="utf-8")
    (folder / "0005.txt").write_text("a very long caption of a cat on a mat, " * 12, encoding="utf-8")
    return sorted(folder.iterdir())


def upload(page: Page, files: list[Path]) -> None:
    if page.locator(".thumbs li").count():
        page.get_by_role("button", name="New style", exact=True).click()
        expect(page.locator(".thumbs li")).to_have_count(0)
    page.locator("[data-drop] input[type=file]").first.set_input_files(files)


def train(page: Page) -> Locator:
    return page.get_by_role("button", name="Train", exact=True)


def wholly_in_window(page: Page, locator: Locator) -> bool:
    box = locator.bounding_box()
    window = page.viewport_size
    assert box is not None
    assert window is not None
    return box["y"] >= 0 and box["y"] + box["height"] <= window["height"] and box["height"] > 30


def test_the_first_screen_shows_each_style_and_says_how_long_it_takes_here(open_page: Callable[..., Page]) -> None:
    page = open_page()
    offers = page.locator(".offers > li")
    expect(offers).to_have_count(2)
    for index in range(2):
        expect(offers.nth(index).locator(".set img")).to_have_count(8)
        expect(offers.nth(index).locator(".pair img")).to_have_count(2)
    loaded = "() => [...document.querySelectorAll('.offers img')].every(i => i.complete && i.naturalWidth > 0)"
    page.wait_for_function(loaded)
    # Two steps, and they count 1, 2.
    expect(page.locator(".card .number").nth(1)).to_have_text("2")
    expect(page.get_by_role("heading", level=1)).to_have_text("Patina")
    said = page.locator(".offers .time").first.inner_text()
    page.get_by_role("button", name=re.compile("Look at the images")).first.click()
    expect(page.locator(".thumbs li")).to_have_count(16)
    expect(page.locator(".plan")).to_contain_text(said)
    # Visiting leaves no empty draft behind.
    expect(page.locator(".run")).to_have_count(1)
    page.get_by_role("button", name="New style", exact=True).click()
    expect(page.locator(".run")).to_have_count(2)
    page.get_by_role("button", name=re.compile("Look at the images")).last.click()
    expect(page.locator(".thumbs li")).to_have_count(16)
    expect(page.locator(".run").filter(has_text="My style")).to_have_count(0)


def test_the_train_button_is_in_sight_with_many_images_and_captions_are_warned_of(
    open_page: Callable[..., Page], served: Served, many: list[Path]
) -> None:
    page = open_page()
    busy = page.locator(".drop .busy")
    said = Shown(page, ".drop .busy")
    # A page looks once a second how far it is: a count is promised where reading takes longer than that, and no other.
    with served.gates.reading_held():
        upload(page, many)
        expect(busy).to_have_text("Reading the images, 0 of 42")
    said.has(r"^Sending \d+ of 42")
    said.has("^Reading the images$")
    expect(page.locator(".thumbs li")).to_have_count(40)
    expect(busy).to_have_text("")
    expect(train(page)).to_be_enabled()
    assert wholly_in_window(page, train(page))
    page.mouse.move(300, 500)
    page.mouse.wheel(0, 2500)
    page.wait_for_function("scrollY > 1000")
    assert wholly_in_window(page, train(page))

    warnings = page.locator(".warnings")
    expect(warnings).to_contain_text("38 of 40 images have no caption")
    expect(warnings).to_contain_text("1 caption is longer than the 42 tokens")
    expect(warnings).to_contain_text("1 caption is in Chinese, Japanese or Korean")
    page.get_by_text("Show all 40").click()
    rows = page.locator(".caption")
    expect(rows.nth(3).locator(".tokens")).to_contain_text("not English")
    expect(rows.nth(5).locator(".tokens")).to_contain_text("too long")
    expect(rows.nth(7).locator(".tokens")).to_contain_text("no caption")

    phone = open_page(page.url.partition("/?")[2] and "?" + page.url.partition("/?")[2], width=390, height=844)
    expect(phone.locator(".thumbs li")).to_have_count(40)
    assert wholly_in_window(phone, train(phone))

    # Who goes by keyboard passes all pictures with one key.
    phone.keyboard.press("Tab")
    expect(phone.get_by_role("button", name="To the main action")).to_be_focused()
    phone.keyboard.press("Enter")
    expect(train(phone)).to_be_focused()


def test_the_dark_has_its_own_accent_everywhere(open_page: Callable[..., Page]) -> None:
    page = open_page(dark=True)
    accents = page.evaluate(
        """() => ['body', '.gradio-container', '#train', '[data-panel=base]']
          .map(s => getComputedStyle(document.querySelector(s)).getPropertyValue('--color-accent').trim())"""
    )
    assert set(accents) == {"#6FC3B2"}
    radio = page.locator("#train input[type=radio]:checked").first
    expect(radio).to_have_css("border-top-color", "rgb(111, 195, 178)")


def test_deleting_asks_nothing_and_can_be_undone(open_page: Callable[..., Page], pictures: list[Path]) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    upload(page, pictures[:2])
    expect(page.locator(".thumbs li")).to_have_count(2)
    delete = page.locator(f'.run [data-act=delete][data-item="{run_of(page)}"]')
    delete.click()
    expect(delete).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(delete).to_have_count(1)
    assert asked == []


def test_a_run_shows_every_stage_and_ends_with_a_wipe(
    open_page: Callable[..., Page], served: Served, pictures: list[Path]
) -> None:
    page = open_page()
    upload(page, pictures[:4])
    expect(page.locator(".thumbs li")).to_have_count(4)
    page.get_by_role("button", name="Every setting").click()
    settings = {"train.steps": 400, "train.threads": 1, "samples.every": 4, "samples.steps": 2}
    fill_in(page, served, {**settings, "samples.prompts": ["a cat", "a dog"]})
    expect(page.locator(".plan")).to_contain_text("400 steps")
    served.gates.close(step=9)
    stage = Shown(page, ".stages .now")
    # Far down in the panel of one run; the next begins at its top.
    page.evaluate("window.scrollTo(0, 2000)")
    train(page).click()
    expect(page.locator(".skeleton, .newest img").first).to_be_visible()
    expect(page.locator(".earlier .strip > li").nth(1)).to_be_visible()
    expect(page.locator(".newest img")).to_have_count(2)
    expect(page).to_have_title(re.compile(r"^2 % .* - Patina$"))
    expect(page.locator(".stages .now")).to_have_text("Train")
    page.get_by_role("button", name="Stop and keep").click()
    # The worker has not heard of it yet.
    expect(page.locator(".stages .now")).to_have_text("Last pictures")
    served.gates.open()
    expect(page.locator(".state")).to_have_text("Finished")
    assert set(stage.texts) <= {"Load", "Prepare", "Train", "Last pictures", "Write and check"}
    expect(page).to_have_title("Patina")
    wipe = page.locator(".wipe:not([hidden])")
    expect(wipe).to_have_count(1)
    expect(wipe.locator("figcaption")).to_contain_text("a cat")
    wipe.get_by_role("slider").press("Home")
    assert wipe.locator(".stage").evaluate("e => e.style.getPropertyValue('--wipe')") == "0%"
    page.get_by_role("button", name="Show a dog").click()
    expect(page.locator(".wipe:not([hidden]) figcaption")).to_contain_text("a dog")
    expect(page.locator(".proof summary", has_text="Checked")).to_have_text(
        re.compile("Checked: diffusers opens the file and draws the same picture")
    )
    expect(page.locator(".ticks")).to_be_hidden()
    expect(page.get_by_role("button", name="Open in Preview")).to_be_visible()
    assert barriers(page) == []
