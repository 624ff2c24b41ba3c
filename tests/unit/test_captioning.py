"""Captions written by a model: what is left out of them, which models do it, what stays as a person wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_hub import running_hub
from model_hub import settings as hub_settings
from PIL import Image
from tiny_writers import SAYS, tiny_blip, tiny_florence
from typer.testing import CliRunner

from trainer.captioning.folder import work_of, write_captions
from trainer.captioning.kept import Kept
from trainer.captioning.model import CaptionModel
from trainer.captioning.style_words import STYLE_WORDS, content_of, parse_words
from trainer.captioning.writers import Writer, kind_of, locate
from trainer.cli import app
from trainer.errors import BaseError, ConfigError

CPU = torch.device("cpu")
RED = "a red cat on the table"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip(tmp_path_factory.mktemp("writers") / "blip")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images that nobody described, one with a text file, one with a name that says something."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("IMG_1", "red"), ("IMG_2", "blue"), ("IMG_3", "red"), ("green tree", "blue")):
        Image.new("RGB", (90, 60), colour).save(folder / f"{name}.png")
    (folder / "IMG_3.txt").write_text("my own words", encoding="utf-8")
    return folder


# ---- what is shown, not how


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a black and white drawing of a cat sitting on a table", "a cat sitting on a table"),
        ("an illustration of a drawing of a boat", "a boat"),
        ("there is a painting of a house in watercolor style", "a house"),
        ("a cat in the style of van gogh, on a chair", "a cat, on a chair"),
        ("a flat, minimalist vector illustration of an owl", "an owl"),
        ("an abstract red apple on a white background", "a red apple on a white background"),
        ("a stylized owl", "an owl"),
        ("arafed man in a suit", "man in a suit"),
        ("cat, anime, red hair", "cat, red hair"),
        ("The image is a watercolor painting of two girls. The overall style is playful.", "two girls."),
        # Pictures and paints that are shown stay.
        ("a woman holding a drawing of a cat", "a woman holding a drawing of a cat"),
        ("a painting hanging on the wall", "a painting hanging on the wall"),
        ("a black and white cow in a field", "a black and white cow in a field"),
        ("a man drawing a circle", "a man drawing a circle"),
        ("", ""),
        ("cartoon", ""),
    ],
)
def test_a_caption_keeps_what_is_shown_and_loses_how(said: str, shown: str) -> None:
    assert content_of(said) == shown


def test_the_list_is_the_users() -> None:
    own = parse_words("# mine\n* macro shot of, glossy\nin * light\nlit by *\n\n")
    assert own == ("* macro shot of", "glossy", "in * light", "lit by *")
    assert content_of("a close macro shot of a glossy bug in warm evening light, lit by a lamp, alone", own) == (
        "a bug, alone"
    )
    assert content_of("a drawing of a cat", own) == content_of("a drawing of a cat", ()) == "a drawing of a cat"
    assert content_of("a black and white dog", ("black",)) == "a white dog"
    assert parse_words("\n".join(STYLE_WORDS)) == STYLE_WORDS
    with pytest.raises(ConfigError, match="no phrase"):
        parse_words("*")


# ---- the models


def test_blip_looks_at_the_image(model: Path) -> None:
    opened = CaptionModel(model, CPU)
    for colour, said in SAYS.items():
        assert opened.describe(Image.new("RGB", (70, 200), colour)) == said
    with pytest.raises(ConfigError, match="short captions only"):
        opened.describe(Image.new("RGB", (70, 200)), "long")


@pytest.mark.model
def test_florence_is_asked_by_its_own_processor(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tiny_florence(tmp_path / "florence")
    opened, picture = CaptionModel(folder, CPU), Image.new("RGB", (50, 40), "red")
    processor, plain = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    for length, task, most in (("short", "<CAPTION>", 40), ("long", "<DETAILED_CAPTION>", 160)):
        inputs = processor(images=picture, text=task, return_tensors="pt")
        tokens = plain.generate(**inputs, max_new_tokens=most, num_beams=3, no_repeat_ngram_size=3, do_sample=False)
        said = processor.batch_decode(tokens, skip_special_tokens=True)[0].replace("\ufffd", " ")
        assert opened.describe(picture, length) == " ".join(said.split())  # type: ignore[arg-type]


def test_what_is_no_such_model_is_refused_with_a_sentence(tmp_path: Path, model: Path) -> None:
    with pytest.raises(BaseError, match="holds no model that writes captions"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "blip"}', encoding="utf-8")
    with pytest.raises(BaseError, match="has no weights"):
        locate(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseError, match="only as a pickle"):
        locate(str(tmp_path))
    # Another edition's weights: the class would fill what it lacks with noise.
    (tmp_path / "config.json").write_text(
        (model / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 8'), encoding="utf-8"
    )
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    with pytest.raises(BaseError, match=r"does not fit|cannot be read"):
        CaptionModel(tmp_path, CPU)
    with pytest.raises(BaseError, match="writes no captions"):
        locate("no such thing")
    with pytest.raises(BaseError, match="told to stay offline"):
        locate("florence-2")


HUB = """
import json, sys
from trainer.captioning.writers import fetch, fetched_bytes, locate
from trainer.errors import BaseError, ConfigError
try:
    before = locate(sys.argv[1])
    here = fetch(before, *sys.argv[2:])
    again = locate(sys.argv[1], offline=True)
    print(json.dumps([before.download_bytes, fetched_bytes(before), str(here.folder), again == here]))
except (BaseError, ConfigError) as error:
    print(json.dumps(str(error)))
"""


def test_a_model_comes_from_the_hub_once_and_its_size_is_known_before(model: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.models["a/blip"] = model
        pickled = tmp_path / "pickled"
        pickled.mkdir()
        for name, content in (("config.json", b'{"model_type": "blip"}'), ("pytorch_model.bin", b"pickle")):
            (pickled / name).write_bytes(content)
        hub.models["a/pickle"] = pickled
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **hub_settings(hub.address, tmp_path / "cache"),
        }

        def asked(*arguments: str) -> object:
            command = [sys.executable, "-W", "ignore", "-c", HUB, *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert "short captions only" in str(asked("a/blip", "long"))
        assert not any(name.endswith(".safetensors") for name in hub.sent)
        size, arrived, folder, same = asked("a/blip")  # type: ignore[misc]
        assert size == arrived > (model / "model.safetensors").stat().st_size
        assert kind_of(Path(folder)) == "blip"
        assert same
        assert "only as a pickle" in str(asked("a/pickle"))


# ---- a folder of images


def test_only_images_that_nobody_described_get_captions(images: Path, model: Path, tmp_path: Path) -> None:
    kept, opened = Kept(tmp_path / "kept"), 0

    def open_it() -> CaptionModel:
        nonlocal opened
        opened += 1
        return CaptionModel(model, CPU)

    def write(*, replace: bool = False, words: tuple[str, ...] = STYLE_WORDS) -> dict[str, str]:
        work = work_of(images, replace=replace)
        written = write_captions(work, locate(str(model)), open_it, kept, length="short", words=words)
        return {each.name: each.caption for each in written}

    (images / "IMG_4.png").write_bytes(b"no image")
    written = write()
    assert written == {"IMG_1.png": RED, "IMG_2.png": SAYS["blue"], "IMG_4.png": ""}
    assert (images / "IMG_1.txt").read_text(encoding="utf-8") == f"{RED}\n"
    assert (images / "IMG_3.txt").read_text(encoding="utf-8") == "my own words"
    assert not (images / "green tree.txt").exists()
    # All over, with another list: the same images have been looked at, so no model is opened for them.
    (images / "IMG_4.png").unlink()
    (images / "green tree.png").unlink()
    assert write(replace=True, words=())["IMG_3.png"] == SAYS["red"]
    assert opened == 1


def test_what_was_said_is_kept_by_image_model_and_length(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    one, other = Writer("a", None, identity="a@1"), Writer("a", None, identity="a@2")
    kept.put("00", one, "short", "a cat")
    assert kept.get("00", one, "short") == "a cat"
    assert kept.get("01", one, "short") is kept.get("00", other, "short") is kept.get("00", one, "long") is None


def test_the_command_says_what_it_writes_and_what_it_leaves_alone(images: Path, model: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    dry = run(app, ["caption", str(images), "--model", str(model), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert f"IMG_1.png: {RED}" in dry.output
    assert "2 of 2 captions would be written" in dry.output
    assert "1 by a text file" in dry.output
    assert not (images / "IMG_1.txt").exists()
    own = tmp_path / "words.txt"
    own.write_text("red\n", encoding="utf-8")
    done = run(app, ["caption", str(images), "--model", str(model), "--style-words", str(own)])
    assert (images / "IMG_1.txt").read_text(encoding="utf-8") == "a drawing of a cat on the table\n", done.output
    assert "There is nothing to write" in run(app, ["caption", str(images), "--model", str(model)]).output
    assert run(app, ["caption", "--print-style-words"]).output.splitlines() == list(STYLE_WORDS)
    for wrong in (["caption"], ["caption", str(tmp_path / "none")], ["caption", str(images), "--length", "epic"]):
        refused = run(app, [*wrong, "--replace", "--model", str(model)])
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output
