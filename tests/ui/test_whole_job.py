"""The main job as a person does it, in a browser: from images to a file that other programs open.

And the same while things go wrong: the worker dies, the whole studio is restarted.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gradio_client import Client, handle_file
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Page, expect
from waiting import PATIENCE, until

from tests.ui.conftest import TINY_RUN, Served, fields_late, fill_in, has, reload

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 40
ROUNDING = 0.5
"""Levels by which two pictures of the same weights may differ in the mean."""


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    expect.set_options(timeout=2 * PATIENCE * 1000)
    yield
    expect.set_options(timeout=5000)


def step_of(page: Page) -> int:
    """How far the page says the run is."""
    found = re.match(r"(\d+) of", page.locator(".numbers").text_content() or "")
    return int(found.group(1)) if found else 0


def frame(page: Page, strength: str) -> Image.Image:
    """The picture of the filmstrip at a strength, once it is made."""
    made = page.locator(f'.viewer-frame[data-strength="{strength}"] img')
    # On a slow machine the strip is offered instead of filling by itself; in one go, because the offer may go.
    fill = "() => { document.querySelector('.viewer-offer:not([hidden])')?.click(); }"
    until(lambda: made.count() or page.evaluate(fill), seconds=3 * PATIENCE, every=1.0)
    return fetch(page, str(made.get_attribute("src")))


def fetch(page: Page, source: str) -> Image.Image:
    """A picture of the page at full size, as this page's own login would get it."""
    url = page.evaluate("source => new URL(source, document.baseURI).href", source)
    return Image.open(io.BytesIO(page.request.get(re.sub(r"&w=\d+", "", url)).body())).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, in levels of 0 to 255; infinite where their sizes differ."""
    if one.size != other.size:
        return math.inf
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether they show the same: processors round a picture in a batch of five and one drawn alone differently."""
    return difference(one, other) < ROUNDING


def pipeline(bundled: Path) -> StableDiffusionPipeline:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(bundled, safety_checker=None)


def test_from_images_to_a_file_that_diffusers_opens(
    open_page: Callable[..., Page], served: Served, pictures: list[Path], bundled_dir: Path, tmp_path: Path
) -> None:
    page = open_page()
    page.locator("[data-drop] input[type=file]").first.set_input_files(pictures)
    expect(page.locator(".thumbs li")).to_have_count(8)
    caption = page.get_by_label("Caption of cat face.png", exact=True)
    expect(caption).to_have_value("cat face")
    caption.fill("the face of a cat")
    caption.press("Enter")
    page.get_by_label("Quick", exact=True).check()
    page.get_by_role("button", name="Every setting").click()
    fill_in(page, served, {**TINY_RUN, "train.steps": STEPS})
    has(page, served, {"train.preset": "quick"})
    expect(page.locator(".plan")).to_contain_text(f"{STEPS} steps")
    served.gates.close(step=2)
    # Typed, and at once trained: the fields' own requests come last, and are neither needed nor refused.
    notice = page.locator("#panel-notice .notice")
    with fields_late(page):
        page.get_by_label("Trigger", exact=True).fill("round square style")
        page.get_by_label("Name", exact=True).fill("Round and square")
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.locator(".monitor h2")).to_have_text("Round and square")
        has(page, served, {"name": "Round and square", "trigger": "round square style"})
        answered = notice.get_attribute("data-at")
    until(lambda: notice.get_attribute("data-at") != answered)

    until(lambda: step_of(page) == 2, seconds=3 * PATIENCE)
    expect(notice.get_by_role("alert")).to_have_count(0)
    reload(page)
    expect(page.locator(".monitor h2")).to_have_text("Round and square")
    expect(page.locator(".numbers")).to_contain_text(f"2 of {STEPS} steps")
    served.gates.close(step=6)
    until(lambda: step_of(page) == 6)
    served.gates.open()
    expect(page.locator(".state")).to_have_text("Finished")
    expect(page.locator(".wipe img").first).to_be_visible()
    expect(page.locator(".loss polyline.mean")).to_be_attached()
    expect(page.locator(".proof summary", has_text="Checked")).to_contain_text("Checked")

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    downloaded = downloading.value
    assert downloaded.suggested_filename == "Round_and_square.safetensors"
    file = tmp_path / downloaded.suggested_filename
    downloaded.save_as(file)

    page.get_by_role("button", name="Open in Preview").click()
    expect(page.locator(".mixer-name")).to_have_text("Round and square")
    # It draws by itself, and what it drew has to be there before its form is filled in anew.
    expect(page.locator(".viewer-after")).to_be_visible()
    page.locator("#preview-prompt textarea, #preview-prompt input").fill("a red apple, round square style")
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("number input for Steps").fill("3")
    page.get_by_role("button", name="Make picture").click()
    # The strip before stands there until the new picture is.
    expect(page.locator(".viewer-caption")).to_contain_text("a red apple, round square style")
    nothing, half, full = frame(page, "0"), frame(page, "0.5"), frame(page, "1")
    assert not same(half, full)
    assert not same(nothing, full)
    page.get_by_role("button", name=re.compile("^Remove Round")).click()
    page.get_by_role("button", name="Make picture").click()
    expect(page.locator(".viewer-tag-right")).to_have_text("base", ignore_case=True)
    base = page.locator(".viewer-after")
    expect(page.locator(".viewer-film")).to_be_hidden()
    until(lambda: same(fetch(page, str(base.get_attribute("src"))), nothing))

    opened = pipeline(bundled_dir)
    opened.load_lora_weights(file)
    layers = [name for name, _ in opened.unet.named_modules() if name.endswith("lora_A.default_0")]
    from safetensors import safe_open

    with safe_open(file, "pt") as stored:
        names = list(stored.keys())
        assert stored.metadata()["modelspec.trigger_phrase"] == "round square style"
    assert len(layers) == len([name for name in names if name.endswith("lora_down.weight")]) > 0


@pytest.fixture
def halfway(served: Served, pictures: list[Path]) -> str:
    """A run that stands at its sixth step, two after it was saved; it goes no further until it is let."""
    client = Client(served.url, verbose=False)
    settings = {**TINY_RUN, "train.steps": 12, "samples.every": 12}
    images = [handle_file(path) for path in pictures[:4]]
    served.gates.close(step=6)
    made: dict[str, Any] = client.predict(images=images, name="Disturbed", settings=settings, api_name="/create_run")
    served.gates.arrived(step=6, run=made["run"])
    return str(made["run"])


def test_a_killed_worker_costs_a_few_steps_and_nothing_else(
    open_page: Callable[..., Page], served: Served, halfway: str
) -> None:
    page = open_page(f"?run={halfway}")
    expect(page.locator(".numbers")).to_contain_text("6 of 12 steps")
    import psutil

    psutil.Process(served.worker()).kill()
    served.gates.open()
    expect(page.locator(".state")).to_have_text("Finished")
    expect(page.locator(".numbers")).to_contain_text("12 of 12 steps")
    assert (served.home / "runs" / halfway / "crash.log").is_file()


@pytest.mark.parametrize("ending", ["asked to end", "killed"])
def test_a_restarted_studio_goes_on_where_it_was(
    open_page: Callable[..., Page], served: Served, halfway: str, ending: str
) -> None:
    page = open_page(f"?run={halfway}")
    expect(page.locator(".numbers")).to_contain_text("6 of 12 steps")
    if ending == "killed":
        served.kill()
    else:
        assert served.stop() == 0
    served.gates.open()
    served.start()
    # The page finds the studio again without anybody's help.
    expect(page.locator(".state")).to_have_text("Finished")
    expect(page.locator(".numbers")).to_contain_text("12 of 12 steps")
