"""A studio served by its own process, as a user starts it, and a browser that notices what it should not see."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gates import Gates
from PIL import Image, ImageDraw
from waiting import PATIENCE, until

from trainer.studio.database import Database

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

CUT_OFF = ("Connection errored out", "AbortError", "Failed to fetch")
"""What Gradio says of answers that a page did not wait for."""
_LEAVING: set[Page] = set()
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TINY_RUN = {
    "train.steps": 16,
    "train.checkpoint_every": 4,
    "train.threads": 1,
    "samples.every": 8,
    "samples.steps": 2,
    "samples.prompts": ["a cat"],
}
"""Settings of a run that takes seconds."""


@dataclass
class Served:
    """A studio process; ``stop`` and ``start`` again is what a restart of the machine does."""

    home: Path
    port: int
    process: subprocess.Popen[str] | None = None
    extra: tuple[str, ...] = ()
    gates: Gates = field(init=False)

    def __post_init__(self) -> None:
        self.gates = Gates(self.home.parent / f"{self.home.name}-gates")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until the page answers."""
        command = [sys.executable, "-m", "app", "--home", str(self.home), "--port", str(self.port), "--no-browser"]
        self.log_file = self.home.parent / f"{self.home.name}-app.log"
        environment = {**os.environ, **self.gates.environment}
        with self.log_file.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, *self.extra], stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"the studio ended: {self.log_file.read_text(encoding='utf-8')}")
            try:
                with urllib.request.urlopen(self.url, timeout=PATIENCE):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        pytest.fail("the studio did not answer in time")

    def stop(self) -> int:
        """Ask it to end, as Ctrl-C does, and wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def kill(self) -> None:
        """End it as a power cut would, together with its worker."""
        assert self.process is not None
        import psutil

        studio = psutil.Process(self.process.pid)
        children = studio.children(recursive=True)
        # First the one that would start others in their place.
        for member in (studio, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait(PATIENCE)

    def worker(self) -> int:
        """Process id of the worker."""
        import psutil

        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "trainer.studio.worker.main" in " ".join(child.cmdline()):
                    return int(child.pid)
        raise LookupError("no worker is running")

    def settings(self, run: str) -> dict[str, Any]:
        """The settings of a run, by their dotted paths, as the studio has them on its disk."""
        database = Database(self.home / "studio.sqlite3", read_only=True)
        try:
            row = database.one("SELECT settings FROM runs WHERE id = ?", (run,))
        finally:
            database.close()
        return dict(_dotted(json.loads(row["settings"])))


def _dotted(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def free_port() -> int:
    """A port that is free now, and below those from which any program's next connection takes its own."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run_of(page: Page) -> str:
    """The run that a page shows."""
    return parse_qs(urlsplit(page.url).query)["run"][0]


def fill_in(page: Page, served: Served, settings: Mapping[str, Any]) -> None:
    """Fill in settings under *Every setting*, which is open, and wait until the studio has them."""
    for setting, value in settings.items():
        entry = page.locator(f'[data-set="{setting}"]')
        entry.fill("\n".join(value) if isinstance(value, list) else str(value))
        entry.blur()
    has(page, served, settings)


def has(page: Page, served: Served, settings: Mapping[str, Any]) -> None:
    """Wait until the studio has settings for the run that a page shows: a page shows them sooner."""
    until(lambda: settings.items() <= served.settings(run_of(page)).items())


class Shown:
    """Every text that the elements of a page that match ``selector`` have shown since, however shortly."""

    def __init__(self, page: Page, selector: str) -> None:
        self._page, self._selector = page, selector
        page.evaluate(
            """(selector) => {
                const texts = ((window.testShown ??= {})[selector] = []);
                const look = () => {
                    for (const { textContent } of document.querySelectorAll(selector)) {
                        if (texts.at(-1) !== textContent) texts.push(textContent);
                    }
                };
                look();
                new MutationObserver(look).observe(document, {
                    attributes: true, characterData: true, childList: true, subtree: true,
                });
            }""",
            selector,
        )

    @property
    def texts(self) -> list[str]:
        """The texts, oldest first."""
        texts: list[str] = self._page.evaluate("selector => window.testShown[selector]", self._selector)
        return texts

    def has(self, pattern: str) -> None:
        """Wait until one of the texts has been there."""
        until(lambda: any(re.search(pattern, text) for text in self.texts))


@contextlib.contextmanager
def _held(page: Page, address: str, which: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """What a page asks of an address, and ``which`` is true of, is sent when the block ends."""
    waiting: list[Route] = []
    over = False

    def hold(route: Route) -> None:
        asked = route.request.post_data_json
        if not over and isinstance(asked, dict) and which(asked):
            waiting.append(route)
        else:
            route.continue_()

    page.route(address, hold)
    try:
        yield
    finally:
        over = True
        for route in waiting:
            route.continue_()
        page.unroute(address, hold)


@contextlib.contextmanager
def without_ticks(page: Page) -> Iterator[None]:
    """The page's timers ask the studio nothing until the block ends: what a tick would end stands."""
    ticking: list[int] = page.evaluate(
        """() => window.gradio_config.dependencies
            .filter(({ targets }) => targets.some(([, event]) => event === "tick")).map(({ id }) => id)"""
    )
    assert ticking
    with _held(page, "**/gradio_api/run/**", lambda asked: asked.get("fn_index") in ticking):
        yield


@contextlib.contextmanager
def fields_late(page: Page) -> Iterator[None]:
    """What the page sends of a field that was left arrives when the block ends, after all that is clicked in it."""

    def of_field(asked: dict[str, Any]) -> bool:
        return "set" in (asked.get("event_data") or {})

    with _held(page, "**/gradio_api/queue/join**", of_field):
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A studio of this test file's own, with an empty folder."""
    yield from serve(tmp_path_factory.mktemp("studio") / "home")


def serve(home: Path, *extra: str) -> Iterator[Served]:
    """A started studio, ended afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    studio = Served(home, free_port(), extra=extra)
    studio.start()
    try:
        yield studio
    finally:
        if studio.process is not None and studio.process.poll() is None:
            studio.stop()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, once for all browser tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        yield chrome
        chrome.close()


@pytest.fixture
def open_page(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Opens pages of the studio; at the end, none may have logged an error or asked another host for anything."""
    contexts = []
    troubles: list[str] = []
    allowed = re.compile(re.escape(served.url) + r"(/|$)|data:|blob:")

    def opened(path: str = "", *, width: int = 1280, height: int = 900, dark: bool = False, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)

        def complain(trouble: str) -> None:
            if not (page in _LEAVING and any(name in trouble for name in CUT_OFF)):
                troubles.append(trouble)

        page.on("console", lambda message: message.type == "error" and complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", lambda request: allowed.match(request.url) or troubles.append(f"asked {request.url}"))
        page.goto(f"{served.url}/{path}")
        page.wait_for_selector("[data-panel=where] [data-run]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not [trouble for trouble in troubles if not _expected(trouble)]


def reload(page: Page) -> None:
    """Load a page anew; that answers were on their way to the old one is nobody's mistake."""
    _LEAVING.add(page)
    page.reload()
    _LEAVING.discard(page)


def _expected(trouble: str) -> bool:
    """A page that polls a studio which is down says so; tests that restart it see that."""
    broken = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    return any(name in trouble for name in broken)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight images to upload, all different, with meaningful names."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ("apple", "boat", "cat face", "door", "elephant", "fish", "guitar", "house")
    for index, name in enumerate(names):
        image = Image.new("RGB", (160, 160), "white")
        draw = ImageDraw.Draw(image)
        draw.ellipse((8 * index, 10, 70 + 8 * index, 90 + 6 * index), fill=(30 * index, 90, 255 - 30 * index))
        draw.rectangle((20, 100 - 5 * index, 60 + 9 * index, 150), outline="black", width=3 + index)
        image.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in names]


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The studio's worker shares the machine with the browser."""
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


def barriers(page: Page) -> list[str]:
    """What axe-core finds of WCAG 2.1 A and AA and its own advice, in light and dark, on a desk and on a phone."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    size = page.viewport_size
    assert size is not None
    # Colours on their way from light to dark are nobody's.
    page.emulate_media(reduced_motion="reduce")
    for looks in ("first", "other"):
        for width, height in ((1280, 900), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
            for one in Axe().run(page, options=rules).response["violations"]:
                where = [node["target"] for node in one["nodes"]]
                found.append(f"{looks} looks, {width} px: {one['id']} at {where}: {one['nodes'][0]['failureSummary']}")
        page.locator("[data-looks]").evaluate("button => button.click()")
    page.set_viewport_size(size)
    return found
