"""The Preview and Library tabs in a browser, with the real worker drawing on the bundled base."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from safetensors.numpy import load_file, save_file
from waiting import PATIENCE, until

from tests.ui.conftest import Served, Shown, barriers, reload, without_ticks
from trainer.errors import BaseError
from trainer.safetensors_file import read_header

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NASTY = "Ink <i>x</i> ${alert(1)} {{x}}"
QUICK_STEPS = "3"


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE * 1000)
    yield
    expect.set_options(timeout=5000)


@pytest.fixture(scope="module")
def style_file(tmp_path_factory: pytest.TempPathFactory, bundled_dir: Path) -> Path:
    """A style for the bundled base in the kohya layout, with weights large enough to be seen."""
    files = sorted((bundled_dir / "unet").glob("*.safetensors"))
    random = np.random.default_rng(1)
    tensors: dict[str, np.ndarray] = {}
    for name, shape in (entry for file in files for entry in read_header(file, BaseError).shapes.items()):
        if not re.search(r"attn2\.(to_q|to_k|to_v|to_out\.0)\.weight$", name):
            continue
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = random.normal(0, shape[1] ** -0.5, (4, shape[1])).astype(np.float32)
        tensors[f"{key}.lora_up.weight"] = random.normal(0, 0.2, (shape[0], 4)).astype(np.float32)
        tensors[f"{key}.alpha"] = np.array(4.0, np.float32)
    path = tmp_path_factory.mktemp("styles") / "ink.safetensors"
    save_file(tensors, path, {"ss_network_dim": "4", "modelspec.trigger_phrase": "ink style"})
    return path


def stronger(file: Path, factor: float) -> dict[str, np.ndarray]:
    """A style's tensors with what it adds multiplied."""
    found = load_file(file)
    return {
        key: value * np.float32(factor) if key.endswith("lora_up.weight") else value for key, value in found.items()
    }


def library(page: Page, style_file: Path) -> Locator:
    """The library with the style in it, imported when it is not there yet; returns its card."""
    page.get_by_role("tab", name="Library").click()
    expect(page.locator("#library-import")).to_be_visible()
    card = page.locator(".style-card")
    empty = page.locator(".cards-empty")
    expect(page.locator(".style-card:visible, .cards-empty:visible").first).to_be_visible()
    if not card.count():
        expect(empty).to_contain_text("appear here")
        bring_in(page, style_file)
        leave(page)
    expect(card).to_have_count(1)
    return card


def leave(page: Page) -> None:
    """Close the style that is about to open."""
    expect(page.get_by_role("dialog")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def bring_in(page: Page, file: Path) -> None:
    """Choose a file to import."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a style file").click()
    chooser.value.set_files(file)


def bytes_of(page: Page, image: Locator) -> np.ndarray:
    """The pixels of a picture that the page shows."""
    answer = page.request.get(str(image.evaluate("image => image.src")))
    assert answer.ok
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


def make(page: Page) -> None:
    """Have a picture made and wait until it is there; another one may stand there before."""
    job = "new URL(location.href).searchParams.get('job')"
    before = page.evaluate(job)
    page.get_by_role("button", name="Make picture").click()
    page.wait_for_function(f"before => {job} && {job} !== before", arg=before)
    expect(page.locator(".viewer-stage:not(.old)")).to_be_visible()


def strip(page: Page) -> None:
    """The whole filmstrip, which on a busy machine is offered instead of filling by itself."""
    made = page.locator(".viewer-frame img")
    # In one go, because the offer may go while it is looked at.
    fill = "() => { document.querySelector('.viewer-offer:not([hidden])')?.click(); }"
    until(lambda: made.count() >= 7 or page.evaluate(fill), seconds=2 * PATIENCE, every=1.0)


def frame(page: Page, strength: str) -> Locator:
    return page.locator(f'.viewer-frame[data-strength="{strength}"]')


def quick(page: Page) -> None:
    """Few denoising steps, so that pictures come quickly."""
    page.locator("#preview-more .label-wrap").click()
    steps = page.get_by_label("number input for Steps")
    steps.fill(QUICK_STEPS)
    steps.press("Enter")


def previewing(open_page: Callable[..., Page], style_file: Path) -> Page:
    """A page with the style in the Preview tab, and few denoising steps."""
    page = open_page()
    library(page, style_file)
    page.get_by_role("tab", name="Preview").click()
    expect(page.locator(".mixer-row")).to_have_count(1)
    quick(page)
    return page


def test_a_style_file_comes_in_gets_a_name_and_goes_out_under_it(
    open_page: Callable[..., Page], style_file: Path, tmp_path: Path
) -> None:
    page = open_page()
    library(page, style_file).click()
    name = page.locator(".style-name")
    expect(name).to_have_value("ink")
    expect(page.locator(".style-trigger")).to_have_text("ink style")
    name.fill(NASTY)
    name.press("Enter")
    expect(page.locator(".style-card-name")).to_have_text(NASTY)
    assert page.locator(".style-card-name i, .library-note i").count() == 0, "a name is text, whatever it holds"
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile(r"Download \(")).click()
    assert download.value.suggested_filename.startswith("Ink_")
    download.value.save_as(tmp_path / "out.safetensors")
    sent, came = load_file(style_file), load_file(tmp_path / "out.safetensors")
    assert sent.keys() == came.keys()
    assert all(np.array_equal(sent[key], came[key]) for key in sent)


def test_a_file_that_is_no_style_is_refused_in_a_sentence(
    open_page: Callable[..., Page], style_file: Path, tmp_path: Path
) -> None:
    page = open_page()
    library(page, style_file)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_text("this is text", encoding="utf-8")
    bring_in(page, wrong)
    expect(page.locator(".library-note")).to_contain_text("wrong.safetensors is not a safetensors file")
    expect(page.locator(".style-card")).to_have_count(1)


def test_deleting_can_be_undone(open_page: Callable[..., Page], style_file: Path) -> None:
    page = open_page()
    library(page, style_file).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".style-card")).to_have_count(0)
    expect(page.locator(".library-note")).to_contain_text("trash")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".style-card")).to_have_count(1)


def test_an_open_style_keeps_the_keyboard_and_escape_leads_back_to_its_card(
    open_page: Callable[..., Page], style_file: Path
) -> None:
    page = open_page()
    card = library(page, style_file)
    card.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(card).to_be_focused()


def test_the_same_file_is_not_taken_twice_and_no_path_is_shown(
    open_page: Callable[..., Page], served: Served, style_file: Path
) -> None:
    page = open_page()
    library(page, style_file)
    bring_in(page, style_file)
    note = page.locator(".library-note")
    expect(note).to_contain_text("in the library already")
    expect(note).not_to_contain_text(str(served.home))
    expect(page.locator(".style-card")).to_have_count(1)


def test_search_narrows_the_cards(open_page: Callable[..., Page], style_file: Path) -> None:
    page = open_page()
    library(page, style_file)
    search = page.locator("#library-search").get_by_role("textbox")
    search.fill("no such style")
    expect(page.locator(".cards-empty")).to_contain_text("No style matches")
    search.fill("INK style")
    expect(page.locator(".style-card")).to_have_count(1)


def test_a_style_is_previewed_at_every_strength_and_zero_is_the_base(
    open_page: Callable[..., Page], style_file: Path
) -> None:
    page = previewing(open_page, style_file)
    make(page)
    strip(page)
    base, full = (bytes_of(page, frame(page, strength).locator("img")) for strength in ("0", "1"))
    assert not np.array_equal(base, full)
    assert np.array_equal(base, bytes_of(page, page.locator(".viewer-before"))), "the wipe compares with the base"

    frame(page, "0.5").click()
    expect(page.locator(".viewer-tag-right")).to_have_text("strength 0.5, finished")
    half = bytes_of(page, page.locator(".viewer-after"))
    assert not np.array_equal(half, base)
    assert not np.array_equal(half, full)
    expect(page.locator(".mixer-number")).to_have_value("0.5")

    page.locator(".viewer-strength").press("ArrowRight")
    expect(page.locator(".mixer-number")).to_have_value("0.55")
    followed = page.locator(".viewer-tag-right").get_by_text("strength 0.55, finished", exact=True)
    slow = page.locator(".viewer-status").get_by_text("Press Make picture")
    expect(followed.or_(slow).first).to_be_visible()
    if slow.is_visible():
        # On a busy machine a picture is too slow to follow the slider, and the button makes it.
        make(page)
    expect(followed).to_be_visible()
    expect(page.locator(".viewer-frame")).to_have_count(8)
    # The picture that was asked for last is the one that a page begins with.
    frame(page, "1").click()
    make(page)

    name = page.locator(".mixer-name").inner_text()
    reload(page)
    expect(page.locator(".viewer-frame img").first).to_be_visible()
    expect(page.locator(".mixer-name")).to_have_text(name)


def test_opening_more_settings_leaves_guidance_to_the_base(open_page: Callable[..., Page], style_file: Path) -> None:
    page = previewing(open_page, style_file)
    guidance = page.locator("#preview-guidance").get_by_role("textbox")
    expect(guidance).to_have_value("")
    make(page)
    expect(page.locator(".viewer-caption")).to_contain_text("3 steps")
    expect(page.locator(".viewer-caption")).not_to_contain_text("guidance")


def test_a_picture_can_begin_with_an_upload_and_prompts_are_kept(
    open_page: Callable[..., Page], style_file: Path, pictures: list[Path]
) -> None:
    page = previewing(open_page, style_file)
    prompt = page.locator("#preview-prompt textarea, #preview-prompt input")
    prompt.fill("a green boat")
    page.get_by_role("button", name="Keep this prompt").click()
    page.get_by_text("Kept prompts (1)").click()
    prompt.fill("a cat")
    page.get_by_role("button", name="a green boat", exact=True).click()
    expect(prompt).to_have_value("a green boat")
    page.get_by_role("button", name="Forget: a green boat").click()
    expect(page.get_by_text("Kept prompts")).to_have_count(0)

    page.get_by_role("button", name="Begin with a picture").click()
    page.locator("#panel-begin input[type=file]").set_input_files(pictures[0])
    expect(page.locator(".begun img")).to_be_visible()
    make(page)
    expect(page.locator(".viewer-caption")).to_contain_text("from a picture, 60 % changed")
    expect(page.locator(".viewer-after")).to_be_visible()
    page.get_by_role("button", name="Without a picture").click()
    expect(page.locator(".begun")).to_have_count(0)


def test_a_second_style_leaves_the_picture_alone_and_so_does_its_removal(
    open_page: Callable[..., Page], style_file: Path, tmp_path: Path
) -> None:
    page = previewing(open_page, style_file)
    make(page)
    expect(page.locator(".viewer-tag-right")).to_have_text("strength 1, finished")
    second = tmp_path / "second.safetensors"
    save_file(stronger(style_file, 0.5), second, {"ss_network_dim": "4", "modelspec.trigger_phrase": "second"})
    page.get_by_role("tab", name="Library").click()
    bring_in(page, second)
    leave(page)
    page.get_by_role("tab", name="Preview").click()
    try:
        page.locator(".mixer-add").select_option(label="second")
        expect(page.locator(".mixer-row")).to_have_count(2)
        expect(page.locator(".viewer-status")).to_contain_text("Press Make picture")
        expect(page.locator(".viewer-tag-right")).to_have_text("strength 1, finished")
        expect(page.locator(".viewer-before")).to_be_visible()
        expect(frame(page, "1")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Remove second").click()
        expect(page.locator(".viewer-status")).not_to_contain_text("Press Make picture")
        expect(page.locator(".viewer-before")).to_be_visible()
        expect(frame(page, "1")).to_have_attribute("aria-pressed", "true")
    finally:
        page.get_by_role("tab", name="Library").click()
        page.locator(".style-card").filter(has_text="second").first.click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator(".style-card")).to_have_count(1)


def test_pictures_of_weights_that_have_moved_on_are_said_to_be_old_and_not_mixed_with_new_ones(
    open_page: Callable[..., Page], served: Served, style_file: Path
) -> None:
    page = previewing(open_page, style_file)
    make(page)
    # A strip that is still to come would show the new weights, and all the others with it.
    strip(page)
    expect(page.locator(".viewer-tag-right")).to_have_text("strength 1, finished")
    old = bytes_of(page, page.locator(".viewer-after"))
    file = served.home / "styles" / str(page.locator(".mixer-row").get_attribute("data-style")) / "adapter.safetensors"
    new, kept = file.with_name("new"), file.with_name("kept")
    save_file(stronger(file, 1.5), new, {"ss_network_dim": "4", "modelspec.trigger_phrase": "ink style"})
    os.link(file, kept)
    new.replace(file)
    try:
        expect(page.locator(".viewer-status")).to_contain_text("learned on")
        make(page)
        expect(page.locator(".viewer-status")).not_to_contain_text("learned on")
        expect(page.locator(".viewer-tag-right")).to_have_text("strength 1, finished")
        assert not np.array_equal(old, bytes_of(page, page.locator(".viewer-after")))
        strip(page)
        assert np.array_equal(
            bytes_of(page, frame(page, "1").locator("img")), bytes_of(page, page.locator(".viewer-after"))
        )
        assert not any(np.array_equal(old, bytes_of(page, image)) for image in page.locator(".viewer-frame img").all())
    finally:
        kept.replace(file)


def test_a_new_name_reaches_the_preview_without_a_reload(open_page: Callable[..., Page], style_file: Path) -> None:
    page = previewing(open_page, style_file)
    other = open_page()
    library(other, style_file).click()
    name = other.locator(".style-name")
    name.fill("Quite another")
    name.press("Enter")
    expect(page.locator(".mixer-name")).to_have_text("Quite another")


def test_a_sheet_compares_strengths_in_one_picture_to_save(
    open_page: Callable[..., Page], served: Served, style_file: Path, tmp_path: Path
) -> None:
    page = previewing(open_page, style_file)
    page.get_by_role("tab", name="Sheet").click()
    page.locator("#sheet-rows-values textarea").fill("cat face\nred apple")
    page.locator("#sheet-columns-values").get_by_role("textbox").fill("0, one")
    popped_up = Shown(page, ".toast-body")
    page.get_by_role("button", name="Make sheet").click()
    popped_up.has("'one' does not suit Strengths")
    page.locator("#sheet-columns-values").get_by_role("textbox").fill("0, 1")
    page.get_by_role("button", name="Make sheet").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save sheet as PNG").click()
    download.value.save_as(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * 128
        assert sheet.height > 2 * 128
    expect(page.locator(".results-detail").filter(has_text="Sheet, 2 by 2")).to_have_count(1)
    picture = page.locator(".results-pictures img").first
    assert str(picture.evaluate("image => image.src")).startswith(f"{served.url}/patina/pictures/previews/")


def test_stopping_ends_the_work_and_results_can_be_used_again_or_removed(
    open_page: Callable[..., Page], style_file: Path
) -> None:
    page = previewing(open_page, style_file)
    make(page)
    page.locator("#preview-prompt textarea").fill("a thing nobody draws")
    # So large that no machine is done before it is stopped.
    for side in ("width", "height"):
        page.locator("#preview-size").get_by_label(side).fill("512")
    steps = page.get_by_label("number input for Steps")
    steps.fill("100")
    steps.press("Enter")
    page.get_by_role("button", name="Make picture").click()
    expect(page.locator(".viewer-status")).to_contain_text("Drawing")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".viewer-status")).to_contain_text("Stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()

    made = page.locator(".results-card").filter(has_not_text="Sheet").first
    picture = page.locator(f'.results-card[data-job="{made.get_attribute("data-job")}"]')
    picture.locator(".results-use").click()
    expect(page.locator("#preview-prompt textarea")).not_to_have_value("a thing nobody draws")
    expect(page.locator(".viewer-after")).to_be_visible()
    with without_ticks(page):
        # At the first tick after a few seconds it would be gone.
        picture.hover()
        picture.locator(".results-remove").click()
        expect(picture).to_have_text(re.compile("Undo$"))
        page.get_by_role("button", name="Undo").click()
        expect(picture.locator(".results-remove")).to_have_count(1)
    picture.hover()
    picture.locator(".results-remove").click()
    expect(picture).to_have_count(0)


@pytest.mark.parametrize("tab", ["Preview", "Library", "Settings"])
def test_nothing_is_wider_than_a_phone(open_page: Callable[..., Page], tab: str) -> None:
    page = open_page(width=375, height=740)
    page.get_by_role("tab", name=tab).click()
    there = {"Preview": "#preview-prompt", "Library": "#library-import", "Settings": ".settings-page"}
    expect(page.locator(there[tab])).to_be_visible()
    page.wait_for_function("document.documentElement.scrollWidth <= 375")


@pytest.mark.parametrize("tab", ["Preview", "Library", "Settings"])
def test_nothing_bars_the_way_of_screen_readers_and_keyboards(open_page: Callable[..., Page], tab: str) -> None:
    page = open_page()
    page.get_by_role("tab", name=tab).click()
    there = {"Preview": "#preview-prompt", "Library": "#library-import", "Settings": ".settings-page"}
    expect(page.locator(there[tab])).to_be_visible()
    if tab == "Preview":
        page.locator("#preview-begin .label-wrap").click()
        page.locator("#preview-more .label-wrap").click()
    if tab == "Library":
        expect(page.locator(".style-card:visible, .cards-empty:visible").first).to_be_visible()
        if page.locator(".style-card").count():
            page.locator(".style-card").first.click()
            expect(page.get_by_role("dialog")).to_be_focused()
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, a[href]")]
        .filter((one) => one.offsetParent !== null && one.type !== "file")
        .filter((one) => !(one.getAttribute("aria-label") || one.title || one.textContent.trim() || one.placeholder
            || (one.labels && [...one.labels].some((label) => label.textContent.trim()))))
        .map((one) => one.outerHTML.slice(0, 160))"""
    # Some controls get their names with the first look at the studio.
    until(lambda: page.evaluate(nameless) == [])
    assert barriers(page) == []
