"""The base's data set: which icons are taken, what they are called, and that splits keep what they promise."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.base import captions, colours, dataset, icon_sets
from tools.base.dataset import Entry, IconData
from tools.base.icon_sets import TRAINING_SETS, Icon
from tools.base.subjects import (
    COLOUR_PROMPTS,
    COMMON_SUBJECTS,
    KNOWN_SUBJECTS,
    ODD_DRAWINGS,
    PLAIN_NAMES,
    RECOLOURED_SUBJECTS,
    SHEET_PROMPTS,
)


def icon(name: str, set_key: str = "noto", *, category: str = "Objects", synonyms: tuple[str, ...] = ()) -> Icon:
    return Icon(set_key=set_key, name=name, synonyms=synonyms, category=category, svg="<svg/>")


def entry(subject: str, split: str = "train", set_key: str = "noto") -> Entry:
    return Entry(set_key=set_key, name=subject, subject=subject, captions=(subject,), split=split, weight=1.0)


def test_sample_styles_and_evaluation_drawings_are_never_trained_on() -> None:
    trained = {icon_set.package for icon_set in TRAINING_SETS}
    reserved = {"fluent-emoji-high-contrast", "streamline-emojis", "openmoji", "fxemoji"}
    assert trained.isdisjoint({f"@iconify-json/{name}" for name in reserved})
    assert {icon_set.licence for icon_set in TRAINING_SETS} <= {"MIT", "Apache-2.0", "CC-BY-4.0"}


def test_an_archive_is_named_as_npm_pack_names_it() -> None:
    assert TRAINING_SETS[0].archive == "iconify-json-noto-1.2.9.tgz"


def test_an_alias_is_a_synonym_only_if_it_shows_the_same_picture() -> None:
    icons = {
        "width": 32,
        "height": 32,
        "icons": {"left": {"body": "<path fill='currentColor'/>"}, "gone": {"body": "", "hidden": True}},
        "aliases": {"leftward": {"parent": "left"}, "right": {"parent": "left", "hFlip": True}},
    }
    (left,) = icon_sets.parse("noto", icons, {"categories": {"Symbols": ["left"]}})
    assert left.synonyms == ("leftward",)
    assert left.category == "Symbols"
    assert 'viewBox="0 0 32 32"' in left.svg
    assert "currentColor" not in left.svg


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cat-face", "cat face"),
        ("t-shirt", "t-shirt"),
        ("jack-o-lantern", "jack-o'-lantern"),
        ("rescue-workers-helmet", "rescue worker's helmet"),
        ("womans-hat", "woman's hat"),
    ],
)
def test_a_caption_reads_as_a_person_writes(name: str, text: str) -> None:
    assert captions.caption(name) == text


def test_variants_flags_letters_and_clock_faces_are_left_out() -> None:
    names = [
        "waving-hand",
        "waving-hand-dark",
        "waving-hand-medium-light-skin-tone",
        "flag-for-chad",
        "keycap-3",
        "letter-k",
        "five-thirty",
        "cool-button",
        "medium",
        "apple",
    ]
    kept = captions.wanted([*map(icon, names), icon("chequered-flag", category="Flags")])
    assert [one.name for one in kept] == ["waving-hand", "medium", "apple"]


def test_people_at_work_are_drawn_less_often_than_things() -> None:
    assert captions.emphasis(icon("rocket")) > captions.emphasis(icon("man-mechanic", category="People & Body"))
    assert captions.emphasis(icon("red-heart", category="Symbols")) == captions.emphasis(icon("rocket"))


def test_sets_that_name_a_thing_differently_show_one_subject() -> None:
    icons = [
        icon("bear", "noto"),
        icon("bear-face", "emojione", synonyms=("bear",)),
        icon("bear", "twemoji"),
        icon("polar-bear", "noto"),
    ]
    found = captions.subjects(icons)
    assert found["emojione", "bear-face"] == found["noto", "bear"] == found["twemoji", "bear"] == "bear"
    assert found["noto", "polar-bear"] == "polar bear"


def test_a_synonym_does_not_join_two_drawings_of_one_set() -> None:
    icons = [
        icon("cat", "noto"),
        icon("cat-face", "noto"),
        icon("cat-face", "twemoji", synonyms=("cat",)),
    ]
    found = captions.subjects(icons)
    assert found["noto", "cat"] != found["noto", "cat-face"]
    assert found["twemoji", "cat-face"] == "cat face"


def test_a_held_out_icon_shows_a_subject_that_is_learnt_from_another_set() -> None:
    names = [f"thing-{number}" for number in range(300)]
    training = [icon(name, key) for key in ("noto", "fluent", "twemoji") for name in names]
    lonely = [icon(f"lonely-{number}", "noto") for number in range(300)]
    entries = dataset.describe([*training, *lonely])
    held_out = [one for one in entries if one.split == "held-out"]
    learnt = {one.subject for one in entries if one.split == "train"}
    assert 0.02 < len(held_out) / len(training) < 0.06
    assert all(one.subject in learnt and one.subject.startswith("thing") for one in held_out)
    assert entries == dataset.describe([*training, *lonely])


def test_half_of_the_captions_carry_the_style_word() -> None:
    one = entry("red apple")
    assert one.captions == ("red apple",)
    assert one.styled_captions == ("red apple, noto style",)


def test_a_drawing_is_called_by_its_subject_first_and_by_what_people_say() -> None:
    assert captions.names(icon("automobile", synonyms=("red-car",)), "automobile") == ("automobile", "car", "red car")
    assert captions.names(icon("cat"), "cat face")[:2] == ("cat face", "cat")


def test_known_subjects_are_kept_without_the_odd_drawings_and_the_common_and_hard_ones_come_oftener() -> None:
    icons = [icon("bus"), icon("shield"), icon("zebra"), icon("basketball", "blob"), icon("key")]
    kept, entries = dataset.chosen_only(icons, dataset.describe(icons))
    assert [(one.set_key, one.name) for one in kept] == [("noto", "bus"), ("noto", "shield"), ("noto", "key")]
    assert [one.weight for one in entries] == [1.0, dataset.SELDOM_WEIGHT, dataset.HARD_WEIGHT]


def test_other_subjects_take_the_share_of_the_looks_that_they_are_given() -> None:
    icons = [icon("bus"), icon("zebra"), icon("shield"), icon("sloth", "blob")]
    kept, entries = dataset.chosen_only(icons, dataset.describe(icons), breadth=0.25)
    assert [one.name for one in kept] == ["bus", "zebra", "shield", "sloth"]
    weight = {one.name: one.weight for one in entries}
    assert weight["zebra"] + weight["sloth"] == pytest.approx(0.25 * sum(weight.values()))
    assert weight["bus"] == 1.0
    assert weight["sloth"] < weight["zebra"]


def disc(colour: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A disc of one colour on white, 32 px."""
    down, across = np.mgrid[:32, :32] - 15.5
    image = np.full((32, 32, 3), 255, dtype=np.uint8)
    image[down**2 + across**2 < 144] = colour
    return image


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((221, 46, 68), "red"),
        ((244, 144, 12), "orange"),
        ((253, 203, 88), "yellow"),
        ((120, 177, 89), "green"),
        ((85, 172, 238), "blue"),
        ((130, 80, 220), "purple"),
        ((245, 90, 170), "pink"),
    ],
)
def test_the_dominant_colour_has_the_name_that_people_give_it(colour: tuple[int, int, int], name: str) -> None:
    assert colours.dominant(disc(colour)) == colours.plain(disc(colour)) == name
    for other in colours.HUES:
        assert colours.dominant(colours.recoloured(disc(colour), other)) == other


@pytest.mark.parametrize("colour", [(30, 30, 30), (150, 150, 150), (255, 255, 255), (120, 70, 40)])
def test_black_grey_white_and_brown_have_no_hue(colour: tuple[int, int, int]) -> None:
    assert colours.dominant(disc(colour)) is None
    with pytest.raises(ValueError, match="without colours"):
        colours.recoloured(disc(colour), "red")


def test_a_picture_of_two_colours_is_not_called_by_either() -> None:
    both = np.concatenate([disc((221, 46, 68)), disc((85, 172, 238))])
    assert colours.plain(both) is None


def test_recolouring_leaves_white_ground_and_shades_alone() -> None:
    red = disc((221, 46, 68))
    red[10:12, 10:12] = (110, 23, 34)
    blue = colours.recoloured(red, "blue")
    assert (blue[0] == 255).all()
    assert blue[10, 10].max() < blue[16, 16].max()


def test_captions_name_a_plain_colour_and_some_things_come_in_every_colour() -> None:
    images = np.stack([disc((253, 203, 88)), disc((221, 46, 68)), disc((221, 46, 68)), disc((221, 46, 68))])
    data = dataset.coloured(
        IconData(images, (entry("lemon"), entry("red heart"), entry("automobile"), entry("star", "held-out")))
    )
    named = [one.captions for one in data.entries]
    assert named[0] == ("lemon", "yellow lemon")
    assert named[1] == ("red heart",)
    assert named[2] == ("automobile", "red automobile")
    more = data.entries[4:]
    assert [one.captions for one in more] == [
        (f"{other} automobile", f"{other} car") for other in sorted(set(colours.HUES) - {"red"})
    ]
    assert [colours.dominant(image) for image in data.images[4:]] == [one.name.split("-")[1] for one in more]
    assert all(one.weight < 0.2 for one in more)


def test_a_data_set_comes_back_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    data = IconData(images, (entry("a"), entry("b", "held-out"), entry("c")))
    dataset.write(data, tmp_path)
    back = dataset.load(tmp_path)
    assert back.entries == data.entries
    np.testing.assert_array_equal(back.images, images)
    np.testing.assert_array_equal(back.select("held-out").images, images[1:2])
    assert [one.subject for one in back.every(2).entries] == ["a", "c"]


def test_an_icon_is_drawn_over_white_in_the_middle_of_a_square() -> None:
    pytest.importorskip("resvg_py", reason="resvg-py draws the icons; only maintainers need it")
    wide = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10" width="20" height="10">'
        '<rect width="20" height="10" fill="#ff0000"/></svg>'
    )
    drawn = dataset.draw(wide, 32)
    assert drawn.shape == (32, 32, 3)
    assert drawn[16, 16].tolist() == [255, 0, 0]
    assert drawn[2, 16].tolist() == [255, 255, 255]


def test_the_lists_of_subjects_are_complete_and_without_repetition() -> None:
    counts: dict[str, int] = defaultdict(int)
    for subject in (*COMMON_SUBJECTS, ""):
        counts[subject] += 1
    assert len(COMMON_SUBJECTS) == 100
    assert max(counts.values()) == 1
    assert len(set(SHEET_PROMPTS)) == 64


def test_a_small_base_knows_what_it_is_asked_for_first_and_not_too_much() -> None:
    assert {*COMMON_SUBJECTS, *SHEET_PROMPTS} <= set(KNOWN_SUBJECTS)
    assert len(KNOWN_SUBJECTS) <= 300
    assert set(PLAIN_NAMES) | RECOLOURED_SUBJECTS <= set(KNOWN_SUBJECTS)
    assert {drawing.split("/")[1] for drawing in ODD_DRAWINGS} <= set(KNOWN_SUBJECTS)
    assert len(COLOUR_PROMPTS) == 20
    assert all(set(prompt.split()) & set(colours.HUES) for prompt in COLOUR_PROMPTS)
