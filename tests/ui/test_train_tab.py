"""The Train tab in a browser, up to the button: images, captions, settings, and what a page remembers."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from waiting import PATIENCE, until

from tests.ui.conftest import Served, barriers, reload
from trainer.config.sections import MOST_REPEATS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
NASTY = "${alert(1)} {{x}} <b>bold</b>"


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE * 1000)
    yield
    expect.set_options(timeout=5000)


@pytest.fixture
def draft(open_page: Callable[..., Page], pictures: list[Path]) -> Page:
    """A page with a new draft of four images."""
    page = open_page()
    new = page.get_by_role("button", name="New style", exact=True)
    expect(page.locator(".drop")).to_be_visible()
    if page.locator(".thumbs li").count():
        new.click()
    expect(page.locator(".drop:not(.compact)")).to_be_visible()
    upload(page, pictures[:4])
    expect(page.locator(".thumbs li, #panel-notice .notice > *").first).to_be_visible()
    assert page.locator("#panel-notice").inner_text() == "", "the upload was refused"
    expect(page.locator(".thumbs li")).to_have_count(4)
    # What a test removes is not asked for any more: a thumbnail on its way would be one that is missing.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumbs img')].every(i => i.complete && i.naturalWidth)"
    )
    return page


def upload(page: Page, files: list[Path]) -> None:
    page.locator("[data-drop] input[type=file]").first.set_input_files(files)


def caption(page: Page, name: str) -> Locator:
    return page.get_by_label(f"Caption of {name}", exact=True)


def test_the_first_visit_offers_a_set_that_is_ready_to_train(open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.get_by_role("heading", name="Train a style from a handful of images")).to_be_visible()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    page.get_by_role("button", name=re.compile("Look at the images")).first.click()
    expect(page.locator(".thumbs li")).to_have_count(16)
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled()
    expect(page.locator(".plan")).to_contain_text(re.compile(r"\d+ steps, about .* of .* memory, file .*B"))


def test_what_is_wrong_with_an_image_is_said_and_mended_with_one_click(
    draft: Page, pictures: list[Path], tmp_path: Path
) -> None:
    Image.open(pictures[0]).resize((150, 150)).save(tmp_path / "again.png")
    turned = Image.open(pictures[5]).resize((160, 120))
    orientation = turned.getexif()
    orientation[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=orientation)
    (tmp_path / "torn.png").write_bytes(pictures[1].read_bytes()[:99])
    upload(draft, sorted(tmp_path.iterdir()))
    expect(draft.locator(".thumbs li")).to_have_count(6)
    expect(draft.locator("#panel-notice")).to_contain_text("torn.png")
    expect(draft.locator(".summary")).to_contain_text("1 turned upright")
    draft.get_by_role("button", name="Remove near-duplicates").click()
    expect(draft.locator(".thumbs li")).to_have_count(5)
    draft.get_by_role("button", name=re.compile("Put .* back")).click()
    expect(draft.locator(".thumbs li")).to_have_count(6)


def test_removing_an_image_changes_no_other_caption(draft: Page) -> None:
    caption(draft, "boat.png").fill("a boat at sea")
    caption(draft, "boat.png").press("Enter")
    caption(draft, "cat face.png").fill("a cat")
    caption(draft, "cat face.png").blur()
    draft.locator(".thumbs li").first.hover()
    draft.get_by_role("button", name="Remove apple.png").click()
    expect(draft.locator(".thumbs li")).to_have_count(3)
    expect(caption(draft, "boat.png")).to_have_value("a boat at sea")
    expect(caption(draft, "cat face.png")).to_have_value("a cat")
    draft.get_by_role("button", name="Put apple.png back").click()
    expect(caption(draft, "apple.png")).to_have_value("apple")
    expect(caption(draft, "boat.png")).to_have_value("a boat at sea")


def test_captions_are_changed_all_at_once(draft: Page) -> None:
    draft.get_by_text("Change many at once").click()
    draft.get_by_label("Words to add to all").fill("on paper")
    draft.get_by_role("button", name="Add to all").click()
    expect(draft.locator("#panel-notice")).to_contain_text("4 captions changed")
    expect(caption(draft, "apple.png")).to_have_value("apple, on paper")
    draft.get_by_label("Find", exact=True).fill("paper")
    draft.get_by_label("Replace with").fill(NASTY)
    # A line comes above, so what lies below is rendered anew while it is being filled in.
    caption(draft, "boat.png").fill("")
    caption(draft, "boat.png").blur()
    expect(draft.get_by_text("1 of 4 images has no caption").first).to_be_visible()
    expect(draft.get_by_label("Find", exact=True)).to_have_value("paper")
    expect(draft.get_by_label("Replace with")).to_have_value(NASTY)
    draft.get_by_role("button", name="Replace in all").click()
    expect(caption(draft, "apple.png")).to_have_value(f"apple, on {NASTY}")


def test_an_image_is_looked_at_closely_cropped_by_dragging_and_left_with_a_key(draft: Page) -> None:
    draft.get_by_role("button", name="Edit apple.png").click()
    window = draft.get_by_role("dialog")
    written = window.get_by_label("Caption")
    expect(written).to_have_value("apple")
    written.fill("a green apple")
    draft.keyboard.press("PageDown")
    expect(window).to_contain_text("2 of 4")
    expect(written).to_have_value("boat")
    draft.keyboard.press("PageUp")
    expect(written).to_have_value("a green apple")
    expect(window.get_by_label("How often it is learned")).to_have_attribute("max", str(MOST_REPEATS))
    window.get_by_label("How often it is learned").fill("3")
    draft.keyboard.press("PageDown")
    expect(window.get_by_label("How often it is learned")).to_have_value("1")
    draft.keyboard.press("PageUp")
    expect(window.get_by_label("How often it is learned")).to_have_value("3")
    expect(draft.locator(".thumbs .badge").filter(has_text="3")).to_have_count(1)

    def shape() -> list[int]:
        found: list[int] = window.locator("img").evaluate("e => [e.naturalWidth, e.naturalHeight]")
        return found

    draft.wait_for_function("(i => i.complete && i.naturalWidth > 0)(document.querySelector('.editor img'))")
    whole = shape()
    box = window.locator("img").bounding_box()
    assert box is not None
    draft.mouse.move(box["x"] + 5, box["y"] + 5)
    draft.mouse.down()
    draft.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5, steps=3)
    draft.mouse.up()
    assert barriers(draft) == []
    window.get_by_role("button", name="Use this part").click()
    expect(window.get_by_role("button", name="Use the whole image")).to_be_visible()
    until(lambda: shape()[0] < whole[0] * 0.7)
    # What its shape in training cuts off follows the dot.
    cut = draft.locator(".thumbs .crop")
    expect(cut).to_have_count(1)
    dot = window.get_by_role("button", name="What stays in sight of apple.png")
    middle, corner = dot.bounding_box(), window.locator("img").bounding_box()
    assert middle is not None
    assert corner is not None
    draft.mouse.move(middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2)
    draft.mouse.down()
    draft.mouse.move(corner["x"], corner["y"], steps=3)
    draft.mouse.up()
    expect(cut).to_have_attribute("style", re.compile(r"left:0\.00%;top:0\.00%"))
    dot.press("ArrowDown")
    dot.press("ArrowRight")
    expect(cut).not_to_have_attribute("style", re.compile(r"left:0\.00%;top:0\.00%"))
    window.get_by_role("button", name="Use the whole image").click()
    until(lambda: shape() == whole)
    window.get_by_role("button", name="Close").click()
    expect(caption(draft, "apple.png")).to_have_value("a green apple")
    # Another style may begin with the same images, and all that is said of them.
    draft.get_by_role("button", name="New style", exact=True).click()
    offered = draft.get_by_label("Or images of another style")
    expect(offered.locator("option").first).to_contain_text("4 images")
    draft.get_by_role("button", name="Add them").click()
    expect(caption(draft, "apple.png")).to_have_value("a green apple")
    expect(draft.locator(".thumbs .badge").filter(has_text="3")).to_have_count(1)


def test_what_a_user_writes_is_shown_as_it_is_and_never_run(draft: Page) -> None:
    dialogs: list[str] = []
    draft.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    draft.get_by_label("Name", exact=True).fill(NASTY)
    draft.get_by_label("Name", exact=True).press("Enter")
    expect(draft.locator(".run b").filter(has_text=NASTY)).to_be_visible()
    assert draft.locator(".run b b").count() == 0
    reload(draft)
    expect(draft.get_by_label("Name", exact=True)).to_have_value(NASTY)
    assert not dialogs


def test_a_reload_and_a_second_page_show_the_same(draft: Page, open_page: Callable[..., Page]) -> None:
    draft.get_by_label("Name", exact=True).fill("Twice")
    draft.get_by_label("Name", exact=True).blur()
    caption(draft, "door.png").wait_for(state="attached")
    expect(draft.locator(".run b").filter(has_text="Twice")).to_be_visible()
    reload(draft)
    expect(draft.get_by_label("Name", exact=True)).to_have_value("Twice")
    other = open_page(draft.url.partition("?")[1] + draft.url.partition("?")[2])
    expect(other.get_by_label("Name", exact=True)).to_have_value("Twice")
    other.get_by_label("Trigger", exact=True).fill("twice style")
    other.get_by_label("Trigger", exact=True).blur()
    expect(draft.get_by_label("Trigger", exact=True)).to_have_value("twice style")


def test_a_control_says_what_it_becomes_and_the_plan_follows(draft: Page) -> None:
    length = draft.get_by_label("Length", exact=True)
    expect(draft.locator("output[for=dial-length]")).to_have_text("300 steps")
    length.press("ArrowRight")
    expect(draft.locator("output[for=dial-length]")).to_have_text("480 steps")
    expect(draft.locator(".plan")).to_contain_text("480 steps")
    draft.get_by_label("Quick", exact=True).check()
    expect(draft.locator(".plan")).to_contain_text("120 steps")
    expect(length).to_have_value("0")


def test_a_wrong_setting_is_a_sentence_and_changes_nothing(draft: Page) -> None:
    draft.get_by_role("button", name="Every setting").click()
    rank = draft.get_by_label("Rank", exact=True)
    rank.fill("0")
    rank.blur()
    expect(draft.locator("#panel-notice [role=alert]")).to_contain_text("adapter.rank is 0")
    rank.fill("4")
    rank.blur()
    expect(draft.locator("output[for=dial-detail]")).to_have_text("rank 4")
    draft.get_by_role("button", name="Leave everything to the preset").click()
    expect(draft.locator("output[for=dial-detail]")).to_have_text("rank 8")


def test_a_base_is_checked_when_it_is_named(draft: Page, tmp_path: Path) -> None:
    expect(draft.locator(".found")).to_contain_text("Bundled")
    draft.get_by_text("Another model").click()
    source = draft.get_by_label("Model", exact=True)
    source.fill(str(tmp_path / "nothing.safetensors"))
    draft.get_by_role("button", name="Check").click()
    expect(draft.locator(".found .problem")).to_contain_text("nothing.safetensors")
    expect(draft.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    draft.get_by_text("Bundled icons", exact=True).click()
    expect(draft.get_by_role("button", name="Train", exact=True)).to_be_enabled()


def test_a_deleted_draft_can_be_taken_back(draft: Page) -> None:
    draft.get_by_label("Name", exact=True).fill("Mistake")
    draft.get_by_label("Name", exact=True).blur()
    row = draft.locator(".run").filter(has_text="Mistake")
    row.get_by_role("button", name=re.compile("Delete")).click()
    expect(row).to_have_count(0)
    draft.get_by_role("button", name="Undo").click()
    expect(row).to_have_count(1)
    expect(draft.get_by_label("Name", exact=True)).to_have_value("Mistake")


def test_every_control_has_a_name_and_every_picture_a_text(draft: Page) -> None:
    draft.get_by_role("button", name="Every setting").click()
    nameless = draft.evaluate(
        """() => [...document.querySelectorAll('#train button, #train input, #train select, #train textarea')]
          .filter(e => e.offsetParent && !e.closest('label') && !(e.labels && e.labels.length)
            && !e.getAttribute('aria-label') && !e.textContent.trim())
          .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    assert draft.locator("#train img:not([alt])").count() == 0
    assert barriers(draft) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(open_page: Callable[..., Page], width: int) -> None:
    page = open_page(width=width)
    there = {"Train": ".run", "Preview": "#preview-prompt", "Library": ".style-card, .cards-empty"}
    for name, part in there.items():
        page.get_by_role("tab", name=name).click()
        expect(page.locator(part).first).to_be_visible()
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)


def test_light_and_dark_stay_as_chosen(open_page: Callable[..., Page]) -> None:
    page = open_page(dark=True, reduced_motion="reduce")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Switch between light and dark").click()
    light = page.evaluate(background)
    assert light != dark
    reload(page)
    page.wait_for_selector("[data-panel=where] [data-run]", state="attached")
    assert page.evaluate(background) == light


def test_the_tab_that_was_open_is_open_after_a_reload(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Library").click()
    expect(page).to_have_url(re.compile("tab=library"))
    reload(page)
    expect(page.get_by_role("tab", name="Library")).to_have_attribute("aria-selected", "true")


def test_pictures_are_served_from_their_folders_only(draft: Page, served: Served) -> None:
    source = draft.locator(".thumbs img").first.get_attribute("src")
    with urllib.request.urlopen(f"{served.url}/{source}", timeout=30) as answer:
        assert answer.headers["Content-Type"] == "image/webp"
        assert "immutable" in answer.headers["Cache-Control"]
    for path in ("patina/pictures/studio.sqlite3", "gradio_api/file=" + str(served.home / "studio.sqlite3")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served.url}/{path}", timeout=30)
        assert refused.value.code in (403, 404)
        refused.value.close()
