"""Hostile names, captions, prompts and metadata in a real browser: text stays text, and no page breaks."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.reliability.rows import Row
from benchmarks.reliability.served import served

_SCRIPTS = (
    "<script>window.owned=1</script>",
    "<img src=x onerror='window.owned=1'>",
    '"><svg onload=window.owned=1>',
    "'><iframe srcdoc='<script>parent.owned=1</script>'>",
    "javascript:window.owned=1",
    "</textarea><script>window.owned=1</script>",
    "</style><script>window.owned=1</script>",
    "&lt;script&gt;window.owned=1&lt;/script&gt;",
    "{{constructor.constructor('window.owned=1')()}}",
    "${window.owned=1}",
    '<a href="javascript:window.owned=1" autofocus onfocus=window.owned=1>x</a>',
    "<details open ontoggle=window.owned=1>",
    "\u202egnp.exe\u202c",
    "a\u0000b\u001b[31mred",
    "\ud83d\udc69\u200d\ud83d\ude80" * 20,
    "\u0301" * 80,
    "x" * 80,
    "../../../etc/passwd",
    "<!--",
    "%3Cscript%3Ewindow.owned=1%3C/script%3E",
)
_PLACES = ("name", "caption", "file")


def hostile_names(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Each text as a run's name, an image's caption and an uploaded file's name; the Train and Library tabs show it."""
    from playwright.sync_api import sync_playwright

    from trainer.errors import PatinaError
    from trainer.studio.studio import Studio

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("There is no Chromium here.")
    cases = [(place, text) for text in _SCRIPTS for place in _PLACES][:count]
    home, runs = folder / "served", dict[int, str]()
    with Studio(home) as studio:
        for number, (place, text) in enumerate(cases):
            draft = studio.drafts.create({"name": f"Case {number}"})
            upload = _picture(folder / str(number), text if place == "file" else "ball")
            (image,) = studio.drafts.add_images(draft, [upload]).added
            try:
                if place == "name":
                    studio.drafts.update(draft, {"name": text, "trigger": text, "samples.prompts": [text]})
                elif place == "caption":
                    studio.drafts.set_captions(draft, {image: text})
            except PatinaError:
                row.add("refused")
            runs[number] = draft
    with served(folder) as studio_served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        broken: list[str] = []
        page.on("pageerror", lambda error: broken.append(str(error)))

        def asked(dialog: Any) -> None:
            broken.append("a dialog")
            dialog.dismiss()

        page.on("dialog", asked)
        for number, (place, text) in enumerate(cases):
            broken.clear()
            page.goto(f"{studio_served.url}/?run={runs[number]}")
            page.wait_for_selector(f"[data-panel=where] [data-run='{runs[number]}']", state="attached")
            page.wait_for_selector("[data-panel=setup] button", state="attached")
            page.wait_for_timeout(300)
            trouble = ""
            if page.evaluate("window.owned"):
                trouble = "a script ran"
            elif broken:
                trouble = f"the page broke: {broken[0][:100]}"
            row.count(trouble and f"{place} {text[:40]!r}: {trouble}")
        browser.close()


def _picture(folder: Path, name: str) -> Path:
    folder.mkdir()
    kept = "".join(c for c in name if c not in "/\0")[:60].encode("utf-8", "ignore").decode() or "x"
    content: Any = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    path = folder / f"{kept}.png"
    path.write_bytes(content.getvalue())
    return path
