"""Captions that a model writes for a draft: which images get one, what a person does meanwhile, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from model_hub import running_hub
from model_hub import settings as hub_settings
from PIL import Image
from studio_parts import Parts
from tiny_writers import SAYS, tiny_blip

from trainer.captioning.style_words import STYLE_WORDS
from trainer.captioning.writers import Writer
from trainer.errors import ConfigError, StudioError
from trainer.studio import captioning
from trainer.studio.captioning import Captioning, CaptioningView
from trainer.studio.preferences import Preferences
from trainer.studio.worker.pipe import Inbox
from trainer.studio.worker.protocol import Answer, Describe
from trainer.studio.worker.serve import Server

RED = "a red cat on the table"


class Nearby:
    """A keeper whose worker is this process: the real server answers, when ``before`` has been done."""

    def __init__(self, parts: Parts) -> None:
        self.asked: list[Describe] = []
        self.before: Callable[[Describe], Any] = lambda request: None
        self.trains = False
        self._server = Server(parts.home, self, Inbox(), idle_seconds=60)  # type: ignore[arg-type]
        self._answer: Answer | None = None

    def send(self, answer: Answer) -> None:
        self._answer = answer

    def begin(self, request: Describe) -> Future[dict[str, Any]]:
        self.asked.append(request)
        future: Future[dict[str, Any]] = Future()
        if self.before(request) is not None:
            return future
        self._server.serve(request)
        assert self._answer is not None
        if self._answer.message:
            future.set_exception(StudioError(self._answer.message))
        else:
            future.set_result(self._answer.data)
        return future

    def forget(self, ask: str) -> None:
        pass

    def waits_for_training(self, ask: str) -> bool:
        return self.trains


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip(tmp_path_factory.mktemp("writers") / "blip")


@pytest.fixture
def worker(parts: Parts) -> Nearby:
    return Nearby(parts)


@pytest.fixture
def preferences(parts: Parts) -> Preferences:
    return Preferences(parts.store.db)


@pytest.fixture
def writes(parts: Parts, worker: Nearby, preferences: Preferences) -> Captioning:
    return Captioning(parts.home, parts.store, parts.images, worker, preferences)  # type: ignore[arg-type]


@pytest.fixture
def draft(parts: Parts, tmp_path: Path) -> str:
    """Three images: two that nobody described, and one with a name that says something."""
    files = []
    for number, (name, colour) in enumerate((("IMG_1", "red"), ("IMG_2", "blue"), ("tree", "red"))):
        picture = Image.new("RGB", (80, 80), colour)
        # Twins would be left out.
        picture.putpixel((number, number), (0, 0, 0))
        files.append(tmp_path / f"{name}.png")
        picture.save(files[-1])
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, files)
    return run_id


def captions(parts: Parts, run_id: str) -> dict[str, str]:
    return {image.name: image.caption for image in parts.images.images(run_id)}


def ended(writes: Captioning, run_id: str) -> CaptioningView:
    end = time.monotonic() + 60
    while (view := writes.view(run_id)) is None or view.is_open:
        assert time.monotonic() < end, view
        time.sleep(0.01)
    return view


def test_images_without_a_caption_get_one_and_a_person_keeps_theirs(
    parts: Parts, writes: Captioning, worker: Nearby, preferences: Preferences, draft: str, model: Path
) -> None:
    assert writes.start(draft, str(model)) is None
    assert ended(writes, draft) == CaptioningView("done", 2, 2, written=2)
    assert captions(parts, draft) == {"IMG_1.png": RED, "IMG_2.png": SAYS["blue"], "tree.png": "tree"}
    first = parts.images.images(draft)[0]
    assert parts.images.path(draft, first.id).with_suffix(".txt").read_text(encoding="utf-8") == RED

    # What a person changes is theirs from then on; what the model wrote follows another list, without another look.
    second = parts.images.images(draft)[1]
    parts.drafts.set_captions(draft, {second.id: "my dog"})
    preferences.keep_style_words("red")
    writes.start(draft, str(model))
    assert ended(writes, draft).written == 1
    assert captions(parts, draft) == {
        "IMG_1.png": "a drawing of a cat on the table",
        "IMG_2.png": "my dog",
        "tree.png": "tree",
    }
    assert len(worker.asked) == 2
    # Asked for, all are written anew, the third looked at for the first time.
    writes.start(draft, str(model), anew=True)
    assert ended(writes, draft).written == 3
    assert captions(parts, draft)["IMG_2.png"] == SAYS["blue"]
    assert len(worker.asked) == 3


def test_a_caption_that_is_typed_meanwhile_stays(
    parts: Parts, writes: Captioning, worker: Nearby, draft: str, model: Path
) -> None:
    first, second, _ = parts.images.images(draft)

    def type_and_remove(request: Describe) -> None:
        parts.drafts.set_captions(draft, {first.id: "typed"})
        parts.drafts.remove_image(draft, second.id)

    worker.before = type_and_remove
    writes.start(draft, str(model))
    assert ended(writes, draft).written == 0
    assert captions(parts, draft) == {"IMG_1.png": "typed", "tree.png": "tree"}


def test_it_waits_for_a_training_says_so_and_can_be_stopped(
    parts: Parts, writes: Captioning, worker: Nearby, draft: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioning, "LOOK_SECONDS", 0.01)
    worker.trains, worker.before = True, lambda request: "never answered"
    writes.start(draft, str(model))
    end = time.monotonic() + 60
    while (view := writes.view(draft)) is None or view.stage != "waiting":
        assert time.monotonic() < end, view
        time.sleep(0.01)
    with pytest.raises(StudioError, match="already"):
        writes.start(draft, str(model))
    writes.cancel(draft)
    assert ended(writes, draft) == CaptioningView("cancelled", 0, 2)
    # It may be begun again, and ends with the studio.
    writes.start(draft, str(model))
    writes.close()
    assert ended(writes, draft).stage == "cancelled"
    assert captions(parts, draft)["IMG_1.png"] == ""


def test_what_goes_wrong_is_said(
    parts: Parts, writes: Captioning, draft: str, model: Path, preferences: Preferences
) -> None:
    with pytest.raises(ConfigError, match="short captions only"):
        writes.start(draft, str(model), "long")
    preferences.keep_style_words("\n".join(SAYS.values()))
    writes.start(draft, str(model))
    assert ended(writes, draft) == CaptioningView("done", 2, 2, unsaid=2)
    preferences.keep_style_words("\n".join(STYLE_WORDS))
    assert preferences.style_words() == STYLE_WORDS
    preferences.keep_style_words("")
    assert preferences.style_words() == ()
    parts.images.path(draft, parts.images.images(draft)[0].id).unlink()
    writes.start(draft, str(model))
    view = ended(writes, draft)
    assert view.stage == "failed"
    assert "is not there any more" in view.message


def test_a_model_is_downloaded_when_that_was_allowed(
    writes: Captioning, draft: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        hub.models["a/blip"] = model
        settings = {**hub_settings(hub.address, tmp_path / "cache"), "NO_PROXY": "*"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        away = Writer("a/blip", None, "a/blip", files=(("model.safetensors", 1000),))
        monkeypatch.setattr(captioning, "locate", lambda text: away)
        assert writes.start(draft, "a/blip") is away
        assert writes.view(draft) is None
        hub.failing = True
        writes.start(draft, "a/blip", download=True)
        assert "error 500" in ended(writes, draft).message
        hub.failing = False
        writes.start(draft, "a/blip", download=True)
        assert ended(writes, draft).written == 2
