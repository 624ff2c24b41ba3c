"""The doctor finds what is wrong with a folder and says what will be done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from trainer.data.dataset import Dataset
from trainer.data.doctor import about_the_set, examine
from trainer.data.folder import natural_key
from trainer.errors import ConfigError, DatasetError
from trainer.findings import Finding


def drawing(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A drawing of its own for every seed: three shapes on white."""
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    for i in range(3):
        x, y = (seed * 17 + i * 23) % 40, (seed * 29 + i * 11) % 40
        colour = ((seed * 71 + i * 90) % 256, (seed * 37) % 256, (seed * 53 + i * 60) % 256)
        draw.ellipse((x, y, x + 12 + seed % 10, y + 20), fill=colour)
    return image.resize(size)


def put(folder: Path, name: str, image: Image.Image | None = None, **options: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # A drawing per name that is the same in every process, unlike hash().
    (image or drawing(sum(map(ord, name)))).save(path, **options)
    return path


def look(source: Path | Sequence[Path], **options: object) -> Dataset:
    return examine(source, **({"resolution": 64, "multiple": 16} | options))  # type: ignore[arg-type]


def noticed(dataset: Dataset) -> list[Finding]:
    """What is said of single images."""
    return [finding for finding in dataset.findings if finding.image]


def said(dataset: Dataset, kind: str) -> list[tuple[str, str]]:
    return [(f.image, f.severity) for f in dataset.findings if f.kind == kind]


def test_a_good_folder_gives_examples_and_nothing_to_say(tmp_path: Path) -> None:
    for name in ("red apple.png", "blue boat.jpg"):
        put(tmp_path, name)
    dataset = look(tmp_path, trigger="ink style")
    assert noticed(dataset) == []
    boat, apple = dataset.examples
    assert (boat.name, apple.name) == ("blue boat.jpg", "red apple.png")
    assert (apple.content, apple.caption) == ("red apple", "red apple, ink style")
    assert apple.caption_source == "name"
    assert (apple.width, apple.height, apple.bucket) == (64, 64, (64, 64))
    assert apple.crop == (0, 0, 64, 64)
    assert apple.path == tmp_path / "red apple.png"


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 2, 1, 33):
        put(tmp_path, f"cat {i}.png", drawing(i))
    put(tmp_path, "Bee.png", drawing(5))
    names = [e.name for e in look(tmp_path).examples]
    assert names == ["Bee.png", "cat 1.png", "cat 2.png", "cat 10.png", "cat 33.png"]
    assert natural_key("a٣") < natural_key("b")


def test_bad_images_are_left_out_and_the_good_ones_stay(tmp_path: Path) -> None:
    put(tmp_path, "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(put(tmp_path, "whole.jpg").read_bytes()[:700])
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["good.png", "whole.jpg"]
    assert said(dataset, "unreadable") == [
        ("cut.jpg", "skipped"),
        ("empty.png", "skipped"),
        ("phone.heic", "skipped"),
        ("text.png", "skipped"),
    ]


def test_what_is_done_on_opening_a_file_is_said(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    put(tmp_path, "red turned.jpg", drawing(1, (64, 48)), exif=turned)
    put(tmp_path, "red moving.gif", drawing(2), save_all=True, append_images=[drawing(3)])
    ghost = drawing(4).convert("RGBA")
    ghost.putalpha(Image.linear_gradient("L").resize(ghost.size))
    put(tmp_path, "red ghost.png", ghost)
    dataset = look(tmp_path, background="#ff0000")
    assert said(dataset, "rotated") == [("red turned.jpg", "note")]
    assert said(dataset, "animated") == [("red moving.gif", "note")]
    assert said(dataset, "transparent") == [("red ghost.png", "note")]
    (transparent,) = [f for f in dataset.findings if f.kind == "transparent"]
    assert transparent.action == "laid over #ff0000"
    upright = {e.name: (e.width, e.height) for e in dataset.examples}
    assert upright["red turned.jpg"] == (48, 64)


def test_small_images_are_enlarged_and_specks_left_out(tmp_path: Path) -> None:
    put(tmp_path, "little cat.png", drawing(1, (32, 32)))
    put(tmp_path, "nearly cat.png", drawing(2, (60, 60)))
    put(tmp_path, "speck.png", drawing(3, (15, 200)))
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["little cat.png", "nearly cat.png"]
    assert said(dataset, "too_small") == [
        ("little cat.png", "warning"),
        ("nearly cat.png", "note"),
        ("speck.png", "skipped"),
    ]
    assert "enlarged 2.0 times" in dataset.findings[0].action


def test_a_panorama_is_cropped_and_said_so(tmp_path: Path) -> None:
    put(tmp_path, "wide hills.png", drawing(1, (640, 100)))
    dataset = look(tmp_path)
    (example,) = dataset.examples
    assert example.bucket == (80, 48)
    assert example.crop == (236, 0, 403, 100)
    assert said(dataset, "aspect") == [("wide hills.png", "warning")]
    (finding,) = noticed(dataset)
    assert "26%" in finding.action


def test_without_bucketing_all_are_squares(tmp_path: Path) -> None:
    put(tmp_path, "wide hills.png", drawing(1, (160, 96)))
    put(tmp_path, "tall tree.png", drawing(2, (96, 160)))
    assert {e.bucket for e in look(tmp_path, bucketing=False).examples} == {(64, 64)}
    dataset = look(tmp_path)
    assert sorted(example.bucket for example in dataset.examples) == [(48, 80), (80, 48)]


def test_the_same_file_twice_is_used_once(tmp_path: Path) -> None:
    put(tmp_path, "cat a.png", drawing(1))
    put(tmp_path, "cat b.png", drawing(1))
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["cat a.png"]
    assert said(dataset, "exact_duplicate") == [("cat b.png", "skipped")]


def test_a_resized_and_resaved_copy_is_noticed(tmp_path: Path) -> None:
    put(tmp_path, "cat a.png", drawing(1, (128, 128)))
    put(tmp_path, "cat b.jpg", drawing(1, (96, 96)), quality=80)
    dataset = look(tmp_path)
    assert len(dataset.examples) == 2
    assert said(dataset, "near_duplicate") == [("cat b.jpg", "warning")]
    assert "cat a.png" in dataset.findings[0].message


def test_different_drawings_on_white_are_no_duplicates(tmp_path: Path) -> None:
    for i in range(30):
        put(tmp_path, f"cat {i}.png", drawing(i))
    recoloured = Image.merge("RGB", [drawing(1).getchannel(c) for c in "BRG"])
    put(tmp_path, "cat recoloured.png", recoloured)
    put(tmp_path, "small dot.png", _dot(10))
    put(tmp_path, "small dot elsewhere.png", _dot(40))
    assert said(look(tmp_path), "near_duplicate") == []


def _dot(at: int) -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((at, at, at + 14, at + 14), fill="black")
    return image


def test_missing_captions_matter_less_with_a_trigger(tmp_path: Path) -> None:
    put(tmp_path, "IMG_1.png")
    with_trigger = look(tmp_path, trigger="ink style")
    assert with_trigger.examples[0].caption == "ink style"
    assert said(with_trigger, "caption_missing") == [("IMG_1.png", "note")]
    without = look(tmp_path)
    assert without.examples[0].caption == ""
    assert said(without, "caption_missing") == [("IMG_1.png", "warning")]


def test_a_caption_that_the_text_encoder_cuts_is_noticed(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("one two three")

    def count(text: str) -> int:
        return len(text.split())

    assert said(look(tmp_path, count_tokens=count, token_limit=3), "caption_long") == []
    long = look(tmp_path, count_tokens=count, token_limit=3, trigger="ink")
    assert said(long, "caption_long") == [("a.png", "warning")]


def test_a_caption_in_latin_1_stops_with_the_files_name(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"a\.txt is not saved as UTF-8"):
        look(tmp_path)


def test_subfolders_are_read_one_level_deep(tmp_path: Path) -> None:
    put(tmp_path, "10_ink/red cat.png")
    put(tmp_path, "birds/blue bird.png")
    put(tmp_path, "birds/deep/lost bird.png")
    (tmp_path / "birds" / "blue bird.txt").write_text("a bird")
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["10_ink/red cat.png", "birds/blue bird.png"]
    assert dataset.examples[1].caption == "a bird"
    assert said(dataset, "repeats") == [("10_ink", "note")]
    assert said(dataset, "not_read") == [("birds/deep", "note")]


def test_what_systems_hide_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "red cat.png")
    put(tmp_path, "._red cat.png", drawing(2))
    put(tmp_path, ".thumbnails/a.png", drawing(3))
    put(tmp_path, "__MACOSX/b.png", drawing(4))
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "notes.md").write_text("notes")
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["red cat.png"]
    assert noticed(dataset) == []


def test_a_training_kept_among_the_images_gives_it_no_images(tmp_path: Path) -> None:
    put(tmp_path, "red cat.png")
    put(tmp_path, "first try/sheet.png")
    (tmp_path / "first try" / "config.toml").write_text("", encoding="utf-8")
    dataset = look(tmp_path)
    assert [e.name for e in dataset.examples] == ["red cat.png"]
    assert said(dataset, "not_read") == [("first try", "note")]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret.png", drawing(8))
    folder = tmp_path / "images"
    put(folder, "red cat.png")
    try:
        (folder / "link.png").symlink_to(outside)
        (folder / "linked").symlink_to(outside.parent)
    except OSError:
        pytest.skip("links cannot be made here")
    dataset = look(folder)
    assert [e.name for e in dataset.examples] == ["red cat.png"]
    assert said(dataset, "not_read") == [("link.png", "note"), ("linked", "note")]


def test_captions_are_judged_as_a_set_too(tmp_path: Path) -> None:
    for number in range(6):
        put(tmp_path, f"IMG_{number}.png", drawing(number + 3))
    (tmp_path / "IMG_1.txt").write_text("红苹果", encoding="gb18030")
    (tmp_path / "IMG_2.txt").write_text("a cat", encoding="utf-8")
    (tmp_path / "IMG_9.txt").write_text("a dog", encoding="utf-8")
    dataset = look(tmp_path)
    assert said(dataset, "caption_encoding") == [("IMG_1.png", "note")]
    assert said(dataset, "caption_unmatched") == [("IMG_9.txt", "warning")]
    assert [(f.kind, f.message) for f in dataset.findings if not f.image] == [
        ("caption_missing", "4 of 6 images have no caption"),
        ("caption_language", "1 of 6 captions is not in English"),
    ]


def test_too_few_and_too_many_images_are_said() -> None:
    assert [f.kind for f in about_the_set([], "")] == ["no_images"]
    assert [f.message for f in about_the_set(["a"], "")] == ["1 image is not much"]
    assert about_the_set(["a"] * 5, "") == about_the_set(["a"] * 200, "") == []
    assert [f.kind for f in about_the_set(["a"] * 201, "")] == ["many_images"]
    (without,) = about_the_set([""] * 6, "ink")
    assert without.severity == "note", "the trigger stands for the missing captions"


def test_a_pipe_named_like_an_image_is_left_out_at_once(tmp_path: Path) -> None:
    put(tmp_path, "red cat.png")
    try:
        os.mkfifo(tmp_path / "pipe.png")
    except (AttributeError, OSError):
        pytest.skip("pipes cannot be made here")
    assert said(look(tmp_path), "unreadable") == [("pipe.png", "skipped")]


def test_files_can_be_given_instead_of_a_folder(tmp_path: Path) -> None:
    files = [put(tmp_path, "x/b.png", drawing(1)), put(tmp_path, "y/a.png", drawing(2))]
    put(tmp_path, "x/unwanted.png")
    assert [e.name for e in look(files).examples] == ["x/b.png", "y/a.png"]
    with pytest.raises(DatasetError, match="No images were given"):
        look([])


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"There is no folder .*nowhere: check the path"):
        look(tmp_path / "nowhere")
    file = put(tmp_path, "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is a file: give the folder"):
        look(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match=r"There are no images in .*empty"):
        look(empty)
    (empty / "a.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"No image in .*: a\.png is empty .* its source\.$"):
        look(empty)
    put(empty, "b.png", drawing(1, (4, 4)))
    with pytest.raises(DatasetError, match="and 1 more"):
        look(empty)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(DatasetError, match=r"closed cannot be read"):
        look(closed)


def test_a_wrong_background_is_a_setting_and_no_image_error(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(ConfigError, match=r"data\.background"):
        look(tmp_path, background="bleu")


def test_progress_counts_every_image(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    calls: list[tuple[int, int]] = []
    look(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_images_come_as_often_as_their_folder_or_a_setting_says(tmp_path: Path) -> None:
    for name in ("10_cats/a.png", "10_cats/b.png", "5_dogs/c.png", "birds/d.png"):
        put(tmp_path, name)

    def repeats(**wanted: int) -> dict[str, int]:
        names = {name.replace("_png", ".png"): count for name, count in wanted.items()}
        return {example.path.stem: example.repeats for example in look(tmp_path, repeats=names).examples}

    assert repeats() == {"a": 10, "b": 10, "c": 5, "d": 1}
    # Whole numbers as small as they can be: a folder alone is no longer because of its name.
    assert repeats(birds=5) == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert repeats(birds=5, b_png=20) == {"a": 2, "b": 4, "c": 1, "d": 1}
    assert [example.repeats for example in look(tmp_path / "10_cats").examples] == [1, 1]


def test_a_dataset_survives_being_written_down(tmp_path: Path) -> None:
    put(tmp_path, "käse/red cat.png", drawing(1, (100, 60)))
    (tmp_path / "bad.png").write_bytes(b"")
    put(tmp_path, "blue boat.png")
    dataset = look(tmp_path, trigger="ink", repeats={"blue boat": 3})
    assert {example.repeats for example in dataset.examples} == {1, 3}
    text = dataset.to_json()
    assert "käse/red cat.png" in text
    assert Dataset.from_json(text) == dataset


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop("examples"), "damaged"),
        (lambda d: d["examples"][0].pop("sha256"), "damaged.*sha256"),
        (lambda d: d["examples"][0].update(crop=[0, 0, 9999, 4]), "damaged.*lies outside"),
        (lambda d: d["examples"][0].update(caption_source="guess"), "damaged.*guess"),
        (lambda d: d["examples"][0].update(bucket=[64]), "damaged"),
        (lambda d: d.update(version=99), "version 99"),
    ],
)
def test_a_damaged_dataset_file_is_one_sentence(tmp_path: Path, change: object, reason: str) -> None:
    put(tmp_path, "a.png")
    document = json.loads(look(tmp_path).to_json())
    change(document)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=reason):
        Dataset.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_a_torn_dataset_file_is_one_sentence(text: str) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
        Dataset.from_json(text)
