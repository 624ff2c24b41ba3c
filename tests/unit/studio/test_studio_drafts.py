"""DraftImages: images keyed by id, captions, settings, and the plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from studio_parts import Parts

from trainer.bases.describe import BaseInfo
from trainer.config import RunConfig
from trainer.errors import ConfigError, StudioError
from trainer.studio import estimate
from trainer.studio.images import MAX_SIDE, copy_size
from trainer.studio.views import ImageView


@pytest.fixture
def draft(parts: Parts, uploads: list[Path]) -> str:
    run_id = parts.drafts.create({"name": "Shapes", "trigger": "shape style"})
    report = parts.drafts.add_images(run_id, uploads)
    assert len(report.added) == len(uploads)
    assert report.refused == ()
    return run_id


def captions(parts: Parts, run_id: str) -> dict[str, str]:
    return {image.name: image.caption for image in parts.drafts.view(run_id).images}


def ids(parts: Parts, run_id: str) -> dict[str, str]:
    return {image.name: image.id for image in parts.drafts.view(run_id).images}


def test_uploads_become_clean_copies_with_captions_from_their_names(parts: Parts, draft: str) -> None:
    assert captions(parts, draft) == {
        "blue-car.png": "blue car",
        "green_tree.png": "green tree",
        "house2.png": "house2",
        "IMG_0042.png": "",
        "red apple.png": "red apple",
    }
    for image in parts.drafts.view(draft).images:
        assert image.path.parent == parts.home.images(draft)
        assert image.path.with_suffix(".txt").read_text() == image.caption
        with Image.open(image.path) as copy:
            assert (copy.format, copy.mode, copy.size) == ("PNG", "RGB", (128, 128))


def test_what_is_wrong_with_a_file_is_said_by_name_and_the_rest_goes_on(
    parts: Parts, uploads: list[Path], tmp_path: Path
) -> None:
    text, broken, twin = tmp_path / "no image.png", tmp_path / "broken.png", tmp_path / "twin.png"
    text.write_text("this is text")
    broken.write_bytes(uploads[0].read_bytes()[:80])
    shutil.copyfile(uploads[1], twin)
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    run_id = parts.drafts.create()
    report = parts.drafts.add_images(run_id, [text, *uploads, broken, twin, tmp_path / "notes.pdf"])
    assert len(report.added) == 5
    assert sorted(name for name, _ in report.refused) == [
        "blue-car.png",
        "broken.png",
        "no image.png",
        "notes.pdf",
    ] or (sorted(name for name, _ in report.refused) == ["broken.png", "no image.png", "notes.pdf", "twin.png"])
    assert all(sentence.endswith(".") for _, sentence in report.refused)


def test_text_files_and_metadata_become_captions(parts: Parts, uploads: list[Path], tmp_path: Path) -> None:
    # A browser's upload puts every file into a folder of its own.
    for index, (name, text) in enumerate((("IMG_0042.txt", "a lamp"), ("blue-car.txt", "an old car"))):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / name).write_text(text)
    (tmp_path / "m").mkdir()
    listed = tmp_path / "m" / "metadata.jsonl"
    listed.write_text('{"file_name": "house2.png", "text": "a barn"}\n')
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, [*uploads, tmp_path / "0/IMG_0042.txt", tmp_path / "1/blue-car.txt", listed])
    assert captions(parts, run_id) == {
        "blue-car.png": "an old car",
        "green_tree.png": "green tree",
        "house2.png": "a barn",
        "IMG_0042.png": "a lamp",
        "red apple.png": "red apple",
    }


def test_removing_an_image_changes_nothing_else_and_can_be_undone(parts: Parts, draft: str) -> None:
    before = parts.drafts.view(draft)
    key = ids(parts, draft)
    parts.drafts.set_captions(draft, {key["house2.png"]: "a barn"})
    parts.drafts.remove_image(draft, key["green_tree.png"])
    view = parts.drafts.view(draft)
    assert [image.name for image in view.images] == ["blue-car.png", "house2.png", "IMG_0042.png", "red apple.png"]
    assert [image.name for image in view.removed] == ["green_tree.png"]
    assert view.removed[0].path.is_file()
    assert not (parts.home.images(draft) / view.removed[0].path.name).exists()
    assert captions(parts, draft)["house2.png"] == "a barn"
    parts.drafts.restore_image(draft, key["green_tree.png"])
    after = parts.drafts.view(draft)
    assert [image.id for image in after.images] == [image.id for image in before.images]
    assert captions(parts, draft)["green_tree.png"] == "green tree"


def test_a_text_file_finds_its_image_whenever_it_comes_and_in_the_encodings_people_have(
    parts: Parts, draft: str, tmp_path: Path
) -> None:
    (tmp_path / "house2.txt").write_bytes("红色的房子".encode("gbk"))
    (tmp_path / "nobody.txt").write_text("a ghost")
    report = parts.drafts.add_images(draft, [tmp_path / "house2.txt", tmp_path / "nobody.txt"])
    assert captions(parts, draft)["house2.png"] == "红色的房子"
    ((name, sentence),) = report.refused
    assert name == "nobody.txt"
    assert "no image is called nobody" in sentence


def test_an_iphone_photo_is_taken_in(parts: Parts, fixtures: Path) -> None:
    run_id = parts.drafts.create()
    report = parts.drafts.add_images(run_id, [fixtures / "turned.heic"])
    assert report.refused == ()
    (image,) = parts.drafts.view(run_id).images
    assert (image.width, image.height) == (40, 60)


def test_uploading_a_removed_image_again_brings_it_back_with_its_caption(
    parts: Parts, draft: str, uploads: list[Path]
) -> None:
    key = ids(parts, draft)["red apple.png"]
    parts.drafts.set_captions(draft, {key: "one fruit"})
    parts.drafts.remove_image(draft, key)
    assert parts.drafts.add_images(draft, [uploads[0]]).added == (key,)
    assert captions(parts, draft)["red apple.png"] == "one fruit"


def test_caption_helpers_touch_only_what_they_should(parts: Parts, draft: str) -> None:
    assert parts.drafts.captions_add(draft, "ink") == 5
    assert parts.drafts.captions_add(draft, "ink") == 0
    assert captions(parts, draft)["red apple.png"] == "red apple, ink"
    assert captions(parts, draft)["IMG_0042.png"] == "ink"
    assert parts.drafts.captions_replace(draft, "red", "green") == 1
    assert captions(parts, draft)["red apple.png"] == "green apple, ink"
    key = ids(parts, draft)["green_tree.png"]
    parts.drafts.set_captions(draft, {key: ""})
    assert parts.drafts.captions_from_names(draft) == 1
    assert captions(parts, draft)["green_tree.png"] == "green tree"


def test_a_caption_for_an_image_that_is_gone_is_refused_and_changes_nothing(parts: Parts, draft: str) -> None:
    before = captions(parts, draft)
    key = ids(parts, draft)["house2.png"]
    with pytest.raises(StudioError, match="Reload the page"):
        parts.drafts.set_captions(draft, {key: "changed", "nothing": "x"})
    assert captions(parts, draft) == before


def test_findings_of_the_upload_and_of_the_set_are_both_there(
    parts: Parts, uploads: list[Path], tmp_path: Path
) -> None:
    turned = tmp_path / "turned photo.jpg"
    with Image.open(uploads[0]) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.convert("RGB").save(turned, exif=exif)
        wide = image.resize((600, 60))
    wide.save(tmp_path / "wide.png")
    Image.open(uploads[1]).resize((126, 126)).save(tmp_path / "alike.png")
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, [*uploads, turned, tmp_path / "wide.png", tmp_path / "alike.png"])
    kinds = {(image.name, finding.kind) for image in parts.drafts.view(run_id).images for finding in image.findings}
    assert ("turned photo.jpg", "rotated") in kinds
    assert ("wide.png", "aspect") in kinds
    assert {name for name, kind in kinds if kind == "near_duplicate"} & {"alike.png", "blue-car.png"}
    assert ("IMG_0042.png", "caption_missing") in kinds


def test_the_crop_is_what_training_will_use(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    Image.new("RGB", (300, 100), "white").save(file)
    run_id = parts.drafts.create({"data.buckets": False, "data.resolution": 96})
    parts.drafts.add_images(run_id, [file])
    (image,) = parts.drafts.view(run_id).images
    assert image.crop == (100, 0, 200, 100)
    assert image.bucket == (96, 96)


def test_the_size_of_a_copy_is_known_without_opening_it(parts: Parts, tmp_path: Path) -> None:
    run_id = parts.drafts.create()
    for size in ((MAX_SIDE + 500, 301), (333, MAX_SIDE * 2 + 1)):
        file = tmp_path / f"{size[0]}.png"
        Image.new("RGB", size, "white").save(file)
        (image_id,) = parts.drafts.add_images(run_id, [file]).added
        with Image.open(parts.home.images(run_id) / f"{image_id}.png") as copy:
            assert copy.size == copy_size(*size)


def test_settings_are_checked_as_a_whole_and_reset_with_none(parts: Parts, draft: str) -> None:
    parts.drafts.update(draft, {"optim.learning_rate": 1e-4, "train.steps": 50})
    assert parts.store.get(draft).settings["train"] == {"steps": 50}
    with pytest.raises(ConfigError, match=r"adapter\.rank"):
        parts.drafts.update(draft, {"train.steps": 60, "adapter.rank": 0})
    assert parts.store.get(draft).settings["train"] == {"steps": 50}
    with pytest.raises(ConfigError, match=r"did you mean train\.steps"):
        parts.drafts.update(draft, {"train.stepps": 60})
    parts.drafts.update(draft, {"train.steps": None})
    assert "steps" not in parts.store.get(draft).settings.get("train", {})
    parts.drafts.update(draft, {"name": "Forms"})
    assert parts.store.get(draft).name == "Forms"


def test_the_plan_says_what_the_engine_will_choose(parts: Parts, draft: str) -> None:
    plan = parts.drafts.plan(draft)
    assert (plan.images, plan.rank, plan.problem, plan.source) == (5, 8, "", "estimated")
    assert plan.steps == plan.choices["train.steps"]
    assert plan.seconds is not None
    assert plan.seconds > 0
    parts.drafts.update(draft, {"train.steps": 33, "adapter.rank": 4})
    changed = parts.drafts.plan(draft)
    assert (changed.steps, changed.rank) == (33, 4)
    assert "train.steps" not in changed.choices
    assert plan.file_bytes is not None
    assert changed.file_bytes is not None
    assert changed.file_bytes < plan.file_bytes


def test_a_run_of_the_same_kind_tells_the_next_ones_time(parts: Parts, draft: str) -> None:
    config = parts.drafts.ready(draft)
    full = estimate.resolved(config, parts.bases.of(config), 5)
    parts.past.note("earlier", estimate.kind_of(full, "cpu"), 2.0, 123)
    plan = parts.drafts.plan(draft)
    assert plan.source == "measured"
    assert plan.memory_bytes == 123
    assert plan.seconds is not None
    assert plan.seconds > 2.0 * plan.steps


def test_several_cards_are_another_kind_of_run_and_take_shares_of_a_batch(parts: Parts, draft: str) -> None:
    parts.drafts.update(draft, {"optim.batch_size": 8})
    alone, kind = parts.drafts.plan(draft), estimate.kind_of(parts.drafts.ready(draft), "cpu")
    parts.drafts.update(draft, {"train.gpus": 4})
    assert parts.drafts.plan(draft).seconds < alone.seconds  # type: ignore[operator]
    assert parts.drafts.plan(draft).memory_bytes < alone.memory_bytes  # type: ignore[operator]
    assert estimate.kind_of(parts.drafts.ready(draft), "cpu") != kind


def test_a_run_that_other_programs_held_up_does_not_scare_the_next_ones_plan(parts: Parts, draft: str) -> None:
    config = parts.drafts.ready(draft)
    kind = estimate.kind_of(estimate.resolved(config, parts.bases.of(config), 5), "cpu")
    for run, seconds, busy in (("a", 1.0, 0.02), ("b", 1.2, 0.1), ("c", 1.1, 0.0)):
        parts.past.note(run, kind, seconds, 100, busy)
    quiet = parts.drafts.plan(draft)
    parts.past.note("d", kind, 30.0, 100, 0.9)
    after = parts.drafts.plan(draft)
    assert quiet.seconds == after.seconds
    assert quiet.seconds is not None
    assert quiet.seconds < 1.3 * quiet.steps
    assert [note for note in after.notes if "kept this machine busy" in note]
    assert not [note for note in quiet.notes if "busy" in note]


def test_with_none_but_busy_runs_the_quickest_of_them_tells_the_time(parts: Parts, draft: str) -> None:
    config = parts.drafts.ready(draft)
    kind = estimate.kind_of(estimate.resolved(config, parts.bases.of(config), 5), "cpu")
    for run, seconds in (("a", 9.0), ("b", 4.0), ("c", 7.0)):
        parts.past.note(run, kind, seconds, 100, 0.5)
    past = parts.past.get(kind)
    assert past is not None
    assert (past.seconds_per_step, past.last_was_busy) == (4.0, True)


def test_a_plan_that_needs_more_memory_than_is_free_says_what_to_do(parts: Parts, draft: str) -> None:
    config = parts.drafts.ready(draft)
    full = estimate.resolved(config, parts.bases.of(config), 5)
    parts.past.note("earlier", estimate.kind_of(full, "cpu"), 2.0, 2**60)
    (note,) = [note for note in parts.drafts.plan(draft).notes if "free at the moment" in note]
    assert note.endswith("Close other programs, or choose a smaller resolution or batch.")


def test_the_plan_says_what_other_programs_will_lose(parts: Parts, draft: str) -> None:
    (note,) = [note for note in parts.drafts.plan(draft).notes if "A1111" in note]
    assert "know no base of this kind" in note

    info = BaseInfo("some/base", kind="hub", family="sd1")
    for targets, said in (
        ("attention", ()),
        ("self", ("InvokeAI does not open it",)),
        ("conv_in|.*attn2.*", ("stable-diffusion.cpp leave out 1 of 65 layers (conv_in): they have no place there",)),
        ("nothing", ()),
    ):
        config = RunConfig()
        config.adapter.targets = targets
        found = estimate.foretold(config, info)
        assert len(found) == len(said)
        assert all(each in sentence for each, sentence in zip(said, found, strict=True))


def test_a_plan_without_images_or_with_a_bad_base_says_the_problem(parts: Parts, draft: str) -> None:
    empty = parts.drafts.create()
    assert "no images yet" in parts.drafts.plan(empty).problem
    parts.drafts.update(draft, {"base.source": "bundle"})
    assert "bundled" in parts.drafts.plan(draft).problem


def test_a_duplicate_has_the_images_captions_and_settings(parts: Parts, draft: str) -> None:
    parts.drafts.update(draft, {"adapter.rank": 16})
    parts.drafts.set_captions(draft, {ids(parts, draft)["house2.png"]: "a barn"})
    twin = parts.drafts.duplicate(draft)
    origin = parts.drafts.view(twin).origin
    assert origin is not None
    assert (origin.run, origin.without) == (draft, "")
    assert parts.drafts.view(draft).origin is None
    assert captions(parts, twin) == captions(parts, draft)
    assert parts.store.get(twin).settings["adapter"] == {"rank": 16}
    assert parts.store.get(twin).name == "Shapes again"
    parts.drafts.set_captions(twin, {ids(parts, twin)["house2.png"]: "a shed"})
    assert captions(parts, draft)["house2.png"] == "a barn"


def test_images_of_a_run_that_started_are_left_alone(parts: Parts, draft: str, uploads: list[Path]) -> None:
    parts.runs.enqueue(draft)
    for action in (
        lambda: parts.drafts.add_images(draft, uploads),
        lambda: parts.drafts.set_captions(draft, {}),
        lambda: parts.drafts.remove_image(draft, ids(parts, draft)["house2.png"]),
    ):
        with pytest.raises(StudioError, match="Duplicate it"):
            action()


def test_a_sample_style_is_a_draft_that_is_ready_to_train(parts: Parts, sample_data_dir: Path) -> None:
    from trainer.studio.drafts import sample_sets

    sets = sample_sets()
    assert {each.folder.parent for each in sets} == {sample_data_dir}
    run_id = parts.drafts.create_from_samples(sets[0].name)
    view = parts.drafts.view(run_id)
    assert len(view.images) == sets[0].images == 16
    assert all(image.caption for image in view.images)
    assert parts.drafts.plan(run_id).problem == ""


def test_tokens_are_counted_as_the_text_encoder_will(parts: Parts, draft: str, bundled_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled_dir / "tokenizer")
    counts = parts.drafts.token_counts(draft)
    for image in parts.drafts.view(draft).images:
        text = ", ".join(part for part in (image.caption, "shape style") if part)
        found = counts[image.id]
        assert found.total == len(tokenizer(text, truncation=False).input_ids) - 2
        assert found.window_limit == tokenizer.model_max_length - 2
        assert found.limit == 3 * found.window_limit


def test_tokens_of_published_bases_are_counted_by_the_shared_vocabulary() -> None:
    from transformers import CLIPTokenizer

    from trainer.bases.describe import BaseInfo
    from trainer.bases.sources import BUNDLED_FOLDER
    from trainer.bases.tokens import counted, counted_prompt, token_count, token_limit

    folder = BUNDLED_FOLDER.parent / "configs" / "clip_tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    info = BaseInfo(source="somebody/model", kind="hub", family="sd1")
    for text in ("A red apple, ink style", "it's 42   o'clock!!", "Fähre über den Fluß", "naïve café (1.2)", ""):
        assert token_count(text, info) == len(tokenizer(text, truncation=False).input_ids) - 2, text
    assert token_limit(info) == 225
    # The borders between windows: behind the last comma, then wherever a window is full.
    assert counted("a big red ripe apple, " * 14, info).windows == (72, 12)
    long = counted("apple " * 300, info)
    assert (long.windows, long.lost, long.total) == ((75, 75, 75), 75, 300)
    assert long.written == "75 + 75 + 150"
    asked = counted_prompt("(apple:1.3) and [a \\(pear\\)] BREAK " + "apple, BREAK " * 3, info)
    assert (asked.windows, asked.lost) == ((6, 2, 2), 2)


def test_half_a_character_in_a_caption_is_put_together_or_marked(parts: Parts, uploads: list[Path]) -> None:
    run_id = parts.drafts.create()
    parts.drafts.add_images(run_id, uploads[:1])
    (image,) = parts.drafts.view(run_id).images
    parts.drafts.set_captions(run_id, {image.id: "a \ud83d\ude00 and \ud83d"})
    (image,) = parts.drafts.view(run_id).images
    assert image.caption == "a \U0001f600 and \ufffd"
    assert image.path.with_suffix(".txt").read_text(encoding="utf-8") == image.caption


def test_an_image_comes_more_often_when_asked_and_its_run_is_told(parts: Parts, draft: str) -> None:
    car = ids(parts, draft)["blue-car.png"]
    parts.drafts.repeat_image(draft, car, 3)
    parts.drafts.repeat_image(draft, ids(parts, draft)["house2.png"], 2)
    parts.drafts.repeat_image(draft, ids(parts, draft)["house2.png"], 1)
    assert {image.name: image.repeats for image in parts.drafts.view(draft).images if image.repeats > 1} == {
        "blue-car.png": 3
    }
    assert parts.drafts.ready(draft).data.repeats == [f"{car}=3"]
    assert parts.drafts.ready(parts.drafts.duplicate(draft)).data.repeats == [f"{car}=3"]
    # By the name that a file had, as a command would say it.
    parts.drafts.update(draft, {"data.repeats": ["blue-car.png=4"]})
    assert parts.drafts.ready(draft).data.repeats == [f"{car}=4"]
    # What should stay in the middle of an image's crop is said by that name too.
    parts.drafts.update(draft, {"data.focus": [f"{car}.png=0.75,0.5"]})
    assert parts.drafts.ready(draft).data.focus == [f"{car}=0.75,0.5"]
    parts.drafts.update(draft, {"data.focus": ["blue-car.png=0.25,0.5", "nowhere.png=0.1,0.1"]})
    assert parts.drafts.ready(draft).data.focus == [f"{car}=0.25,0.5"]
    other = parts.drafts.duplicate(draft)
    assert parts.drafts.ready(other).data.focus == [f"{car}=0.25,0.5"]
    parts.drafts.focus_image(other, car, (1.5, 0.75))
    assert parts.drafts.ready(other).data.focus == [f"{car}=1,0.75"]
    empty = parts.drafts.create()
    parts.drafts.add_set(empty, other)
    assert parts.drafts.ready(empty).data.focus == [f"{car}=1,0.75"]
    for wrong in (0, 1001):
        with pytest.raises(ConfigError, match=r"data\.repeats holds .* from 1 to 1000 times"):
            parts.drafts.repeat_image(draft, car, wrong)


def test_a_number_before_a_folder_s_name_is_how_often_its_images_come(parts: Parts, uploads: list[Path]) -> None:
    run_id = parts.drafts.create()
    folders = {uploads[0]: "10_cats", uploads[1]: "5_dogs", uploads[2]: "birds", uploads[3]: "5000_stars"}
    broken = uploads[0].with_name("broken.png")
    broken.write_bytes(b"")
    parts.drafts.add_images(run_id, [*uploads, broken], {**folders, broken: "3_broken"})
    repeats = {image.name: image.repeats for image in parts.drafts.view(run_id).images}
    assert [repeats[path.name] for path in uploads] == [10, 5, 1, 1000, 1]


def test_the_images_of_another_run_are_added_once_with_all_that_is_said_of_them(
    parts: Parts, draft: str, uploads: list[Path]
) -> None:
    car, house = ids(parts, draft)["blue-car.png"], ids(parts, draft)["house2.png"]
    parts.drafts.set_captions(draft, {car: "a blue car"})
    parts.drafts.crop_image(draft, car, (0.25, 0.0, 1.0, 0.5))
    parts.drafts.repeat_image(draft, car, 3)
    other = parts.drafts.create({"name": "Other"})
    parts.drafts.add_images(other, [uploads[-1]])
    own = parts.drafts.view(other).images[0].id
    parts.drafts.set_captions(other, {own: "mine"})
    # Two runs with the same images are one set.
    again = parts.drafts.duplicate(draft)
    assert [(each.run, each.images) for each in parts.drafts.sets(other)] == [(again, 5)]
    parts.drafts.add_set(other, draft)
    images = {image.id: image for image in parts.drafts.view(other).images}
    assert len(images) == 5
    assert (images[own].caption, next(iter(images))) == ("mine", own)
    assert (images[car].caption, images[car].part, images[car].repeats) == ("a blue car", True, 3)
    assert images[house].path.is_file()
    assert parts.drafts.sets(other) == []


def test_a_part_of_an_image_is_chosen_and_the_whole_brought_back(parts: Parts, draft: str) -> None:
    def image(run_id: str = draft) -> ImageView:
        return next(one for one in parts.drafts.view(run_id).images if one.name == "blue-car.png")

    whole = image()
    before = whole.path.read_bytes()
    parts.drafts.crop_image(draft, whole.id, (0.25, 0.0, 1.0, 0.5))
    assert ((image().width, image().height), image().part) == ((96, 64), True)
    with Image.open(image().path) as part, Image.open(parts.home.whole_images(draft) / f"{whole.id}.png") as kept:
        assert part.tobytes() == kept.crop((32, 0, 128, 64)).tobytes()
    # A part of that part, in another run that begins with the same images.
    again = parts.drafts.duplicate(draft)
    parts.drafts.crop_image(again, whole.id, (0.0, 0.0, 0.5, 1.0))
    assert (image(again).width, image(again).height, image().width) == (48, 64, 96)
    for run_id in (draft, again):
        parts.drafts.crop_image(run_id, whole.id, None)
        assert (image(run_id).path.read_bytes(), image(run_id).part) == (before, False)
    with pytest.raises(StudioError, match="choose a larger one"):
        parts.drafts.crop_image(draft, whole.id, (0.0, 0.0, 0.1, 1.0))
    with pytest.raises(StudioError, match="not there any more"):
        parts.drafts.crop_image(draft, "no such image", None)
