"""Captions from sidecars, metadata and names, and what is done with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.data.captions import (
    Caption,
    compose,
    find_replace,
    from_names,
    read_captions,
)
from trainer.data.names import caption_from_name
from trainer.errors import DatasetError


@pytest.mark.parametrize(
    "stem",
    [
        "IMG_1234",
        "img1234",
        "IMG-20230501-WA0003",
        "IMG20230501101233",
        "_MG_1234",
        "DSC0001",
        "DSC_0001",
        "DSCF0042",
        "P1010001",
        "PXL_20230501_101233456",
        "MVIMG_20190101_000000",
        "GX010042",
        "DJI_0042",
        "100_0042",
        "FB_IMG_1590000000000",
        "received_1234567",
        "WhatsApp Image 2023-05-01 at 10.12.33 (1)",
        "Screenshot 2024-05-01 at 10.12.33 PM",
        "Screenshot_20240501-101233",
        "Bildschirmfoto 2024-05-01 um 10.12.33",
        "Capture d’écran 2024",
        "ChatGPT Image Nov 22, 2025, 06_48_00 PM",
        "Gemini_Generated_Image_x8d2kx8d2kx8d2kx",
        "ComfyUI_00001_",
        "00012-1234567890",
        "image(3)",
        "image",
        "photo 1",
        "untitled",
        "Untitled-1",
        "download (5)",
        "scan0001",
        "frame 0012",
        "1234",
        "20240501T101233",
        "d41d8cd98f00b204e9800998ecf8427e",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "FhXkQzWpAA",
        "a",
        "x (2)",
        "",
        "---",
    ],
)
def test_names_made_by_machines_are_no_captions(stem: str) -> None:
    assert caption_from_name(stem) is None


@pytest.mark.parametrize(
    ("stem", "caption"),
    [
        ("cat-face", "cat face"),
        ("red-apple_03", "red apple"),
        ("01_apple", "apple"),
        ("apple01", "apple"),
        ("apple (2)", "apple"),
        ("apple - Copy", "apple"),
        ("apple copy 2", "apple"),
        ("RedApple", "Red Apple"),
        ("a red apple", "a red apple"),
        ("photo of a cat", "photo of a cat"),
        ("it's a cat", "it's a cat"),
        ("IMG_1234 red apple", "red apple"),
        ("00012-1234567890-a red apple", "a red apple"),
        ("ox", "ox"),
        ("BMW", "BMW"),
        ("rhythm", "rhythm"),
        ("café-crème", "café crème"),
        ("苹果", "苹果"),
        ("яблоко 2", "яблоко"),
        ("हिन्दी_सेब", "हिन्दी सेब"),
        ("DALL·E 2023-10-05 12.30.45 - A red apple on a table", "A red apple on a table"),
        (
            "someone_A_red_apple_--ar_3_2_9d0c1d5e-1111-4222-8333-123456789abc_0",
            "A red apple",
        ),
    ],
)
def test_names_that_people_gave_are_captions(stem: str, caption: str) -> None:
    assert caption_from_name(stem) == caption


def read_one(folder: Path, name: str = "cat face.png") -> Caption:
    captions, _ = read_captions(folder, [folder / name])
    return captions[name]


def test_a_sidecar_wins_over_metadata_and_metadata_over_the_name(tmp_path: Path) -> None:
    assert read_one(tmp_path) == Caption("cat face", "name")
    row = {"file_name": "cat face.png", "text": "from metadata"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert read_one(tmp_path) == Caption("from metadata", "metadata")
    (tmp_path / "cat face.caption").write_text("from caption")
    (tmp_path / "cat face.txt").write_text("from text\n")
    assert read_one(tmp_path) == Caption("from text", "sidecar")


def test_a_name_that_says_nothing_gives_no_caption(tmp_path: Path) -> None:
    assert read_one(tmp_path, "IMG_1234.png") == Caption(None, "none")


def test_an_empty_sidecar_means_that_there_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "cat face.txt").write_text(" \n")
    assert read_one(tmp_path) == Caption(None, "sidecar")


def test_several_lines_become_one(tmp_path: Path) -> None:
    (tmp_path / "cat face.txt").write_bytes(b"a cat,\r\n  on a   mat\r\n")
    assert read_one(tmp_path).text == "a cat, on a mat"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_beyond_doubt_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "cat face.txt").write_bytes("Kätzchen im Café".encode(encoding))
    assert read_one(tmp_path).text == "Kätzchen im Café"


def test_a_latin_1_caption_is_refused_by_name_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cat face.txt").write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"^cat face\.txt is not saved as UTF-8.*save it"):
        read_one(tmp_path)


@pytest.mark.parametrize("text", ["Bébé", "Übermut", "naïve façade", "Ærø"])
def test_other_accented_captions_are_not_taken_for_chinese(tmp_path: Path, text: str) -> None:
    (tmp_path / "cat face.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match="is not saved as UTF-8"):
        read_one(tmp_path)


@pytest.mark.parametrize("encoding", ["gbk", "gb18030"])
@pytest.mark.parametrize("text", ["一只猫，坐在红色的垫子上", "红苹果, ink style", "她说：“喵”", "鬱金香花園，春天"])
def test_chinese_captions_of_older_programs_are_read_and_said(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "cat face.txt").write_bytes(text.encode(encoding))
    captions, (finding,) = read_captions(tmp_path, [tmp_path / "cat face.png"])
    assert captions["cat face.png"] == Caption(text, "sidecar")
    assert (finding.image, finding.kind, finding.severity) == ("cat face.png", "caption_encoding", "note")
    assert text in finding.action


def test_a_caption_that_belongs_to_no_image_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cat face.txt").write_text("a cat")
    (tmp_path / "dog face.txt").write_text("a dog")
    (tmp_path / ".hidden.txt").write_text("x")
    captions, (finding,) = read_captions(tmp_path, [tmp_path / "cat face.png"])
    assert list(captions) == ["cat face.png"]
    assert (finding.image, finding.kind, finding.severity) == ("dog face.txt", "caption_unmatched", "warning")
    assert "no image is called dog face" in finding.action


def test_a_huge_text_file_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "cat face.txt").write_bytes(b"x" * 100_000)
    with pytest.raises(DatasetError, match=r"cat face\.txt is too large"):
        read_one(tmp_path)


def test_metadata_serves_subfolders_from_above_and_from_within(tmp_path: Path) -> None:
    inner = tmp_path / "cats"
    inner.mkdir()
    rows = [
        {"file_name": "cats/a.png", "text": "above"},
        {"file_name": "cats\\b.png", "caption": "above"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (inner / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png", "text": "within"}))
    captions, findings = read_captions(tmp_path, [inner / "a.png", inner / "b.png"])
    assert findings == []
    assert captions == {
        "cats/a.png": Caption("above", "metadata"),
        "cats/b.png": Caption("within", "metadata"),
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", r"Line 2 of metadata\.jsonl is not a JSON object"),
        ('["a.png"]', r"Line 2 of metadata\.jsonl needs a .file_name."),
        ('{"text": "a cat"}', r"Line 2 of metadata\.jsonl needs a .file_name."),
        ('{"file_name": "a.png", "text": 3}', r"Line 2 of metadata\.jsonl.*not text"),
    ],
)
def test_malformed_metadata_is_refused_with_the_line(tmp_path: Path, line: str, reason: str) -> None:
    first = '{"file_name": "cat face.png", "text": "a cat"}'
    (tmp_path / "metadata.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(DatasetError, match=reason):
        read_one(tmp_path)


@pytest.mark.parametrize(
    ("caption", "trigger", "result"),
    [
        ("red apple", "ink style", "red apple, ink style"),
        ("A red apple.", "ink style", "A red apple, ink style"),
        ("red apple, Ink Style", "ink style", "red apple, Ink Style"),
        ("an ink style apple", "ink style", "an ink style apple"),
        ("pink styles", "ink style", "pink styles, ink style"),
        ("red apple", "(ink)", "red apple, (ink)"),
        ("red apple", "", "red apple"),
        ("", "ink style", "ink style"),
        (None, "ink style", "ink style"),
        (None, "", ""),
        ("red\n apple", "  ink  style, ", "red apple, ink style"),
    ],
)
def test_the_trigger_is_in_every_caption_once(caption: str | None, trigger: str, result: str) -> None:
    assert compose(caption, trigger) == result
    assert compose(result, trigger) == result


def test_find_and_replace_takes_words_literally_and_whole() -> None:
    captions = {"a": "a Cat, category (cat)", "b": "no match,  as it was "}
    assert find_replace(captions, "cat", r"\1dog") == {
        "a": r"a \1dog, category (\1dog)",
        "b": "no match,  as it was ",
    }
    assert find_replace({"a": "category"}, "cat", "dog", whole_words=False) == {"a": "dogegory"}
    assert find_replace({"a": "x"}, "", "y") == {"a": "x"}
    assert find_replace({"a": "a.b axb"}, "a.b", "c") == {"a": "c axb"}


def test_a_word_taken_out_leaves_no_hole() -> None:
    assert find_replace({"a": "cat, ink style, mat"}, "ink style", "") == {"a": "cat, mat"}
    assert find_replace({"a": "ink style, mat"}, "ink style", "") == {"a": "mat"}


def test_captions_can_be_taken_from_names() -> None:
    assert from_names(["x/cat-face.png", "IMG_1.png"]) == {
        "x/cat-face.png": "cat face",
        "IMG_1.png": "",
    }


def test_captions_buckets_and_batch_order_load_nothing_heavy() -> None:
    code = (
        "import sys, trainer.randomness, trainer.data.captions, trainer.data.buckets, "
        "trainer.data.sampler, trainer.data.dataset; "
        "print([m for m in ('torch', 'numpy', 'PIL', 'diffusers', 'transformers') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
